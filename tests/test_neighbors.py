"""Nearest neighbours: the reference, ties, and that a query's answer does not depend on the others."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsda import neighbors
from dpsda.neighbors import nearest, search

METRICS = ["L2", "IP", "cos_sim"]


def reference(q, c, k, metric, shifts=0.0):
    """Brute force in float64: indices and scores (more is nearer), ties to the lower index."""
    q, c = q.astype(np.float64), c.astype(np.float64)
    scores = q @ c.T
    if metric == "cos_sim":
        lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(c, axis=1)
        scores = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)
    if metric == "L2":
        scores = -((q[:, None] - c[None]) ** 2).sum(axis=2)
    scores = scores + np.where(metric == "L2", 2, 1) * shifts
    index = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(scores, index, axis=1), scores


@given(
    st.integers(0, 40), st.integers(1, 60), st.integers(1, 5), st.integers(1, 30), st.sampled_from(METRICS),
    st.sampled_from([1e-20, 0.01, 1.0, 300.0]), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_matches_brute_force_in_float64(n, m, k, dim, metric, scale, seed):
    rng = np.random.default_rng(seed)
    k = min(k, m)
    q = (rng.normal(size=(n, dim)) * scale + rng.normal() * scale).astype(np.float32)
    c = (rng.normal(size=(m, dim)) * scale + rng.normal() * scale).astype(np.float32)
    c = c[rng.integers(0, m, m)]  # duplicates
    q[: n // 4] = c[rng.integers(0, m, n // 4)]  # distance 0
    q[n // 2 : n // 2 + 1] = 0
    index, near = search(q, c, k, metric)
    _, expected, scores = reference(q, c, k, metric)
    assert index.shape == near.shape == (n, k) and index.dtype == np.int64
    found = np.take_along_axis(scores, index, axis=1)
    tolerance = 1e-12 * max(np.abs(scores).max(initial=0), scale**2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(-(near**2) if metric == "L2" else near, expected, rtol=0, atol=tolerance)
    assert all(len(set(row)) == k for row in index.tolist())
    assert (np.diff(near, axis=1) * (1 if metric == "L2" else -1) >= 0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_lower_index(metric):
    rng = np.random.default_rng(0)
    c = rng.normal(size=(7, 16)).astype(np.float32)
    c = np.concatenate([c, c[::-1], c])  # every vector three times
    index = nearest(c[:7], c, 3, metric)
    for i in range(7):
        same = [j for j in range(len(c)) if (c[j] == c[i]).all()]
        if metric != "IP":  # by the inner product the nearest need not be the vector itself
            assert index[i].tolist() == same
        assert index[i].tolist() == sorted(index[i].tolist())
    assert nearest(np.zeros((1, 16), np.float32), c, 3, "IP").tolist() == [[0, 1, 2]]


def near_ties(rng, n=700, m=900, dim=24):
    """Queries whose two nearest candidates differ by float32 rounding only, and exact duplicates."""
    c = rng.normal(size=(m, dim)).astype(np.float32)
    c[m // 2 :] = np.nextafter(c[: m - m // 2], np.float32(np.inf))
    c[-50:] = c[:50]
    q = (c[rng.integers(0, m, n)] + rng.normal(size=(n, dim)) * 0.1).astype(np.float32)
    return q, c


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("low_precision", [True, False])
def test_a_query_does_not_see_the_others(metric, k, low_precision, monkeypatch):
    monkeypatch.setattr(neighbors, "BLOCK", 256)
    monkeypatch.setattr(neighbors, "TILE", 400)
    monkeypatch.setattr(neighbors, "multiplies_bfloat16", lambda device: low_precision)
    rng = np.random.default_rng(1)
    q, c = near_ties(rng)
    index, near = search(q, c, k, metric)
    order = rng.permutation(len(q))
    for rows in (order, np.delete(np.arange(len(q)), 3), order[:301], np.array([5]), np.arange(len(q))[::-1]):
        i, s = search(q[rows], c, k, metric)
        assert np.array_equal(i, index[rows])
        assert np.array_equal(s, near[rows])


def test_shapes_and_precision_do_not_change_the_answer(monkeypatch):
    q, c = near_ties(np.random.default_rng(2))
    expected = search(q, c, 3, "L2")
    for block, tile, low in ((64, 1 << 14, True), (1024, 77, False), (7, 100, False)):
        monkeypatch.setattr(neighbors, "BLOCK", block)
        monkeypatch.setattr(neighbors, "TILE", tile)
        monkeypatch.setattr(neighbors, "multiplies_bfloat16", lambda device, low=low: low)
        for a, b in zip(search(q, c, 3, "L2"), expected, strict=True):
            assert np.array_equal(a, b)


def test_the_first_step_drops_most_and_never_the_best():
    """Fails if the bound is too small (a best pair is dropped) or is so large that nothing is dropped."""
    rng = np.random.default_rng(3)
    q, c = ((rng.normal(size=(n, 64)) + 2).astype(np.float32) for n in (500, 3000))  # far from the origin
    for metric in METRICS:
        row, column = neighbors._Tile(c, np.zeros(3000), np.arange(3000), metric, "cpu")._survivors(q, 2)
        assert len(row) < 8 * 500
        kept = np.zeros((500, 3000), dtype=bool)
        kept[row, column] = True
        best = np.concatenate([reference(part, c, 2, metric)[0] for part in np.split(q, 50)])
        assert np.take_along_axis(kept, best, axis=1).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("coarse", ["queries", "candidates", "neither"])
def test_small_scores_of_long_vectors(metric, coarse):
    """Scores of a thousandth of the lengths' product, so the first step's rounding is larger than they are: without
    its bound, the best are lost. Of coarse vectors, which bfloat16 holds exactly, only the others' rounding counts."""
    rng = np.random.default_rng(6)
    q, c = rng.normal(size=(200, 64)), rng.normal(size=(500, 64))
    c /= np.linalg.norm(c, axis=1, keepdims=True)
    q -= q @ np.linalg.pinv(c[:60]) @ c[:60]  # q is orthogonal to the first 60 candidates ...
    c = c[rng.integers(0, 60, 500)] + 1e-4 * rng.normal(size=c.shape)  # ... and all are close to those
    q, c = q.astype(np.float32), c.astype(np.float32)
    for name, rows in (("queries", q), ("candidates", c)):
        if name == coarse:
            rows[:] = torch.from_numpy(rows).bfloat16().float().numpy()
    index, expected = nearest(q, c, 2, metric), reference(q, c, 2, metric)
    assert (index == expected[0]).mean() > 0.999


