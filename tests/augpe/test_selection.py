import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpsda.augpe.selection import RULES, select
from dpsda.shares import allocate


@given(st.lists(st.floats(-100, 1e6), min_size=1, max_size=50), st.integers(1, 5000))
def test_shares_add_up_and_are_within_one_of_exact(counts, total):
    sizes = allocate(np.array(counts), total)
    assert sizes.sum() == total and sizes.min() >= 0
    weights = np.maximum(counts, 0)
    if weights.sum() > 1e-6:
        assert np.abs(sizes - total * weights / weights.sum()).max() < 1 + 1e-6


def test_no_positive_count_gives_equal_shares():
    assert allocate(np.array([-3.0, -1.0, 0.0]), 7).tolist() == [3, 2, 2]


def rng():
    return np.random.default_rng(0)


CELLS = np.array([0, 0, 0, 1, 1])


def test_rank_keeps_the_most_voted_of_every_label():
    kept = select(np.array([1.0, 9, 5, -2, -1]), CELLS, np.array([2, 1]), "rank", 0.0, rng())
    assert kept.tolist() == [1, 2, 4]  # all of label 1 is below the threshold: its order still counts


def test_a_label_with_too_few_candidates_keeps_what_it_has():
    for mode in RULES:
        kept = select(np.arange(5.0), CELLS, np.array([1, 4, 3]), mode, 0.0, rng())
        assert len(kept) == 3 and set(CELLS[kept]) == {0, 1}


def test_prob_draws_in_proportion_above_the_threshold():
    """20,000 draws; both shares within 5 standard errors: one false alarm in a million."""
    noisy, cells = np.array([30.0, 10.0, 2.0, -50.0]), np.zeros(4, dtype=int)
    draws = np.concatenate(
        [select(noisy, cells, np.array([4]), "prob", 2.0, np.random.default_rng(i)) for i in range(5000)]
    )
    share = np.bincount(draws, minlength=4) / len(draws)
    assert share[2] == share[3] == 0
    assert share[0] == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / len(draws)))


def test_prob_without_any_count_above_the_threshold_is_even():
    kept = select(np.full(100, -1.0), np.zeros(100, dtype=int), np.array([50]), "prob", 0.0, rng())
    assert len(kept) == 50 and len(set(kept)) > 20


def test_random_looks_at_no_count():
    one = select(np.arange(5.0), CELLS, np.array([2, 1]), "random", 0.0, rng())
    two = select(-np.arange(5.0), CELLS, np.array([2, 1]), "random", 0.0, rng())
    assert one.tolist() == two.tolist() and len(set(one)) == 3
