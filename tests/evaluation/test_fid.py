"""FID: closed forms for Gaussians, and few rows."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from dpsda.evaluation.fid import fid


def exact(n, covariance, mean, rng):
    """n rows whose sample mean and sample covariance are exactly those given."""
    x = rng.normal(size=(n, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ np.linalg.cholesky(covariance).T + mean


def test_closed_form_of_commuting_gaussians():
    rng = np.random.default_rng(0)
    s, t = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 25.0])
    a, b = exact(50, np.diag(s), np.zeros(3), rng), exact(80, np.diag(t), np.array([1.0, 2.0, 2.0]), rng)
    assert fid(a, b) == pytest.approx(9 + ((np.sqrt(s) - np.sqrt(t)) ** 2).sum(), rel=1e-9)  # 9 + 1 + 1 + 4


def test_matches_the_matrix_square_root():
    rng = np.random.default_rng(1)
    a, b = (
        rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12)),
        rng.normal(size=(300, 12)) @ rng.normal(size=(12, 12)),
    )
    ca, cb = np.cov(a.T), np.cov(b.T)
    shift = a.mean(axis=0) - b.mean(axis=0)
    assert fid(a, b) == pytest.approx(shift @ shift + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real), rel=1e-9)


def test_fewer_rows_than_dimensions():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(5, 40)), rng.normal(size=(7, 40)) + 1
    eigenvalues = np.linalg.eigvals(np.cov(a.T) @ np.cov(b.T)).real
    overlap = np.sqrt(np.maximum(np.sort(eigenvalues)[-4:], 0)).sum()  # the rank is 4
    shift = a.mean(axis=0) - b.mean(axis=0)
    expected = shift @ shift + np.trace(np.cov(a.T)) + np.trace(np.cov(b.T)) - 2 * overlap
    assert fid(a, b) == pytest.approx(expected, rel=1e-6)


def test_zero_symmetric_and_float32():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(60, 8)), 2 * rng.normal(size=(90, 8))
    assert fid(a, a[::-1]) == pytest.approx(0, abs=1e-9)
    assert fid(a, b) == pytest.approx(fid(b, a), rel=1e-12)
    assert fid(a.astype(np.float32), b.astype(np.float32)) == pytest.approx(fid(a, b), rel=1e-5)
    assert fid(a + 10, b + 10) == pytest.approx(fid(a, b), rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 3), (5, 2), (0, 3)])
def test_refuses_what_has_no_covariance(shape):
    with pytest.raises(ValueError, match=r"not \(N, D\)|cannot be compared"):
        fid(np.zeros((5, 3)), np.zeros(shape))


def test_refuses_nan():
    with pytest.raises(ValueError, match="NaN"):
        fid(np.full((5, 3), np.nan), np.zeros((5, 3)))
