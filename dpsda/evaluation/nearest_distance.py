"""How far real texts are from their nearest synthetic one."""

import numpy as np

from dpsda.neighbors import search


def nearest_distance(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Mean over `real` (N, D) of the cosine distance, in [0, 2], to the nearest of `synthetic` (M, D), both float32.

    Low where every real text has a synthetic one like it; it says nothing of synthetic texts unlike any real one.
    Raises ValueError if one of the two is empty or the dimensions differ.
    """
    if not len(real):
        raise ValueError("there are no real embeddings")
    _, cosine = search(real, synthetic, 1, "cos_sim")
    return float(1 - cosine.mean())
