"""Known values: the published Aug-PE and DP-SGD settings, recomputed exactly elsewhere."""

import math
import subprocess
import sys

import pytest

from dpsda.privacy import accounting
from dpsda.privacy.accounting import (
    DiscreteGaussian,
    RdpCurve,
    SubsampledGaussian,
    Zcdp,
    accountant,
    calibrate,
    cross_check,
    default_delta,
    epsilon,
    from_json,
    gaussian_epsilon,
    gaussian_noise,
    round_up,
    to_json,
)
from dpsda.privacy.errors import BudgetError, PrivacyError

UNITS = {"yelp": 1_939_290, "openreview": 8_396, "pubmed": 75_316}
SIGMAS = {
    "yelp": {1: 15.4045, 2: 8.0389, 4: 4.2451},
    "openreview": {1: 11.5998, 2: 6.2107, 4: 3.3743},
    "pubmed": {1: 13.2506, 2: 7.0010, 4: 3.7493},
}


def aug_pe(sigma, events=10):
    return [DiscreteGaussian(sigma, 1)] * events


@pytest.mark.parametrize("data", UNITS)
@pytest.mark.parametrize("target", [1, 2, 4])
def test_ten_votes_at_the_exact_gaussian_sigma_spend_the_budget(data, target):
    """The discrete Gaussian differs from the continuous one in the fourth digit."""
    assert epsilon(aug_pe(SIGMAS[data][target]), default_delta(UNITS[data])) == pytest.approx(target, rel=6e-4)


@pytest.mark.parametrize("data", UNITS)
@pytest.mark.parametrize("target", [1, 2, 4])
def test_calibration_finds_the_smallest_sigma_of_its_grid(data, target):
    delta = default_delta(UNITS[data])
    sigma = calibrate(aug_pe, target, delta)
    assert sigma == pytest.approx(SIGMAS[data][target], rel=6e-4)
    assert epsilon(aug_pe(sigma), delta) <= target < epsilon(aug_pe(sigma - 1e-4), delta)


def test_discrete_values():
    """With dp-accounting's coarser privacy buckets these read 1.00053, 2.00054 and 3.99902."""
    delta = default_delta(UNITS["yelp"])
    for sigma, expected in ((15.4045, 1.00001), (8.0389, 2.00002), (4.2451, 3.99851)):
        assert epsilon(aug_pe(sigma), delta) == pytest.approx(expected, abs=2e-4)


def test_the_published_yelp_sigma_is_over_budget():
    delta = default_delta(UNITS["yelp"])
    assert epsilon(aug_pe(15.34), delta) > 1
    assert epsilon(aug_pe(15.34), delta) == pytest.approx(1.0045, abs=5e-4)


@pytest.mark.parametrize("data", UNITS)
@pytest.mark.parametrize("target", [1, 2, 4])
def test_the_exact_gaussian_both_ways(data, target):
    delta = default_delta(UNITS[data])
    sigma = gaussian_noise(target, 10, delta)
    assert sigma == pytest.approx(SIGMAS[data][target], abs=6e-5)
    assert gaussian_epsilon(sigma, 10, delta) == pytest.approx(target, rel=1e-9)


def test_the_published_yelp_sigmas_under_continuous_noise():
    delta = default_delta(UNITS["yelp"])
    for sigma, expected in ((15.34, 1.0045), (8.03, 2.0024), (4.24, 4.0053)):
        assert gaussian_epsilon(sigma, 10, delta) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("target", [1e-3, 0.1, 30, 1e4])
@pytest.mark.parametrize("delta", [1e-14, 1e-5, 0.3])
def test_the_exact_gaussian_inverts_far_from_the_usual_budgets(target, delta):
    assert gaussian_epsilon(gaussian_noise(target, 3, delta), 3, delta) == pytest.approx(target, rel=1e-6)


def test_the_ends_of_the_exact_gaussian():
    assert gaussian_epsilon(0, 1, 1e-5) == math.inf and gaussian_epsilon(10, 1, 0.5) == 0
    for wrong in (lambda: gaussian_epsilon(math.nan, 1, 1e-5), lambda: gaussian_epsilon(1, 0, 1e-5)):
        with pytest.raises(PrivacyError):
            wrong()
    for wrong in (lambda: gaussian_noise(0, 1, 1e-5), lambda: gaussian_noise(1, 1, 0)):
        with pytest.raises(PrivacyError):
            wrong()


def test_private_label_counts_are_an_eleventh_event():
    delta = default_delta(UNITS["yelp"])
    for target, expected in ((1, 16.156), (2, 8.431), (4, 4.452)):
        assert calibrate(lambda s: aug_pe(s, 11), target, delta) == pytest.approx(expected, abs=2e-3)


def test_four_votes_a_record_are_four_integers_at_twice_the_noise():
    """Here the continuous Gaussian (5.680) is no upper bound for the discrete one."""
    assert epsilon([DiscreteGaussian(math.sqrt(4) * 0.8, 4)], 1e-5) == pytest.approx(5.706, abs=1e-3)
    assert epsilon([SubsampledGaussian(0.8, 1.0, 1)], 1e-5) == pytest.approx(5.680, abs=1e-3)


