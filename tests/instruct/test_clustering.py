"""Clusters of synthetic vectors, and votes of private ones: each record has one, whoever else votes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsda.errors import InputError
from dpsda.instruct import clustering
from dpsda.neighbors import usable
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.mechanism import NO_VOTE, histogram

RNG = np.random.default_rng(0)


def vectors(count: int, dim: int = 24) -> np.ndarray:
    return clustering.unit(RNG.standard_normal((count, dim)).astype(np.float32))


def test_unit_rows():
    rows = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [1e-30, 0]], dtype=np.float32)
    out = clustering.unit(rows)
    assert out is rows and np.allclose(out[[0, 4]], [[0.6, 0.8], [1, 0]]) and (out[1] == 0).all()
    assert usable(out).tolist() == [True, True, False, False, True]


def test_the_nearest_lifted_centre_is_the_nearest_among_the_components():
    from sklearn.decomposition import PCA

    rows, private = vectors(400), vectors(300)
    centres = clustering.fit(rows, 12, 0.6, 0)
    assert centres.shape == (12, 24) and centres.dtype == np.float32
    pca = PCA(0.6, svd_solver="covariance_eigh").fit(rows)
    assert 0 < pca.n_components_ < 20
    low, low_centres = pca.transform(private), pca.transform(centres)
    direct = ((low[:, None] - low_centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (clustering.votes(private, centres)[:, 0] == direct).mean() > 0.99  # but for ties within rounding


def test_centres_are_of_the_seed_and_of_synthetic_points_alone():
    rows = vectors(300)
    assert (clustering.fit(rows, 8, 0.9, 3) == clustering.fit(rows, 8, 0.9, 3)).all()
    assert (clustering.fit(rows, 8, 0.9, 3) != clustering.fit(rows, 8, 0.9, 4)).any()
    assert clustering.fit(rows, 8, 1.0, 3).shape == (8, 24)


def test_more_points_than_are_needed(monkeypatch):
    monkeypatch.setattr(clustering, "POINTS", 5)
    assert clustering.fit(vectors(300), 8, 0.9, 0).shape == (8, 24)


def test_fewer_different_points_than_clusters():
    with pytest.raises(InputError, match="only 2 of the synthetic texts differ"):
        clustering.fit(np.repeat(vectors(2), 20, axis=0), 3, 0.9, 0)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_record_moves_one_count_by_one(data):
    """Through ties, duplicates and vectors that are not finite: all other votes stay bit for bit."""
    value = st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0])
    points = st.lists(st.lists(value, min_size=2, max_size=2), min_size=2, max_size=12)
    private = np.array(data.draw(points), dtype=np.float32)
    centres = np.array(data.draw(points), dtype=np.float32)
    if data.draw(st.booleans()):
        private[0, 0] = np.nan
    gone = data.draw(st.integers(0, len(private) - 1))
    every = clustering.votes(private.copy(), centres)
    without = clustering.votes(np.delete(private, gone, axis=0), centres)
    assert (without == np.delete(every, gone, axis=0)).all()
    mechanism = histogram("record", 1.0)
    difference = mechanism.sums(every, None, len(centres)) - mechanism.sums(without, None, len(centres))
    expected = np.zeros(len(centres))
    if every[gone, 0] != NO_VOTE:
        expected[every[gone, 0]] = 1
    assert (difference == expected).all()
    assert (every[:, 0] == NO_VOTE).sum() == (~np.isfinite(private).all(axis=1)).sum()


def test_two_votes_of_a_record_are_refused():
    with pytest.raises(PrivacyError, match="casts 2 votes"):
        histogram("record", 1.0).sums(np.array([[0, 1]]), None, 3)
