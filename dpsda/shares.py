"""How many texts a label gets, decided from noisy counts only."""

from __future__ import annotations

import numpy as np


def allocate(noisy_counts: np.ndarray, total: int) -> np.ndarray:
    """`total` texts over the label cells in proportion to their noisy counts, (cells,) int64, by largest remainder.

    Negative counts count as none; if all are, every cell gets the same share.
    """
    exact = total * _shares(noisy_counts)
    sizes = np.floor(exact).astype(np.int64)
    largest = np.argsort(sizes - exact, kind="stable")
    sizes[largest[: total - sizes.sum()]] += 1
    return sizes


def sequence(noisy_counts: np.ndarray, total: int) -> np.ndarray:
    """The cells of `total` texts one after the other, (total,) int64, by Webster's method: every beginning of it is in
    proportion, too, and a longer sequence begins with a shorter one."""
    shares = _shares(noisy_counts)
    enough = np.floor((total + len(shares) / 2) * shares + 0.5).astype(np.int64)
    cells = np.repeat(np.arange(len(shares)), enough)
    earlier = np.arange(len(cells)) - np.repeat(np.cumsum(enough) - enough, enough)  # texts of the same cell
    return cells[np.argsort((earlier + 0.5) / shares[cells], kind="stable")][:total]


def _shares(noisy_counts: np.ndarray) -> np.ndarray:
    weights = np.maximum(np.asarray(noisy_counts, dtype=np.float64), 0)
    if weights.sum() == 0:
        weights = np.ones_like(weights)
    return weights / weights.sum()
