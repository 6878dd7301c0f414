"""Steps, rate and noise of a run, and the budget that training, label counts and a later histogram share."""

from __future__ import annotations

import pytest

from dpsda.finetune.options import TrainingOptions
from dpsda.finetune.planning import Counts, keep, open_intervals, plan
from dpsda.options import PrivacyOptions
from dpsda.privacy.accounting import DiscreteGaussian, SubsampledGaussian, cross_check, epsilon
from dpsda.privacy.errors import BudgetError
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import histogram
from dpsda.runs import RunFolder

Q, DELTA = 4096 / 180_000, 5e-7


def planned(root, privacy, training, *, units=180_000, unit="record", counts=None):
    options = PrivacyOptions(**privacy)
    folder, ledger = RunFolder(root, protected=options.protected), Ledger(root, protected=options.protected)
    ledger.open(unit=unit, units=units, delta=options.delta or 1e-5, facts={})
    settings = TrainingOptions(**training)
    config = {"epsilon": options.epsilon, "noise": options.noise, "epochs": settings.epochs, "steps": settings.steps}
    config |= {"histogram_noise": settings.histogram_noise}
    try:
        made = plan(folder, ledger, options, settings, config, set(config), counts)
        keep(folder, ledger, options, config, made)
    except BudgetError:
        ledger.close()
        raise
    return made, ledger, settings


def test_the_paper_s_run(tmp_path):
    """Yu et al. 2024: 10 epochs of 180,000 in batches of 4,096, a histogram at noise 10, epsilon 5.98 at delta 5e-7."""
    training = {"batch_size": 4096, "epochs": 10.0, "histogram_noise": 10.0, "checkpoint_steps": 100}
    made, ledger, settings = planned(tmp_path, {"epsilon": 5.98, "delta": DELTA}, training)
    assert made.steps == 439 and made.sampling_rate == Q
    both = [SubsampledGaussian(made.noise_multiplier, Q, 439), DiscreteGaussian(10.0, 1)]
    assert 5.97 < epsilon(both, DELTA) <= 5.98
    assert 0.805 < made.noise_multiplier < 0.8072  # which is 5.94 for the training alone, 5.959 with the histogram
    lower, upper = cross_check(both, DELTA)
    assert lower <= 5.98 * 1.005 and upper >= 5.96
    names = [(name, mechanism.steps) for name, mechanism in open_intervals(ledger, made, settings)]
    assert names == [
        ("steps/0-100", 100),
        ("steps/100-200", 100),
        ("steps/200-300", 100),
        ("steps/300-400", 100),
        ("steps/400-439", 39),
    ]
    ledger.close()


def test_what_is_reserved_can_be_spent_and_no_more(tmp_path):
    training = {"batch_size": 20, "steps": 4, "histogram_noise": 5.0, "checkpoint_steps": 2}
    counts = Counts("label_counts", "the label counts", 8.0)
    made, ledger, settings = planned(tmp_path, {"epsilon": 2.0}, training, units=100, counts=counts)

    def spend(stage, name, mechanism):
        ledger.release(
            stage, name, f"state/answers/{name.replace('/', '-')}.json", mechanism, mechanism.event, lambda: b"x"
        )

    for name, mechanism in open_intervals(ledger, made, settings):
        spend("finetune", name, mechanism)
    spend("finetune", "label_counts", histogram("record", 8.0))
    with pytest.raises(BudgetError):
        spend("resample", "clusters", histogram("record", 4.0))
    spend("resample", "clusters", histogram("record", 5.0))
    assert 1.99 < ledger.epsilon() <= 2.0
    with pytest.raises(BudgetError):
        spend("resample", "more", histogram("record", 100.0))
    ledger.close()


def test_more_epochs_take_what_is_left_of_a_larger_budget(tmp_path):
    training = {"batch_size": 20, "steps": 4, "checkpoint_steps": 2}
    made, ledger, settings = planned(tmp_path, {"epsilon": 1.0}, training, units=100)
    for name, mechanism in open_intervals(ledger, made, settings):
        ledger.release(
            "finetune", name, f"state/answers/{name.replace('/', '-')}.json", mechanism, mechanism.event, lambda: b"x"
        )
    ledger.close()
    with pytest.raises(BudgetError):
        planned(tmp_path, {"epsilon": 1.0}, {**training, "steps": 400}, units=100)
    made, ledger, settings = planned(tmp_path, {"epsilon": 1.6}, {**training, "steps": 7}, units=100)
    left = list(open_intervals(ledger, made, settings))
    assert [name for name, _ in left] == ["steps/4-6", "steps/6-7"]
    assert 1.5 < epsilon([*ledger.events(), *(m.event for _, m in left)], 1e-5) <= 1.6
    ledger.close()


def test_an_interval_that_was_reserved_is_taken_as_it_was(tmp_path):
    """Killed in steps 2-4, then continued with other checkpoints, more steps and another multiplier."""
    training = {"batch_size": 20, "steps": 4, "checkpoint_steps": 2}
    made, ledger, settings = planned(tmp_path, {"noise": 2.0}, training, units=100)
    first, second = open_intervals(ledger, made, settings)
    ledger.release("finetune", first[0], "state/answers/a.json", first[1], first[1].event, lambda: b"x")
    with pytest.raises(ZeroDivisionError):
        ledger.release("finetune", second[0], "state/answers/b.json", second[1], second[1].event, lambda: 1 / 0)
    ledger.close()
    made, ledger, settings = planned(
        tmp_path, {"noise": 3.0}, {**training, "steps": 9, "checkpoint_steps": 3}, units=100
    )
    left = [(name, m.noise_multiplier, m.steps) for name, m in open_intervals(ledger, made, settings)]
    assert left == [("steps/2-4", 2.0, 2), ("steps/4-7", 3.0, 3), ("steps/7-9", 3.0, 2)]
    ledger.close()


def test_users_reserve_in_rdp(tmp_path):
    training = {"batch_size": 20, "steps": 4, "histogram_noise": 5.0}
    counts = Counts("marginals", "3 marginals", 10.0, 3)
    made, ledger, _ = planned(tmp_path, {"epsilon": 2.0}, training, units=100, unit="user", counts=counts)
    events = [
        SubsampledGaussian(made.noise_multiplier, 0.2, 4),
        histogram("user", 5.0).event,
        histogram("user", 10.0, 3).event,
    ]
    assert 1.98 < epsilon(events, 1e-5) <= 2.0
    ledger.close()
