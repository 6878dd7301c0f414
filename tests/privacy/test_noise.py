"""The noise against its own distribution. False alarms are rarer than 1 in 10,000 for each statistical test."""

import numpy as np
import pytest

from dpsda.privacy.noise import BLOCK, discrete_gaussian, gaussian

DRAWS = 10_000
# P(sqrt(n) D > 2.23) = 1e-4 for the Kolmogorov distribution; on a discrete distribution it is rarer still
KS_LIMIT = 2.23 / np.sqrt(DRAWS)


def distance(draws, scale):
    """Kolmogorov-Smirnov distance to the discrete Gaussian's distribution function."""
    grid = np.arange(-int(20 * scale) - 10, int(20 * scale) + 11)
    mass = np.exp(-(grid**2) / (2 * scale**2))
    cdf = np.cumsum(mass) / mass.sum()
    empirical = np.searchsorted(np.sort(draws), grid, side="right") / len(draws)
    return np.abs(empirical - cdf).max()


@pytest.mark.parametrize("scale", [0.8, 3.0, 15.4045, 65536 * 4.2])
def test_mean_and_distribution(scale):
    draws = discrete_gaussian(scale, DRAWS)
    assert draws.dtype == np.int64 and draws.shape == (DRAWS,)
    # five standard errors: one false alarm in 1.7 million
    assert abs(draws.mean()) < 5 * scale / np.sqrt(DRAWS)
    if scale < 1000:
        assert distance(draws, scale) < KS_LIMIT
        assert distance(draws, scale * 2 / 3) > KS_LIMIT and distance(draws, scale * 3 / 2) > KS_LIMIT
    else:
        assert draws.std() == pytest.approx(scale, rel=0.04)  # 5.6 standard errors


def test_no_seed_reaches_the_noise():
    import random

    import torch

    runs = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        runs.append((discrete_gaussian(15.0, 200), gaussian(15.0, 200)))
    for one, other in zip(*runs, strict=True):
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("scale", [0.03, 4.0])
def test_the_real_valued_noise_is_normal(scale):
    from scipy.stats import kstest

    draws = gaussian(scale, DRAWS)
    assert draws.dtype == np.float32 and draws.shape == (DRAWS,) and abs(draws.mean()) < 5 * scale / np.sqrt(DRAWS)
    assert kstest(draws, "norm", (0, scale)).statistic < KS_LIMIT
    assert all(kstest(draws, "norm", (0, scale * wrong)).statistic > KS_LIMIT for wrong in (2 / 3, 3 / 2))
    assert kstest(draws**2, "chi2", (1, 0, scale**2)).statistic < KS_LIMIT


def test_the_real_valued_noise_goes_on_from_block_to_block():
    draws = gaussian(1.0, BLOCK + 1000)
    assert draws.shape == (BLOCK + 1000,) and np.isfinite(draws).all()
    assert (draws[BLOCK:] != 0).all() and draws[BLOCK:].std() == pytest.approx(1, abs=0.13)  # 5.8 standard errors
    assert not np.array_equal(draws[:1000], draws[BLOCK:])


def test_no_scale_is_no_noise():
    assert not discrete_gaussian(0.0, 5).any()
    assert discrete_gaussian(3.0, 0).shape == (0,)
    assert not gaussian(0.0, 5).any() and gaussian(3.0, 0).shape == (0,)
