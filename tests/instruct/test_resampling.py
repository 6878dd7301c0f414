"""Shares, water-filling and draws: what holds of them for all counts."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpsda.instruct.resampling import allocate, draw, shares, total_variation, water_fill


@st.composite
def problems(draw_value):
    """(noisy counts, candidates, total, ratio cap): clusters that are empty, full, unwanted, or all of it."""
    bins = draw_value(st.lists(st.tuples(st.integers(-50, 5000), st.integers(0, 400)), min_size=1, max_size=40))
    noisy, candidates = (np.array(x) for x in zip(*bins, strict=True))
    if not candidates.sum():
        candidates[0] = 1
    total = draw_value(st.integers(1, int(candidates.sum())))
    return noisy.astype(float), candidates, total, draw_value(st.none() | st.floats(1, 20))


def solved(problem):
    noisy, candidates, total, cap = problem
    target = shares(noisy, candidates)
    return target, allocate(target, candidates, total, cap)


@settings(max_examples=300, deadline=None)
@given(problems())
@example((np.array([0.0, 5.0]), np.array([10, 0]), 3, None))  # all votes where there is no candidate
@example((np.full(3, -1.0), np.array([1, 2, 3]), 6, 1.0))  # all clipped
@example((np.array([1.0, 1.0, 1.0]), np.array([4, 4, 4]), 10, 1.0))
def test_the_asked_size_is_met_within_every_limit(problem):
    _, candidates, total, cap = problem
    target, kept = solved(problem)
    assert target.min() >= 0 and target.sum() == pytest.approx(1)
    assert kept.sum() == total and (kept >= 0).all() and (kept <= candidates).all()
    if cap is not None:
        assert (kept <= np.ceil(cap * total * candidates / candidates.sum() - 1e-9)).all()


@settings(max_examples=300, deadline=None)
@given(problems())
def test_a_cluster_without_votes_gives_only_where_the_others_are_full(problem):
    noisy, candidates, _, cap = problem
    if cap is not None or not (noisy > 0).any():
        return
    _, kept = solved(problem)
    if kept[noisy <= 0].any():
        assert (kept == candidates)[noisy > 0].all()


@settings(max_examples=300, deadline=None)
@given(problems())
def test_there_is_one_level(problem):
    """Before rounding, clusters that are not full hold the same number of texts for a share, and full ones less."""
    _, candidates, _, cap = problem
    target, kept = solved(problem)
    open_ = (target > 0) & (kept < candidates)
    if cap is not None or kept[target == 0].any() or not open_.any():
        return
    highest = ((kept[open_] - 1) / target[open_]).max()  # the level lies above this, below that
    lowest = ((kept[open_] + 1) / target[open_]).min()
    assert highest <= lowest * (1 + 1e-9)
    full = (target > 0) & (kept == candidates)
    assert (candidates[full] - 1 <= lowest * target[full] * (1 + 1e-9) + 1e-9).all()


@settings(max_examples=200, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
@example((np.array([1.0, 1.0]), np.array([1, 2]), 1, 1.0), Random(1))
def test_the_order_of_the_clusters_does_not_matter(problem, random):
    noisy, candidates, total, cap = problem
    order = list(range(len(noisy)))
    random.shuffle(order)
    _, kept = solved(problem)
    _, moved = solved((noisy[order], candidates[order], total, cap))
    there = sorted(zip(noisy.clip(0), candidates, kept, strict=True))
    assert there == sorted(zip(noisy[order].clip(0), candidates[order], moved, strict=True))


def test_known_fills():
    assert water_fill(np.array([1.0, 1, 2]), np.array([10, 10, 10]), 8).tolist() == [2, 2, 4]
    assert water_fill(np.array([1.0, 1, 2]), np.array([10, 10, 1]), 9).tolist() == [4, 4, 1]
    assert water_fill(np.array([0.0, 1, 2]), np.array([10, 3, 4]), 9).tolist() == [0, 3, 4]
    assert allocate(np.array([0.0, 0.5, 0.5]), np.array([10, 3, 4]), 9).tolist() == [2, 3, 4]
    # a share of 90% over half of the candidates, capped at 1.2 times what chance gives
    assert allocate(np.array([0.9, 0.1]), np.array([50, 50]), 20, 1.2).tolist() == [12, 8]
    with pytest.raises(ValueError, match="more than"):
        allocate(np.array([1.0]), np.array([3]), 4)


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(0, 2**32))
def test_a_draw_takes_what_was_given_and_nothing_twice(problem, seed):
    _, candidates, _, _ = problem
    _, kept = solved(problem)
    cluster = np.random.default_rng(1).permutation(np.repeat(np.arange(len(candidates)), candidates))
    rows = draw(cluster, kept, seed)
    assert (np.diff(rows) > 0).all() and (np.bincount(cluster[rows], minlength=len(kept)) == kept).all()
    assert (rows == draw(cluster, kept, seed)).all()
    fewer = draw(cluster, kept // 2, seed)
    assert set(fewer) <= set(rows)


def test_a_draw_is_uniform_within_a_cluster():
    """Chi-square over 8 rows of which 3 are drawn 4000 times: at 45 with 7 degrees of freedom, a false alarm comes
    once in 6 million."""
    cluster = np.array([0, 1] * 8)
    times = np.zeros(16)
    for seed in range(4000):
        times[draw(cluster, np.array([0, 3]), seed)] += 1
    assert times[::2].sum() == 0
    # without replacement the counts spread by a factor (1 - 3/8) 8/7 less
    assert ((times[1::2] - 1500) ** 2 / (1500 * (5 / 8) * (8 / 7))).sum() < 45


def test_total_variation():
    assert total_variation(np.array([1, 1, 0]), np.array([0.0, 2, 2])) == 0.5
