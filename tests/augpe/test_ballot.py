"""Hub corrections: the formulas against brute force, labels kept apart, and that they take votes from hubs."""

import numpy as np
import pytest

from dpsda.augpe import ballot as ballots
from dpsda.augpe.ballot import Ballot
from dpsda.augpe.options import CORRECTIONS
from dpsda.augpe.voting import vote
from dpsda.errors import InputError

METRICS = ["L2", "IP", "cos_sim"]


def similarity(a, b, metric):
    a, b = a.astype(np.float64), b.astype(np.float64)
    if metric == "cos_sim":
        a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300) for x in (a, b))
    if metric == "L2":
        return -((a[:, None] - b[None]) ** 2).sum(axis=2) / 2
    return a @ b.T


def brute(private, candidates, metric, correction, strength):
    """(n, M) scores in float64."""
    found, among = similarity(private, candidates, metric), similarity(candidates, candidates, metric)
    others = among[~np.eye(len(among), dtype=bool)].reshape(len(among), -1)
    if correction == "centred":
        unit = candidates.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        own = private.astype(np.float64)
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        mean = strength * unit.mean(axis=0)
        return similarity(own - mean, unit - mean, "cos_sim")
    if correction == "csls":
        others = np.where(np.eye(len(among), dtype=bool), -np.inf, among)
        drawn = np.random.default_rng(0).permutation(len(among))[: ballots.AMONG]
        neighbours = max(5, round(20 * len(drawn) / len(among)))
        others = -np.sort(-others[:, drawn], axis=1)[:, : min(neighbours, len(drawn) - (len(drawn) == len(among)))]
    return found - (strength * others.mean(axis=1) if correction != "none" else 0)


def points(n, seed, dim=12):
    """A cloud off the origin, with duplicates."""
    rng = np.random.default_rng(seed)
    rows = (rng.normal(size=(n, dim)) + 0.7).astype(np.float32)
    return rows[rng.integers(0, n, n)] if n > 30 else rows


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("size, among", [(2, 1024), (7, 1024), (90, 1024), (90, 40), (90, 12)])
def test_votes_are_those_of_brute_force(metric, correction, size, among, monkeypatch):
    monkeypatch.setattr(ballots, "AMONG", among)
    if correction == "centred" and metric != "cos_sim":
        metric = "L2"
    private, candidates, strength = points(300, 1), points(size, 2), CORRECTIONS[correction]
    if correction == "centred":  # on vectors of length one, L2 will do
        private, candidates = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (private, candidates))
    ballot = Ballot.of(candidates, np.zeros(size, int), metric, correction, strength)
    k = min(3, size)
    votes = vote(private, np.zeros(300, int), ballot, k)
    scores = brute(private, candidates, metric, correction, strength)
    best = -np.sort(-scores, axis=1)[:, :k]
    np.testing.assert_allclose(np.take_along_axis(scores, votes, axis=1), best, rtol=0, atol=1e-12)
    assert (np.sort(votes, axis=1)[:, 1:] != np.sort(votes, axis=1)[:, :-1]).all()


@pytest.mark.parametrize("correction", ["global", "csls", "centred"])
def test_labels_are_corrected_apart(correction):
    candidates, cells = points(60, 3), np.arange(60) % 3
    together = Ballot.of(candidates, cells, "cos_sim", correction, 0.5)
    for cell in range(3):
        alone = Ballot.of(candidates[cells == cell], cells[cells == cell], "cos_sim", correction, 0.5)
        assert np.array_equal(together.shifts[cells == cell], alone.shifts)
        assert np.array_equal(together.vectors[cells == cell], alone.vectors)


@pytest.mark.parametrize("correction", ["global", "csls"])
@pytest.mark.parametrize("metric", METRICS)
def test_equal_candidates_are_corrected_alike(metric, correction):
    one = points(40, 4)
    copies = np.concatenate([one, one[:7], np.repeat(one[:1], 30, axis=0)])
    shifts = Ballot.of(copies, np.zeros(len(copies), int), metric, correction, 0.5).shifts
    np.testing.assert_allclose(shifts[40:47], shifts[:7], rtol=1e-6)
    np.testing.assert_allclose(shifts[47:], shifts[0], rtol=0, atol=1e-6)


def test_a_draw_of_the_candidates_tells_the_hubs(monkeypatch):
    """csls by a tenth of the candidates ranks their nearness to others as csls by all does."""
    rows = (np.random.default_rng(7).normal(size=(3000, 12)) + 0.7).astype(np.float32)
    drawn = Ballot.of(rows, np.zeros(3000, int), "cos_sim", "csls", 0.5).shifts
    monkeypatch.setattr(ballots, "AMONG", 3000)
    assert np.corrcoef(drawn, Ballot.of(rows, np.zeros(3000, int), "cos_sim", "csls", 0.5).shifts)[0, 1] > 0.95


@pytest.mark.parametrize("correction", ["global", "csls", "centred"])
def test_votes_leave_the_hubs(correction):
    """In 40 dimensions, candidates near the mean of all take the votes of many; corrected, they take their share."""
    rng = np.random.default_rng(5)
    spread = rng.normal(size=(2000, 40)) + 1
    candidates = rng.normal(size=(200, 40)) + 1
    candidates[:20] = 1 + 0.4 * (candidates[:20] - 1)
    share = {}
    for name in ("none", correction):
        ballot = Ballot.of(candidates.astype(np.float32), np.zeros(200, int), "cos_sim", name, CORRECTIONS[name])
        votes = vote(spread.astype(np.float32), np.zeros(2000, int), ballot, 1)
        share[name] = float((votes < 20).mean())
    assert share["none"] > 0.6 and share[correction] < share["none"] / 2


def test_a_correction_says_what_it_is_not_for():
    rows = points(5, 6)
    for metric in ("L2", "IP"):
        with pytest.raises(InputError, match="takes --nn_mode cos_sim, or an encoder"):
            Ballot.of(rows, np.zeros(5, int), metric, "centred", 1.0)
    with pytest.raises(InputError, match="no hub correction 'csl'; there are: csls, global, centred, none"):
        Ballot.of(rows, np.zeros(5, int), "L2", "csl", 1.0)
