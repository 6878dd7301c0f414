"""Frechet distance between the Gaussians fitted to two sets of embeddings (Heusel et al. 2017, arXiv:1706.08500)."""

import numpy as np


def fid(a: np.ndarray, b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of embeddings `a` (N, D) and `b` (M, D).

    0 for equal distributions, and larger the further apart they are; biased upwards for small N and M, so compare
    only values of equal sizes. Raises ValueError unless both have at least two rows, D columns and finite numbers.

    No matrix square root is taken, which is unstable where a covariance is singular (N <= D). With centred rows
    A^T A = C_a, B^T B = C_b, the trace of (C_a C_b)^(1/2) is the sum of the singular values of A B^T, and A and B can
    be replaced by the triangular factors of their QR decompositions.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"embeddings {a.shape} and {b.shape} are not (N, D) and (M, D) with at least two rows each")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("an embedding holds NaN or infinity")
    factor_a, factor_b = _factor(a), _factor(b)
    shift = a.mean(axis=0) - b.mean(axis=0)
    overlap = np.linalg.svd(factor_a @ factor_b.T, compute_uv=False).sum()
    return max(float(shift @ shift + (factor_a**2).sum() + (factor_b**2).sum() - 2 * overlap), 0.0)


def _factor(rows: np.ndarray) -> np.ndarray:
    """(min(N, D), D): R with R^T R the covariance of `rows` (N, D), divided by N - 1."""
    return np.linalg.qr((rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1), mode="r")
