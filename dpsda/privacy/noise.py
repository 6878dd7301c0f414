"""Noise and secret choices from the operating system's entropy. No seed reaches them: no two runs draw the same."""

from __future__ import annotations

import os
import secrets

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


def gaussian(scale: float, size: int) -> npt.NDArray[np.float32]:
    """`size` independent draws from a normal distribution of standard deviation `scale`, in float32.

    For sums of real vectors too long for the exact sampler. The generator is Philox under a fresh key of 128 bits from
    the operating system, which is no cryptographic one, and its low bits are those of floating-point arithmetic; the
    certificate says both. (PyTorch's own generator keeps 32 bits of its seed on a CPU: those can be tried one by one.)
    """
    if scale == 0:
        return np.zeros(size, dtype=np.float32)
    generator = np.random.Generator(np.random.Philox(key=secrets.randbits(128)))
    draws = generator.standard_normal(size, dtype=np.float32)
    draws *= np.float32(scale)
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