def test_copies_of_a_candidate_are_scored_at_most_k_times():
    c = np.repeat(np.random.default_rng(4).normal(size=(5, 8)).astype(np.float32), 1000, axis=0)
    assert neighbors._distinct(c, np.zeros(5000), 2).tolist() == [0, 1, 1000, 1001, 2000, 2001, 3000, 3001, 4000, 4001]


def test_a_memory_map_will_do(tmp_path):
    q, c = near_ties(np.random.default_rng(5))
    np.save(tmp_path / "q.npy", q)
    assert np.array_equal(nearest(np.load(tmp_path / "q.npy", mmap_mode="r"), c), nearest(q, c))


@pytest.mark.parametrize("k", [0, 4])
def test_refuses_k_outside_one_to_m(k):
    with pytest.raises(ValueError, match="k = "):
        nearest(np.zeros((2, 3), np.float32), np.zeros((3, 3), np.float32), k)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_what_is_not_finite(bad):
    good, ill = np.ones((3, 2), np.float32), np.array([[1, bad]], np.float32)
    with pytest.raises(ValueError, match="query"):
        nearest(ill, good)
    with pytest.raises(ValueError, match="candidate"):
        nearest(good, ill)


def test_refuses_what_would_overflow():
    with pytest.raises(ValueError, match="too long"):
        nearest(np.full((1, 2), 1e20, np.float32), np.array([[1e20, 1e20], [0, 1]], np.float32))


def test_refuses_other_shapes_and_metrics():
    a = np.ones((3, 2), np.float32)
    with pytest.raises(ValueError, match="not one of"):
        nearest(a, a, 1, "cosine")
    with pytest.raises(ValueError, match="are not"):
        nearest(a, a[:, :1])


@given(
    st.integers(1, 30), st.integers(1, 60), st.integers(1, 4), st.sampled_from(METRICS), st.booleans(),
    st.sampled_from([1e-6, 0.1, 1.0, 30.0]), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_shifts_are_added_to_the_scores(n, m, k, metric, low_precision, scale, seed):
    rng, k = np.random.default_rng(seed), min(k, m)
    q, c = ((rng.normal(size=(size, 16)) + 0.5).astype(np.float32) for size in (n, m))
    q[: n // 4] *= 1e-3  # for the cosine, a shift counts as much for a short query
    c = c[rng.integers(0, m, m)]
    shifts = rng.normal(size=m) * scale
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "multiplies_bfloat16", lambda device: low_precision)
        patch.setattr(neighbors, "TILE", 17)
        index = nearest(q, c, k, metric, shifts=shifts)
        assert np.array_equal(nearest(q[::-1], c, k, metric, shifts=shifts), index[::-1])
    _, expected, scores = reference(q, c, k, metric, shifts)
    found = np.take_along_axis(scores, index, axis=1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * max(np.abs(scores).max(), 1))


def test_shifts_of_nothing_change_no_bit():
    q, c = near_ties(np.random.default_rng(7))
    for metric in METRICS:
        assert np.array_equal(nearest(q, c, 3, metric, shifts=np.zeros(len(c))), nearest(q, c, 3, metric))


@pytest.mark.parametrize("shifts", [np.zeros(2), np.array([0, np.nan, 0])])
def test_refuses_shifts_that_are_no_number_for_each(shifts):
    with pytest.raises(ValueError, match="shifts"):
        nearest(np.zeros((2, 3), np.float32), np.ones((3, 3), np.float32), 1, shifts=shifts)
