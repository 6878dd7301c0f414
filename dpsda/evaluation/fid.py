"""Frechet distance between the Gaussians fitted to two sets of embeddings (Heusel et al. 2017, arXiv:1706.08500)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Moments:
    """The Gaussian fitted to some rows: mean (D,) and factor (min(N, D), D) with factor^T factor the covariance."""

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Moments:
        """Of `rows` (N, D), N >= 2. Raises ValueError unless they are finite and at least two."""
        rows = np.asarray(rows, dtype=np.float64)
        if rows.ndim != 2 or len(rows) < 2:
            raise ValueError(f"embeddings {rows.shape} are not (N, D) with at least two rows")
        if not np.isfinite(rows).all():
            raise ValueError("an embedding holds NaN or infinity")
        mean = rows.mean(axis=0)
        factor: Any = np.linalg.qr((rows - mean) / np.sqrt(len(rows) - 1), mode="r")
        return cls(mean, factor)


def fid(a: np.ndarray | Moments, b: np.ndarray | Moments) -> float:
    """|mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of embeddings `a` (N, D) and `b` (M, D).

    0 for equal distributions, and larger the further apart they are; biased upwards for small N and M, so compare
    only values of equal sizes. A side that is used again is given as its `Moments`. Raises ValueError unless both have
    at least two rows, D columns and finite numbers.

    No matrix square root is taken, which is unstable where a covariance is singular (N <= D). With centred rows
    A^T A = C_a, B^T B = C_b, the trace of (C_a C_b)^(1/2) is the sum of the singular values of A B^T, and A and B can
    be replaced by the triangular factors of their QR decompositions.
    """
    a, b = (side if isinstance(side, Moments) else Moments.of(side) for side in (a, b))
    if len(a.mean) != len(b.mean):
        raise ValueError(f"embeddings of {len(a.mean)} and {len(b.mean)} numbers cannot be compared")
    shift = a.mean - b.mean
    overlap = np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
    return max(float(shift @ shift + (a.factor**2).sum() + (b.factor**2).sum() - 2 * overlap), 0.0)
