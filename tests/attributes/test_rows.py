"""Rows that are drawn from marginals: like these, for given labels, and no more than noise says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dpsda.attributes.rows import RowModel, chosen_pairs, total


def tables(codes, noise=0.0, seed=0):
    """All 1- and 2-way marginals of codes (n, V), with Gaussian noise."""
    sizes, rng = codes.max(axis=0) + 1, np.random.default_rng(seed)
    found = {}
    for some in [s for way in (1, 2) for s in itertools.combinations(range(len(sizes)), way)]:
        shape = tuple(sizes[list(some)])
        flat = np.ravel_multi_index(tuple(codes[:, list(some)].T), shape)
        counts = np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)
        found[some] = counts + rng.normal(0, noise, shape) if noise else counts.astype(float)
    return found


def distance(some, others):
    """The mean total variation of the pairs."""
    pairs = [pair for pair in some if len(pair) == 2]
    return np.mean([np.abs(some[p] / some[p].sum() - others[p] / others[p].sum()).sum() / 2 for p in pairs])


@pytest.fixture(scope="module")
def codes():
    """A chain of three that follow one another, and a fourth that follows none."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, 3, 6000)
    second = np.where(rng.random(6000) < 0.8, first, rng.integers(0, 3, 6000))
    third = np.where(rng.random(6000) < 0.8, second, rng.integers(0, 3, 6000))
    return np.stack([first, second, third, rng.integers(0, 2, 6000)], axis=1)


def test_rows_are_like_the_records(codes):
    noisy = tables(codes, noise=12)
    rows = RowModel.of(noisy, 12.0).draw(None, 3000, np.random.default_rng(2))
    independent = np.stack([np.random.default_rng(i).permutation(codes[:, i]) for i in range(4)], axis=1)
    true = tables(codes)
    assert rows.shape == (3000, 4) and distance(tables(rows), true) < 0.02 < 0.1 < distance(tables(independent), true)
    assert np.array_equal(rows, RowModel.of(noisy, 12.0).draw(None, 3000, np.random.default_rng(2)))  # the same again


def test_rows_of_given_labels(codes):
    given = np.repeat([0, 1, 2], [10, 20, 30])
    rows = RowModel.of(tables(codes, noise=5), 5.0).draw(given, 60, np.random.default_rng(0))
    assert np.array_equal(rows[:, 0], given)
    wanted = tables(codes)[0, 1][2] / (codes[:, 0] == 2).sum()
    assert np.abs(np.bincount(rows[30:, 1], minlength=3) / 30 - wanted).max() < 0.05  # few rows, too, are in proportion


def test_pairs_that_noise_could_have_made_are_not_taken(codes):
    chosen = chosen_pairs(tables(codes, noise=12), 12.0)
    assert chosen[:2] == [(0, 1), (1, 2)] or chosen[:2] == [(1, 2), (0, 1)]
    assert (0, 2) in chosen and not any(3 in pair for pair in chosen)
    assert chosen_pairs(tables(codes, noise=12), 12.0, cells=20) == chosen[:2]  # a tree, where no more fits
    assert chosen_pairs(tables(codes[:50], noise=200), 200.0) == []


def test_counts_without_any_mass_give_rows_all_the_same():
    empty = {some: np.zeros(table.shape) for some, table in tables(np.array([[0, 0], [1, 2]])).items()}
    model = RowModel.of({some: table - 5 for some, table in empty.items()}, 3.0)
    rows = model.draw(np.array([0, 1, 1]), 3, np.random.default_rng(0))
    assert rows.shape == (3, 2) and rows[:, 0].tolist() == [0, 1, 1] and total(empty) == 1