def test_one_gaussian():
    """sigma 4.530877117 is what zCDP needs for (1, 1e-6); the exact curve (Balle and Wang 2018) needs 4.224679."""
    assert epsilon([Zcdp(1 / (2 * 4.530877117**2))], 1e-6) == pytest.approx(1, abs=1e-6)
    assert epsilon([SubsampledGaussian(4.224679, 1.0, 1)], 1e-6) == pytest.approx(1, abs=1e-4)


def test_subsampled_gaussians():
    assert epsilon([SubsampledGaussian(1.5, 0.04, 2250)], 1e-5) == pytest.approx(6.7688, abs=1e-3)
    assert epsilon([SubsampledGaussian(0.82, 4096 / 180_000, 439)], 5e-7) == pytest.approx(5.7115, abs=1e-3)


@pytest.mark.parametrize(
    ("noise", "pld", "rdp", "with_histogram"),
    [(0.80, 6.0754, 6.8416, None), (0.81, 5.8889, 6.6287, 5.9086), (0.82, 5.7115, 6.4262, 5.7317)],
)
def test_the_table_of_the_two_stage_pipeline(noise, pld, rdp, with_histogram):
    """Yu et al. 2024: q = 4096 / 180,000, 439 steps, delta 5e-7, alone and with a histogram at noise 10."""
    steps, delta = SubsampledGaussian(noise, 4096 / 180_000, 439), 5e-7
    assert epsilon([steps], delta) == pytest.approx(pld, abs=2e-4)
    assert accounting._rdp_epsilon([steps], delta) == pytest.approx(rdp, abs=2e-4)
    lower, upper = cross_check([steps], delta)
    assert lower - 1e-3 <= pld <= upper + 1e-3 and upper - lower < 0.05
    if with_histogram:
        both = [steps, DiscreteGaussian(10.0, 1)]
        assert epsilon(both, delta) == pytest.approx(with_histogram, abs=2e-4)
        assert cross_check(both, delta) is not None


@pytest.mark.parametrize(
    ("noise", "scale", "expected"),
    [(0.8072, 10.0, 5.959), (0.8072, 10 / 2**0.5, 5.979), (1.1219, 10.0, 2.897), (1.1219, 10 / 2**0.5, 2.934)],
)
def test_the_composed_budget_of_the_two_stage_pipeline(noise, scale, expected):
    """Training at epsilon 5.94 or 2.86 with a histogram of sensitivity 1, and of sqrt 2 (one record replaced)."""
    steps = SubsampledGaussian(noise, 4096 / 180_000, 439)
    assert epsilon([steps], 5e-7) == pytest.approx(5.94 if noise < 1 else 2.86, abs=2e-3)
    assert epsilon([steps, DiscreteGaussian(scale, 1)], 5e-7) == pytest.approx(expected, abs=2e-3)


def test_the_histogram_alone():
    assert epsilon([DiscreteGaussian(10.0, 1)], 5e-7) == pytest.approx(0.4125, abs=2e-3)
    assert epsilon([DiscreteGaussian(10 / 2**0.5, 1)], 5e-7) == pytest.approx(0.5969, abs=2e-3)


def test_one_event_with_only_a_curve_puts_all_in_rdp():
    nothing = Zcdp(0.0)
    dp_sgd = SubsampledGaussian(1.5, 0.04, 2250)
    assert accountant([dp_sgd]) == "PLD" and accountant([dp_sgd, nothing]) == "RDP"
    assert epsilon([dp_sgd, nothing], 1e-5) == pytest.approx(7.3291, abs=1e-3)
    other = SubsampledGaussian(0.82, 4096 / 180_000, 439)
    assert epsilon([other, nothing], 5e-7) == pytest.approx(6.4262, abs=1e-3)


def test_calibration_by_prv_and_rdp():
    """eps 8, q 0.04, 90 epochs of 25 steps: 1.416 by RDP; PRV's upper bound takes 1.3477, PLD a little less."""
    steps = lambda s: [SubsampledGaussian(s, 0.04, 2250)]  # noqa: E731
    assert calibrate(steps, 8, 1e-5) == pytest.approx(1.3477, abs=2.5e-3)
    assert calibrate(lambda s: [*steps(s), Zcdp(0.0)], 8, 1e-5) == pytest.approx(1.416, abs=1e-3)


def test_training_and_a_histogram_compose():
    training = SubsampledGaussian(0.81, 4096 / 180_000, 439)
    assert epsilon([training], 5e-7) == pytest.approx(5.8889, abs=1e-3)
    assert epsilon([training, DiscreteGaussian(10, 1)], 5e-7) == pytest.approx(5.9086, abs=1e-3)
    low, high = cross_check([training, DiscreteGaussian(10, 1)], 5e-7)
    assert low < 5.9086 < high


