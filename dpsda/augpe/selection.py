"""What is kept, decided from noisy counts only."""

from __future__ import annotations

import numpy as np


def select(
    noisy: np.ndarray,  # (M,) noisy counts of the candidates
    candidate_cells: np.ndarray,  # (M,)
    sizes: np.ndarray,  # (cells,) how many to keep
    mode: str,
    threshold: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The numbers of the kept candidates, label by label; fewer than asked where a label has too few candidates.

    "rank" keeps the highest noisy counts: the threshold does not change an order, and where too few candidates exceed
    it the order goes on below it. "prob" draws with replacement in proportion to the counts above the threshold, or
    evenly if there are none. "random" looks at no count.
    """
    kept = []
    for cell, size in enumerate(sizes):
        own = np.flatnonzero(candidate_cells == cell)
        counts = noisy[own]
        if mode == "rank":
            chosen = np.argsort(-counts, kind="stable")[:size]
        elif mode == "prob" and len(own):
            weights = np.where(counts > threshold, np.maximum(counts, 0), 0)
            weights = weights if weights.sum() > 0 else np.ones_like(weights)
            chosen = rng.choice(len(own), size=min(size, len(own)), p=weights / weights.sum())
        else:
            chosen = rng.permutation(len(own))[:size]
        kept.append(own[chosen])
    return np.concatenate(kept)
