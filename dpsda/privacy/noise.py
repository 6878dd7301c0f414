"""Noise and secret choices from the operating system's entropy. No seed reaches them: no two runs draw the same."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

BLOCK = 1 << 20  # draws made at a time


def discrete_gaussian(scale: float, size: int) -> npt.NDArray[np.int64]:
    """`size` independent draws X with P(X = x) proportional to exp(-x^2 / (2 scale^2)) on the integers.

    The sampler is OpenDP's, exact in rational arithmetic (Canonne, Kamath, Steinke 2020, Algorithm 3): a floating-point
    Gaussian would leak through its low bits (Mironov 2012). `scale` 0 gives zeros.
    """
    if scale == 0 or size == 0:
        return np.zeros(size, dtype=np.int64)
    from opendp.domains import atom_domain, vector_domain  # its prelude would import scikit-learn, for two seconds
    from opendp.measurements import make_gaussian
    from opendp.metrics import l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")
    domain = vector_domain(atom_domain(T="i64"))
    measurement = make_gaussian(domain, l2_distance(T=float), scale=float(scale))
    return np.asarray(measurement([0] * size), dtype=np.int64)


def gaussian(scale: float, size: int) -> npt.NDArray[np.float32]:
    """`size` independent draws from a normal distribution of standard deviation `scale`, in float32.

    For sums of real vectors too long for the exact sampler. Every draw is the normal quantile of 52 bits of entropy of
    its own, so there is no generator whose state could be guessed or replayed. What is beyond 8.2 standard deviations
    (a probability of 2e-16) is cut off, and the low bits are those of floating-point arithmetic.
    """
    from scipy.special import ndtri

    draws = np.zeros(size, dtype=np.float32)
    for start in range(0, size if scale else 0, BLOCK):
        bits = np.frombuffer(os.urandom(8 * min(BLOCK, size - start)), dtype=np.uint64)
        draws[start : start + BLOCK] = scale * ndtri(((bits >> np.uint64(12)) + 0.5) * 2.0**-52)  # of (0, 1), no ends
    return draws


def poisson_sample(size: int, rate: float) -> npt.NDArray[np.int64]:
    """Which of `size` units are in a batch: each is with probability `rate`, independently, and nobody can know.

    Every unit has 64 bits of the operating system's entropy of its own, so the probability is `rate` rounded down to a
    multiple of 2^-64, which the accounting at `rate` covers.
    """
    if rate >= 1:
        return np.arange(size, dtype=np.int64)
    draws = np.frombuffer(os.urandom(8 * size), dtype=np.uint64)
    return np.flatnonzero(draws < np.uint64(int(rate * 2**64))).astype(np.int64)