def test_curves_compose_where_they_share_orders():
    rho = 0.05
    curve = RdpCurve((2.0, 8.0, 16.0, 32.0), tuple(rho * a for a in (2.0, 8.0, 16.0, 32.0)))
    finer = epsilon([Zcdp(rho)], 1e-5)
    assert finer <= epsilon([curve], 1e-5) <= finer * 1.05
    with pytest.raises(PrivacyError, match="no order in common"):
        epsilon([curve, RdpCurve((3.0,), (0.1,))], 1e-5)


@pytest.mark.parametrize("count", [1, 4, 11])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_cross_check_covers_the_discrete_gaussian_from_scale_one_and_a_half(count, delta):
    for scale in (1.5, 2.0, 2.6, 5.0):
        low, high = cross_check([DiscreteGaussian(scale, count)], delta)
        assert low < high


def test_cross_check_says_where_it_does_not_apply():
    assert cross_check([DiscreteGaussian(1.4, 4)], 1e-5) is None
    assert cross_check([Zcdp(0.1)], 1e-5) is None and cross_check([], 1e-5) is None


def test_cross_check_passes_over_what_prv_cannot_discretise():
    """Two steps that spend epsilon 4: its constructor raises, and PLD stands alone."""
    assert cross_check([SubsampledGaussian(0.5394, 24 / 225, 2), DiscreteGaussian(10.0, 1)], 8e-4) is None
    assert epsilon([SubsampledGaussian(0.5394, 24 / 225, 2), DiscreteGaussian(10.0, 1)], 8e-4) > 2


def test_both_accountants_end_at_zero():
    """At so large a delta PRV's bounds lie below 0, where no epsilon does."""
    assert epsilon([DiscreteGaussian(10.0, 1)], 0.3) == 0
    assert cross_check([DiscreteGaussian(10.0, 1)], 0.3) == (0, 0)


def test_disagreeing_accountants_are_an_error(monkeypatch):
    monkeypatch.setattr("dpsda.privacy.accounting.epsilon", lambda events, delta: 0.9)
    with pytest.raises(PrivacyError, match="disagree"):
        cross_check(aug_pe(15.4045), default_delta(UNITS["yelp"]))


def test_no_noise_and_no_event():
    assert epsilon([DiscreteGaussian(0.0, 1), DiscreteGaussian(5.0, 1)], 1e-5) == math.inf
    assert epsilon([], 1e-5) == 0 and epsilon([DiscreteGaussian(2.0, 0)], 1e-5) == 0


def test_what_is_spent_cannot_be_calibrated_away():
    with pytest.raises(BudgetError, match="larger --epsilon"):
        calibrate(lambda s: [DiscreteGaussian(s, 1)], 1, 1e-6, spent=[DiscreteGaussian(4.0, 10)])
    with pytest.raises(BudgetError, match="larger --epsilon"):
        calibrate(lambda s: [DiscreteGaussian(s, 1), DiscreteGaussian(3.0, 1)], 1, 1e-6)


def test_what_is_spent_composes_with_what_is_to_come():
    spent = [DiscreteGaussian(6.0, 2)]
    sigma = calibrate(lambda s: aug_pe(s, 3), 2, 1e-6, spent)
    assert epsilon([*spent, *aug_pe(sigma, 3)], 1e-6) <= 2 < epsilon([*spent, *aug_pe(sigma - 1e-4, 3)], 1e-6)


@pytest.mark.parametrize("target, delta", [(0, 1e-5), (-1, 1e-5), (math.nan, 1e-5), (1, 0), (1, 1), (1, 2)])
def test_bad_budgets_are_refused(target, delta):
    with pytest.raises(PrivacyError):
        calibrate(aug_pe, target, delta)


def test_events_survive_json_and_unknown_ones_are_refused():
    for event in (DiscreteGaussian(2.0, 3), SubsampledGaussian(1.0, 0.1, 5), Zcdp(0.2), RdpCurve((2.0,), (0.1,))):
        assert from_json(to_json(event)) == event
    with pytest.raises(PrivacyError, match="laplace"):
        from_json({"kind": "laplace", "scale": 1})


def test_bounds_are_shown_rounded_up():
    assert round_up(0.99991) == 1.0 and round_up(1.00001) == 1.0001 and round_up(math.inf) == math.inf


def test_calibration_is_fast():
    """T = 10 in under 0.2 s after import, in a fresh process; processor time, the best of three, and twice that for a
    machine whose caches others use."""
    code = (
        "import time; from dp_accounting.pld import privacy_loss_distribution; from dpsda.privacy.accounting import *\n"
        "times = []\n"
        "for target in (1.0, 1.5, 2.0):\n"
        "    t = time.process_time(); calibrate(lambda s: [DiscreteGaussian(s, 10)], target, 3.6e-8)\n"
        "    times.append(time.process_time() - t)\n"
        "print(min(times))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.4


def test_no_advice_of_a_library_stands_before_a_plan(capfd, caplog):
    """At this rate the library leaves out orders, and says so of every one, hundreds of times in a calibration."""
    with caplog.at_level("WARNING"):
        epsilon([SubsampledGaussian(1.5, 0.16, 20), Zcdp(0.01)], 1e-4)
    assert not caplog.records and "Excluding" not in "".join(capfd.readouterr())
