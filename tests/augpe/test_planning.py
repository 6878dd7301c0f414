import math

import numpy as np
import pytest

from dpsda.augpe.options import CORRECTIONS, DEFAULT, AugPEOptions
from dpsda.augpe.planning import describe_plan, plan, releases, settled, signal, top_share
from dpsda.errors import InputError
from dpsda.options import PrivacyOptions
from dpsda.privacy.errors import BudgetError
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import histogram
from dpsda.runs import RunFolder


def planned(root, epsilon=None, noise=None, epochs=3, spend=(), k=1):
    """The noise multiplier of a run in `root`; afterwards the releases in `spend` are charged at it."""
    folder, ledger = RunFolder(root), Ledger(root)
    try:
        ledger.open(unit="record", units=10_000, delta=1e-5, facts={})
        ledger.set_budget(epsilon)
        privacy, options = (
            PrivacyOptions(epsilon=epsilon, noise=noise),
            AugPEOptions(epochs=epochs, num_nearest_neighbor=k),
        )
        config = {"epsilon": epsilon, "noise": noise, "epochs": epochs, "k": k}
        multiplier = plan(folder, ledger, privacy, options, config, {"epsilon", "noise", "epochs"}, labelled=True)
        for name in spend:
            mechanism = histogram("record", multiplier, 1 if name == "label_counts" else k)
            file = "label_counts.csv" if name == "label_counts" else f"{name.split('/')[1]}/counts.csv"
            ledger.release("augpe", name, file, mechanism, mechanism.event, lambda: b"x")
        return multiplier, ledger.epsilon()
    finally:
        ledger.close()


def test_label_counts_are_one_more_event():
    assert releases(2, label_counts=True, votes=True) == ["label_counts", "votes/1", "votes/2"]
    assert releases(2, label_counts=False, votes=False) == []


def test_the_whole_run_spends_the_budget_and_no_more(tmp_path):
    names = releases(3, label_counts=True, votes=True)
    _, spent = planned(tmp_path, epsilon=2, spend=names, k=3)
    assert 1.999 < spent <= 2


def test_a_restart_keeps_its_noise(tmp_path):
    first, _ = planned(tmp_path, epsilon=2, spend=["label_counts", "votes/1"])
    assert planned(tmp_path, epsilon=2)[0] == first


def test_more_iterations_compose_with_what_was_spent(tmp_path):
    first, _ = planned(tmp_path, epsilon=2, epochs=3, spend=["label_counts", "votes/1"])
    second, spent = planned(tmp_path, epsilon=2, epochs=6, spend=[f"votes/{t}" for t in range(2, 7)])
    assert second > first and 1.999 < spent <= 2
    with pytest.raises(BudgetError, match="larger --epsilon"):
        planned(tmp_path, epsilon=2, epochs=7)
    _, spent = planned(tmp_path, epsilon=3, epochs=7, spend=["votes/7"])
    assert 2 < spent <= 3


def test_the_plan_tells_the_noise_of_what_is_still_to_come(tmp_path):
    """What is charged may have had another multiplier, or the whole budget of an earlier command."""

    def said(epsilon, epochs, spend=()):
        noise, _ = planned(tmp_path, epsilon=epsilon, epochs=epochs, spend=spend)
        ledger, options = Ledger(tmp_path, read_only=True), AugPEOptions(epochs=epochs)
        return noise, describe_plan(ledger, PrivacyOptions(epsilon), options, noise, labelled=True)

    noise, line = said(2.0, 2)
    assert f"epsilon 2 by noise multiplier {noise:.4f} for 2 votes and for the label counts" in line
    assert " for 1 more vote; epsilon 1." in said(2.0, 2, ["label_counts", "votes/1"])[1]
    noise, line = said(2.0, 2, ["votes/2"])
    assert "all releases are charged already, epsilon 2.0 of 2 is spent" in line
    noise, line = said(4.0, 2)  # nothing is there to be noised
    assert "noise multiplier" not in line and " of 4 is spent" in line
    noise, line = said(4.0, 3)
    assert f"epsilon 4 by noise multiplier {noise:.4f} for 1 more vote; epsilon 2.0 is spent already" in line


def test_another_configuration_is_refused(tmp_path):
    planned(tmp_path, epsilon=2, k=2)  # nothing is spent and nothing begun by then
    planned(tmp_path, epsilon=2, k=1, spend=["label_counts"])
    with pytest.raises(InputError, match="k was 1, now 2"):
        planned(tmp_path, epsilon=2, k=2)


def test_signal_warns_of_labels_that_rank_noise_or_get_no_text():
    def shown(shares, candidates, noise, epochs=10):
        return signal("record", 10_000, 1, np.array(shares), np.array(candidates), noise, epochs)

    line, warning = shown([0.98, 0.01, 0.01], [500, 500, 500], 5.0)
    assert "6.67 votes" in line and "2 of 3 labels expect" in warning
    assert "1 of 2 labels expect" in shown([0.99, 0.01], [500, 500], 5.0)[1]
    assert "1 of 2 labels are too rare" in shown([1.0, 0.0], [500, 0], 5.0)[1]
    assert "fewer epochs, fewer labels" in warning
    assert "fewer epochs (on average it would carry 6), " in shown([1.0], [5_000], 5.0)[1]  # 10 (2 / 2.5)^2
    assert "fewer epochs, fewer labels" in shown([1.0], [5_000], 5.0, epochs=0)[1]
    assert len(shown([1.0], [1000], 5.0)) == 1
    assert len(shown([0.98, 0.01, 0.01], [500, 500, 500], 0.0)) == 1


def test_no_noise(tmp_path):
    assert planned(tmp_path, epsilon=math.inf, spend=["label_counts"]) == (0.0, math.inf)


def settle(root, begun=None, **options):
    folder, ledger = RunFolder(root).make(), Ledger(root)
    try:
        ledger.open(unit="record", units=10_000, delta=1e-5, facts={})
        if begun is not None:
            folder.keep_config("augpe", begun)
            planned_mechanism = histogram("record", 5.0)
            ledger.release("augpe", "votes/1", "1/counts.csv", planned_mechanism, planned_mechanism.event, lambda: b"x")
        found = settled(folder, ledger, AugPEOptions(**options))
        return found.hub_correction, found.hub_strength
    finally:
        ledger.close()


def test_the_correction_of_a_run_is_the_one_that_it_began_with(tmp_path):
    assert settle(tmp_path / "new") == (DEFAULT, CORRECTIONS[DEFAULT])
    assert settle(tmp_path / "asked", hub_correction="centred") == ("centred", 1.0)
    assert settle(tmp_path / "strength", hub_strength=0.3) == (DEFAULT, 0.3)
    assert settle(tmp_path / "plain", hub_correction="none", hub_strength=0.3) == ("none", 0.0)
    before = {"epochs": 3}  # of a version that had no corrections
    assert settle(tmp_path / "old", before) == ("none", 0.0)
    assert settle(tmp_path / "changed", before, hub_correction="csls") == ("csls", 0.5)  # which `plan` then refuses
    begun = {"hub_correction": "global", "hub_strength": 0.4}
    assert settle(tmp_path / "begun", begun) == ("global", 0.4)


def test_the_share_of_the_top_hundredth():
    assert top_share(np.array([5.0, 1.0, 2.0, 0.0])) == 5 / 8
    assert top_share(np.arange(300.0)) == pytest.approx((297 + 298 + 299) / (299 * 150))
    assert top_share(np.array([-3.0, -1.0])) == 0 and top_share(np.array([5.0, -7.0])) == 1
