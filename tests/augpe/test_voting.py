"""Votes through the corners: one record moves them by at most sqrt(k), and no record moves the vote of another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsda.augpe.ballot import Ballot
from dpsda.augpe.options import CORRECTIONS
from dpsda.augpe.voting import vote
from dpsda.privacy.mechanism import NO_VOTE, RecordHistogram

# few different points, so that ties and duplicates are the rule
POINTS = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [-1, 0]], dtype=np.float32)


@st.composite
def elections(draw):
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    pick = lambda size, top: np.array(draw(st.lists(st.integers(0, top), min_size=size, max_size=size)))  # noqa: E731
    return POINTS[pick(n, 4)], pick(n, 2), POINTS[pick(m, 4)], pick(m, 2), draw(st.integers(1, 4))


@settings(max_examples=20, deadline=None)
@given(elections())
@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("metric", ["L2", "IP", "cos_sim"])
def test_a_record_moves_its_own_votes_only(metric, correction, election):
    private, cells, candidates, candidate_cells, k = election
    if correction == "centred":
        metric = "cos_sim"
    ballot = Ballot.of(candidates, candidate_cells, metric, correction, CORRECTIONS[correction])
    votes = vote(private, cells, ballot, k)
    mechanism = RecordHistogram(1.0, k)
    for i in range(len(private)):
        kept = np.arange(len(private)) != i
        rest = vote(private[kept], cells[kept], ballot, k) if kept.any() else votes[:0]
        assert np.array_equal(rest, votes[kept])
        bins = len(ballot.cells)
        moved = mechanism.sums(votes, None, bins) - mechanism.sums(rest, None, bins)
        assert np.linalg.norm(moved) <= np.sqrt(k) + 1e-12


def plain(candidates, cells):
    return Ballot.of(candidates, np.array(cells), "L2", "none", 0)


def test_votes_go_to_the_own_label():
    private = np.array([[1, 0], [1, 0]], dtype=np.float32)
    candidates = np.array([[1, 0], [0.9, 0]], dtype=np.float32)
    votes = vote(private, np.array([0, 1]), plain(candidates, [1, 0]), 1)
    assert votes.tolist() == [[1], [0]]


def test_a_label_with_few_or_no_candidates_takes_fewer_votes():
    private = np.ones((3, 2), dtype=np.float32)
    candidates = np.array([[1, 1], [0, 0], [1, 1]], dtype=np.float32)
    votes = vote(private, np.array([0, 1, 2]), plain(candidates, [0, 1, 1]), 2)
    assert votes.tolist() == [[0, NO_VOTE], [2, 1], [NO_VOTE, NO_VOTE]]
