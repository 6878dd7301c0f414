"""Clusters of the synthetic texts, found without any private one, and which cluster a text is in."""

from __future__ import annotations

import numpy as np

from dpsda.errors import InputError
from dpsda.neighbors import nearest, usable
from dpsda.privacy.mechanism import NO_VOTE

BLOCK = 1 << 14  # rows that are looked at together
POINTS = 64  # texts a cluster, at most, that the centres are found on: more move them little, and take their time
ROUNDS = 25  # of k-means, at most


def unit(rows: np.ndarray) -> np.ndarray:
    """`rows` (N, D) float32 at length one, changed in place; they may be memory-mapped. A row that is zero or not
    finite stays as it is. Nothing of one row depends on another."""
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        lengths = np.sqrt(np.vecdot(block.astype(np.float64), block.astype(np.float64)))
        block /= np.where((lengths > 0) & np.isfinite(lengths), lengths, 1)[:, None]
    return rows


def fit(rows: np.ndarray, count: int, variance: float, seed: int) -> np.ndarray:
    """(count, D) float32: centres of k-means on `rows` (N, D), or on `POINTS` of them a cluster, drawn by `seed`.

    k-means runs on the principal components that keep `variance` of the variance, and the centres are lifted back.
    Orthonormal axes keep the order of distances, so the nearest of the lifted centres is the nearest among the
    components, and no private vector has to be projected: a matrix product over all of them could make one record's
    rounding depend on the others. Raises InputError if fewer than `count` of the rows differ.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(rows))[: POINTS * count])
    points = rows[chosen]
    different: set[bytes] = set()
    for row in points:
        different.add(row.tobytes())
        if len(different) == count:
            break
    else:
        raise InputError(f"--num_clusters {count}: only {len(different)} of the synthetic texts differ; ask for fewer")
    pca = PCA(n_components=variance if variance < 1 else None, svd_solver="covariance_eigh").fit(points)
    # random starts and few rounds: k-means++ and convergence gain about 1% in distance, for minutes at large K
    means = KMeans(count, init="random", n_init=1, max_iter=ROUNDS, random_state=seed % 2**32).fit(
        pca.transform(points)
    )
    return pca.inverse_transform(means.cluster_centers_).astype(np.float32)


def votes(private: np.ndarray, centres: np.ndarray, device: str = "auto") -> np.ndarray:
    """(n, 1) int64: each private record's nearest centre, its one vote; NO_VOTE where its vector is not finite.

    The result is private; it goes into a mechanism's `release` and nowhere else. No record's vote depends on another's.
    """
    cast = np.full((len(private), 1), NO_VOTE, dtype=np.int64)
    rows = np.flatnonzero(usable(private))
    cast[rows] = nearest(private, centres, rows=rows, device=device)
    return cast
