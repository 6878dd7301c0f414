"""Noise from the operating system's entropy. No seed reaches it, so two runs never draw the same noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def discrete_gaussian(scale: float, size: int) -> npt.NDArray[np.int64]:
    """`size` independent draws X with P(X = x) proportional to exp(-x^2 / (2 scale^2)) on the integers.

    The sampler is OpenDP's, exact in rational arithmetic (Canonne, Kamath, Steinke 2020, Algorithm 3): a floating-point
    Gaussian would leak through its low bits (Mironov 2012). `scale` 0 gives zeros.
    """
    if scale == 0 or size == 0:
        return np.zeros(size, dtype=np.int64)
    import opendp.prelude as dp

    dp.enable_features("contrib")
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    measurement = dp.m.make_gaussian(domain, dp.l2_distance(T=float), scale=float(scale))
    return np.asarray(measurement([0] * size), dtype=np.int64)
