"""PMixED's mechanisms: bounds hold on laws made to break them, the published one does not, and draws follow them."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import torch

from dpsda.errors import InputError
from dpsda.pmixed import projection
from dpsda.pmixed.planning import largest, plan
from dpsda.privacy import accounting
from dpsda.privacy.accounting import Claimed, PureDp, RdpCurve, Zcdp
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.mixture import PUBLIC, ClippedLogits, MaxDivergence, Mixture, PublishedRenyi, Renyi, draw
from dpsda.privacy.reservation import describe

DELTA = 1e-5


def renyi(p: np.ndarray, q: np.ndarray, order: float) -> float:
    """Brute force, in float64."""
    return float(np.logaddexp.reduce(order * np.log(p) + (1 - order) * np.log(q))) / (order - 1)


def test_the_weights_of_a_mixture():
    paper = Mixture(80, 0.03)
    assert 1 - paper.private_share == pytest.approx(0.08745, abs=5e-6)  # no shard is in the sample
    assert paper.weight == pytest.approx((1 - 0.97**80) / 80)
    assert Mixture(16, 1.0).weight == 1 / 16 and Mixture(1, 0.25).weight == pytest.approx(0.25)
    for shards, inclusion in ((0, 0.5), (4, 0.0), (4, 1.1), (4, math.nan)):
        with pytest.raises(PrivacyError):
            Mixture(shards, inclusion)


def test_check_values_of_the_paper():
    paper = plan("paper", Mixture(80, 0.03), 1024, 8.0, DELTA, order=3)
    assert isinstance(paper, PublishedRenyi) and paper.loss * 1024 == pytest.approx(3.1983, abs=5e-5)
    betas = [paper.beta(drawn) for drawn in (1, 2, 3, 5, 8, 80)]
    assert betas == pytest.approx([0.56518, 0.19384, 0.22359, 0.25831, 0.28734, 0.40389], abs=5e-6)
    for epsilon, order, total in ((10, 3, 5.1983), (6, 4, 2.9121), (4, 5, 1.7473), (2, 9, 0.9533)):
        assert plan("paper", Mixture(80, 0.03), 1, epsilon, DELTA, order=order).loss == pytest.approx(total, abs=5e-5)
    event = paper.event(1024)
    assert isinstance(event, Claimed) and accounting.epsilon([event], DELTA) == pytest.approx(8, abs=1e-6)
    # the amplification compares with a shard that is gone; where its model changes, both sides are mixtures
    public, one, other = (np.array(law) for law in ((0.01, 0.01, 0.98), (0.05, 0.01, 0.94), (0.01, 0.05, 0.94)))
    true = renyi(0.97 * public + 0.03 * one, 0.97 * public + 0.03 * other, 3)
    apart = [math.exp((k - 1) * renyi(one, other, k)) for k in (2, 3)]
    formula = math.log(0.97**2 * 1.06 + 3 * 0.97 * 0.03**2 * apart[0] + 0.03**3 * apart[1]) / 2
    assert true == pytest.approx(4.10e-4, rel=5e-3) and formula == pytest.approx(2.67e-4, rel=5e-3)


def test_check_values_of_clipped_logits():
    for epsilon, delta, rho in ((8, 1e-5, 1.2297), (10, 1e-6, 1.5393), (5, 1e-6, 0.4631), (3, 1e-6, 0.1851)):
        found = plan("dclip", Mixture(80, 1.0), 500, epsilon, delta)
        assert isinstance(found, ClippedLogits) and 500 * found.rho == pytest.approx(rho, rel=1e-3)
    assert plan("dclip", Mixture(80, 0.03), 1024, 8.0, DELTA).clip == pytest.approx(1.96, abs=5e-3)
    for shards, clip in ((3, 0.2354), (7, 0.5493), (15, 1.177), (31, 2.432)):  # of InvisibleInk: a shard is removed
        found = plan("dclip", Mixture(shards, 1.0), 500, 10.0, 1e-6)
        assert 2 * found.clip == pytest.approx(clip, rel=1e-3)


@pytest.mark.parametrize(("rare", "loss"), [(1e-3, 4.251), (1e-4, 5.395), (1e-6, 7.696)])
def test_rare_tokens_break_the_published_bound_and_not_ours(rare, loss):
    """Two shards, one sure of a rare token and one sure of the other: both laws are in the ball, and are far apart."""
    public = np.array([rare, 1 - rare])
    own = [np.array([1 - 1e-13, 1e-13]), np.array([1e-13, 1 - 1e-13])]
    log_public, log_own = torch.log(torch.tensor(public))[None], torch.log(torch.tensor(np.array(own)))
    near = log_public.expand(2, -1)
    published = plan("paper", Mixture(80, 0.03), 1024, 8.0, DELTA, order=3)
    beta = published.beta(2)
    weight = projection.onto_published(log_own, near, 3, torch.full((2, 1), 3 * beta, dtype=torch.float64))
    q, other = projection.mixed(log_own, near, weight).numpy()
    for law in (q, other):
        assert max(renyi(law, public, 3), renyi(public, law, 3)) <= 3 * beta * (1 + 1e-9)
    claimed = 4 * beta * 3
    assert claimed == pytest.approx(2.326, abs=1e-3) and renyi(q, other, 3) == pytest.approx(loss, abs=2e-3)
    for method in ("max", "renyi"):
        mechanism = plan(method, Mixture(80, 0.03), 1024, 8.0, DELTA)
        if isinstance(mechanism, MaxDivergence):
            laws = projection.onto_max_divergence(log_own, near, mechanism.bound).numpy()
        else:
            weight = projection.onto_renyi(log_own, near, mechanism.order, mechanism.cap, mechanism.bound)
            laws = projection.mixed(log_own, near, weight).numpy()
        check(mechanism, public, [laws[0]] * 79, laws[0], laws[1])


def check(mechanism, public, rest, one, other) -> float:
    """How much of its bound the mechanism uses on neighbours whose one shard has another law; never above 1."""
    law = (1 - mechanism.private_share) * public + mechanism.weight * np.sum(rest, axis=0)
    p, q = law + mechanism.weight * one, law + mechanism.weight * other
    worst = 0.0
    for a, b in ((p, q), (q, p)):
        if isinstance(mechanism, MaxDivergence):
            worst = max(worst, float(np.max(np.log(a / b))) / mechanism.epsilon)
        else:
            for order in range(2, mechanism.order + 1):
                worst = max(worst, renyi(a, b, order) / mechanism.divergence(order))
    assert worst <= 1 + 1e-9
    return worst


def adversarial(draw: np.random.Generator, size: int, rows: int) -> np.ndarray:
    """(rows, size) laws: some nearly a point, some with tokens of 1e-14, some the same but for two tokens."""
    laws = draw.dirichlet(np.full(size, draw.choice([0.02, 0.2, 1.0])), rows) + 1e-14
    for row in laws:
        kind = draw.integers(4)
        if kind == 0:
            row[:] = 1e-14
            row[draw.integers(size)] = 1.0
        elif kind == 1:
            row *= np.where(draw.random(size) < 0.5, 1e-9, 1.0) + 1e-14
    return laws / laws.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("method", ["max", "renyi"])
@pytest.mark.parametrize(("shards", "inclusion", "epsilon"), [(16, 1.0, 8.0), (80, 0.03, 8.0), (4, 0.5, 40.0)])
def test_a_random_search_finds_no_violation(method, shards, inclusion, epsilon):
    """Of 400 worlds, each with a public law, the laws of the other shards and two laws of the shard that changes."""
    draws = np.random.default_rng(shards)
    mechanism, used = plan(method, Mixture(shards, inclusion), 1024, epsilon, DELTA), []
    for _ in range(400):
        size = int(draws.integers(2, 51))
        public = adversarial(draws, size, 1)
        laws = adversarial(draws, size, 4)
        log_public, log_p = torch.log(torch.tensor(public)), torch.log(torch.tensor(laws))
        near = log_public.expand(4, -1)
        if isinstance(mechanism, MaxDivergence):
            q = projection.onto_max_divergence(log_p, near, mechanism.bound).numpy()
            assert (np.abs(np.log(q / public)) <= mechanism.bound).all()
        else:
            weight = projection.onto_renyi(log_p, near, mechanism.order, mechanism.cap, mechanism.bound)
            q = projection.mixed(log_p, near, weight).numpy()
            assert (weight <= mechanism.most).all()
            assert max(renyi(law, public[0], mechanism.order) for law in q) <= mechanism.bound * (1 + 1e-9)
        rest = [q[draws.integers(2)] for _ in range(shards - 1)]
        used.append(check(mechanism, public[0], rest, q[2], q[3]))
    assert max(used) > (0.5 if method == "max" else 0.1)  # the search comes near the bound


def test_the_bounds_are_looser_than_the_known_ones_only_where_they_can_be():
    """With a floor of e^-b for every component, as in the simplest proof, the bound would be log(1 + w (e^2b - 1))."""
    one = plan("max", Mixture(80, 0.03), 1024, 8.0, DELTA)
    assert one.epsilon < math.log1p(one.weight * math.expm1(2 * one.bound)) and one.bound > 0.83
    full = plan("max", Mixture(16, 1.0), 1024, 8.0, DELTA)
    assert full.epsilon == pytest.approx(math.log1p(math.expm1(2 * full.bound) / 16))
    for order, cap, bound in ((4, math.log(2), 1.57), (4, -math.log(0.7), 0.72)):
        shards = 80 if bound > 1 else 16
        curve = Renyi(shards, 0.03, order, cap, bound).event(1024)
        assert isinstance(curve, RdpCurve) and accounting.epsilon([curve], DELTA) <= 8.0


def test_events_say_what_an_answer_costs():
    assert MaxDivergence(80, 0.03, 0.5).event(7) == PureDp(MaxDivergence(80, 0.03, 0.5).epsilon, 7)
    clipped = ClippedLogits(10, 1.0, 2.0, 0.5)
    assert clipped.event(3) == Zcdp(3 * 2 * (2 / 5) ** 2)
    assert describe(clipped)["settings"] == {"shards": 10, "inclusion": 1.0, "clip": 2.0, "temperature": 0.5}
    for mechanism in (MaxDivergence(80, 0.03, 0.5), Renyi(80, 0.03, 4, 0.3, 0.4), clipped):
        event = mechanism.event(5)
        assert accounting.from_json(accounting.to_json(event)) == event


def test_one_shard_of_clipped_logits_moves_a_token_by_what_is_accounted():
    """The range of log(P / Q) is at most 2 s, and zCDP of s^2 / 2 holds at every order."""
    draws, mechanism = np.random.default_rng(0), ClippedLogits(4, 1.0, 1.5)
    for _ in range(300):
        size = int(draws.integers(2, 50))
        public, *laws = np.log(adversarial(draws, size, 6))
        gaps = np.clip(np.array(laws) - public, -1.5, 1.5)
        p, q = (torch.tensor(public + (gaps[:3].sum(0) + gap) / 4).softmax(-1).numpy() for gap in gaps[3:])
        loss = np.log(p / q)
        assert loss.max() - loss.min() <= 2 * 2 * 1.5 / 4 + 1e-9
        for order in (1.5, 2, 8, 64):
            assert renyi(p, q, order) <= order * mechanism.rho * (1 + 1e-9)


def test_a_component_first_gives_the_law_of_the_mixture():
    """Chi-square of 20,000 answers; a false alarm once in a million. Samples have the rate, and no shard twice."""
    from scipy.stats import chi2

    draws, mixture = np.random.default_rng(1), Mixture(6, 0.2)
    laws = draws.dirichlet(np.ones(5), 7)  # the last one is the public law
    law = (1 - mixture.private_share) * laws[-1] + mixture.weight * laws[:6].sum(axis=0)
    seen, samples, count = np.zeros(5), np.zeros(5), 20_000
    taken = 0
    for _ in range(count):
        component = mixture.component()
        assert component == PUBLIC or 0 <= component < 6
        seen[draw(laws[component])] += 1
        sample = mixture.sample()
        assert len(set(sample)) == len(sample)
        taken += len(sample)
        samples[draw(laws[sample].mean(axis=0) if len(sample) else laws[-1])] += 1
    for found in (seen, samples):
        assert ((found - count * law) ** 2 / (count * law)).sum() < chi2.isf(1e-6, 4)
    assert abs(taken / (6 * count) - 0.2) < 5 * math.sqrt(0.2 * 0.8 / (6 * count))
    assert draw(np.array([0.0, 1.0, 0.0])) == 1


def test_pure_dp_composes_exactly():
    """Against the sum over all outcomes of randomised responses, and never above the linear bound."""
    from math import comb, exp

    truth = 1 / (1 + exp(-0.3))
    p = [comb(20, k) * truth**k * (1 - truth) ** (20 - k) for k in range(21)]
    found = accounting.epsilon([PureDp(0.3, 12), PureDp(0.3, 8)], 1e-3)
    delta = sum(max(0.0, a - exp(found) * b) for a, b in zip(p, p[::-1], strict=True))
    assert delta == pytest.approx(1e-3, rel=1e-5) and found < 20 * 0.3
    assert accounting.epsilon([PureDp(0.3, 1)], 1e-9) <= 0.3
    beside = accounting.epsilon([PureDp(0.3, 20), accounting.DiscreteGaussian(10.0, 1)], 1e-3)
    assert found < beside < found + 0.3
    assert accounting.epsilon([PureDp(0.3, 20), Zcdp(1e-9)], 1e-3) >= found
    assert accounting.cross_check([PureDp(0.3, 20)], 1e-3) is None


def test_a_hundred_million_answers_are_planned_in_bounded_memory():
    """So many answers are nearly a Gaussian release, alone (to 1e-6) and, on the grid of the PLD, beside one."""
    count, mu = 10**8, 2.0
    one = mu / math.sqrt(count)
    before = accounting.gaussian_epsilon(1 / mu, 1, 1e-6)
    assert accounting.epsilon([PureDp(one, count)], 1e-6) == pytest.approx(before, rel=1e-6)
    one = mu / math.sqrt(10**6)
    tracemalloc.start()
    beside = accounting.epsilon([PureDp(one, 10**6), accounting.DiscreteGaussian(5.0, 1)], 1e-6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    together = accounting.gaussian_epsilon(1 / math.hypot(mu, 1 / 5), 1, 1e-6)
    assert together < beside < 1.001 * together
    assert peak < 5e7  # a number for each outcome on each neighbour would be 1.6e7 in arrays, and 3e8 in dictionaries
    for law, other in itertools.permutations(accounting._randomized_response(PureDp(one, 10**6), 10**6)):
        assert sum(map(math.exp, law.values())) == pytest.approx(1, abs=1e-9)
        assert len(law.keys() - other.keys()) == 1  # what is left out of both has an infinite loss
    found = plan("max", Mixture(64, 0.5), count, 8.0, 1e-5)
    assert largest(found, 10**9, 8.0, 1e-5, ()) == pytest.approx(count, rel=1e-3)


def test_plans_end_and_leave_the_paper_out_where_it_has_no_budget():
    """PLD's epsilon of answers beside a histogram is a step function, at whose steps a search could go on for ever."""
    from dpsda.pmixed.planning import leaves

    spent = [accounting.DiscreteGaussian(10.0, 1)]
    for queries, epsilon in ((60, 1.5), (60, 3.0), (256, 1.0), (1024, 0.5)):
        found = plan("max", Mixture(16, 0.5), queries, epsilon, DELTA, spent)
        total = accounting.epsilon([*spent, found.event(queries)], DELTA)
        assert 0.97 * epsilon < total <= epsilon
    assert not leaves(3, 4.0, DELTA) and leaves(4, 4.0, DELTA) and leaves(3, 8.0, DELTA)
    with pytest.raises(InputError, match="--order 3 leaves nothing of epsilon 4"):
        plan("paper", Mixture(16, 0.03), 1024, 4.0, DELTA, order=3)
    assert accounting.epsilon([PureDp(50.0, 2), Zcdp(0.005)], DELTA) >= 99
    assert accounting.epsilon([PureDp(0.0, 5), Zcdp(0.1)], DELTA) == pytest.approx(
        accounting.epsilon([Zcdp(0.1)], DELTA)
    )
    many = accounting.epsilon([*spent, PureDp(0.001, 300_000)], DELTA)
    alone = accounting.epsilon([PureDp(0.001, 300_000)], DELTA)
    assert alone < many < alone + 0.1
