"""Private records vote for the candidates that lie nearest to them."""

from __future__ import annotations

import numpy as np

from dpsda.neighbors import nearest
from dpsda.privacy.mechanism import NO_VOTE


def vote(
    private: np.ndarray,  # (n, D) float32, may be memory-mapped
    cells: np.ndarray,  # (n,) the label cell of each record
    candidates: np.ndarray,  # (M, D) float32
    candidate_cells: np.ndarray,  # (M,)
    k: int,
    metric: str,
) -> np.ndarray:  # (n, k) candidate numbers
    """Each record's k nearest candidates of its own label (Xie et al. 2024, Algorithm 1, line 7).

    A label with fewer than k candidates takes fewer votes of each of its records, one without any takes none: NO_VOTE
    fills the rest. The result is private; it goes into a mechanism's `release` and nowhere else.
    """
    votes = np.full((len(cells), k), NO_VOTE, dtype=np.int64)
    order = np.argsort(cells, kind="stable")
    bounds = np.searchsorted(cells[order], np.arange(int(max(cells.max(), candidate_cells.max(initial=0))) + 2))
    for cell in np.unique(candidate_cells):
        rows = np.sort(order[bounds[cell] : bounds[cell + 1]])
        own = np.flatnonzero(candidate_cells == cell)
        if len(rows):
            found = nearest(private, candidates[own], min(k, len(own)), metric, rows=rows)
            votes[rows[:, None], np.arange(found.shape[1])] = own[found]
    return votes
