"""How many texts a label gets, decided from noisy counts only."""

from __future__ import annotations

import numpy as np


def allocate(noisy_counts: np.ndarray, total: int) -> np.ndarray:
    """`total` texts over the label cells in proportion to their noisy counts, (cells,) int64, by largest remainder.

    Negative counts count as none; if all are, every cell gets the same share.
    """
    weights = np.maximum(np.asarray(noisy_counts, dtype=np.float64), 0)
    if weights.sum() == 0:
        weights = np.ones_like(weights)
    exact = total * weights / weights.sum()
    sizes = np.floor(exact).astype(np.int64)
    largest = np.argsort(sizes - exact, kind="stable")
    sizes[largest[: total - sizes.sum()]] += 1
    return sizes
