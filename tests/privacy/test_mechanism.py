"""Sensitivity: adding or removing one unit moves the sums by no more than the mechanism claims."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsda.privacy.accounting import DiscreteGaussian, Zcdp, epsilon, to_json
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.mechanism import NO_VOTE, GradientSum, RecordHistogram, UserHistogram, histogram
from dpsda.privacy.mixture import ClippedLogits, MaxDivergence, Mixture, PublishedRenyi, Renyi
from dpsda.privacy.reservation import describe, restored

BINS = 7


@st.composite
def ballots(draw):
    """(n, k) different bins a row, some rows with fewer votes, and a user for each row."""
    k = draw(st.integers(1, 4))
    rows = draw(st.lists(st.permutations(range(BINS)), min_size=1, max_size=12))
    votes = np.array([row[:k] for row in rows], dtype=np.int64)
    for i, used in enumerate(draw(st.lists(st.integers(0, k), min_size=len(rows), max_size=len(rows)))):
        votes[i, used:] = NO_VOTE
    # any 64-bit code may stand for a user
    codes = st.sampled_from([0, 1, 2, -(2**62), 2**62])
    return votes, np.array(draw(st.lists(codes, min_size=len(rows), max_size=len(rows))), dtype=np.int64)


@settings(max_examples=200, deadline=None)
@given(ballots())
def test_one_record_moves_the_counts_by_at_most_sqrt_k(ballot):
    votes, _ = ballot
    mechanism = RecordHistogram(1.0, votes.shape[1])
    for i in range(len(votes)):
        moved = mechanism.sums(votes, None, BINS) - mechanism.sums(np.delete(votes, i, axis=0), None, BINS)
        assert np.linalg.norm(moved) <= mechanism.l2_sensitivity + 1e-12
        assert np.abs(moved).max() <= 1 and np.count_nonzero(moved) <= mechanism.votes


@settings(max_examples=200, deadline=None)
@given(ballots())
def test_one_user_moves_the_sums_by_at_most_one(ballot):
    votes, users = ballot
    mechanism = UserHistogram(1.0, votes.shape[1])
    for user in np.unique(users):
        rest = users != user
        moved = mechanism.sums(votes, users, BINS) - mechanism.sums(votes[rest], users[rest], BINS)
        assert int((moved.astype(object) ** 2).sum()) <= mechanism.grid**2


def test_a_user_counts_once_however_much_they_write():
    votes = np.array([[0], [0], [0], [3]])
    assert UserHistogram(1.0).sums(votes, np.array([9, 9, 9, 5]), 4).tolist() == [2**16, 0, 0, 2**16]


def test_a_record_that_votes_twice_or_too_often_is_refused():
    with pytest.raises(PrivacyError, match="twice"):
        RecordHistogram(1.0, 2).release(np.array([[1, 1]]), None, 3)
    with pytest.raises(PrivacyError, match="allows 1"):
        RecordHistogram(1.0, 1).release(np.array([[0, 1]]), None, 3)
    with pytest.raises(PrivacyError, match="no user"):
        UserHistogram(1.0).release(np.array([[0]]), None, 3)


def test_events_and_scales():
    record, user = histogram("record", 2.0, votes=4), histogram("user", 2.0, votes=4)
    assert record.scale == 4.0 and record.event == DiscreteGaussian(4.0, 4)
    assert user.scale == 2.0 and user.event == Zcdp(1 / 8)
    assert epsilon([histogram("record", 0.0).event], 1e-5) == epsilon([histogram("user", 0.0).event], 1e-5) == np.inf
    with pytest.raises(PrivacyError, match="'record' or 'user'"):
        histogram("household", 1.0)


@pytest.mark.parametrize("unit", ["record", "user"])
def test_the_noise_of_a_release_has_the_scale_that_is_charged(unit):
    """Standard deviation over 20,000 empty bins within 2.5%, five standard errors: one false alarm in 1.7 million."""
    mechanism = histogram(unit, 3.0, votes=4)
    nobody = np.empty((0, 4), dtype=np.int64)
    noisy = mechanism.release(nobody, np.empty(0, dtype=np.int64), 20_000)
    assert noisy.std() == pytest.approx(mechanism.scale, rel=0.025)


@pytest.mark.parametrize("unit", ["record", "user"])
def test_without_noise_the_counts_come_through(unit):
    votes, users = np.array([[0], [2], [2]]), np.array([1, 2, 3])
    assert histogram(unit, 0.0).release(votes, users, 4).tolist() == [1, 0, 2, 0]


@pytest.mark.parametrize(
    "mechanism",
    [
        RecordHistogram(2.5, 3),
        UserHistogram(1.5),
        GradientSum(0.8, 0.5, 0.02, 7),
        MaxDivergence(4, 0.5, 0.3),
        Renyi(4, 0.5, 3, 0.4, 0.2),
        PublishedRenyi(4, 0.5, 3, 0.1),
        ClippedLogits(4, 1.0, 2.0, 0.9),
    ],
    ids=lambda mechanism: type(mechanism).__name__,
)
def test_a_ledger_s_line_restores_it(mechanism):
    event = mechanism.event(5) if isinstance(mechanism, Mixture) else mechanism.event
    line = json.loads(json.dumps({"name": "x", **describe(mechanism), "event": to_json(event)}))
    assert restored(line) == mechanism
