"""MAUVE and its histograms, against the mauve-text package and closed forms."""

import mauve as package
import numpy as np
import pytest
from scipy.stats import wasserstein_distance, wasserstein_distance_nd

from dpsda.evaluation import clusters
from dpsda.evaluation.clusters import Clusters
from dpsda.evaluation.mauve import mauve


def groups(rng, n, weights):
    """n points around 12 directions, chosen by their weights."""
    centres = np.random.default_rng(9).normal(size=(12, 20))
    return (centres[rng.choice(12, size=n, p=weights)] + 0.3 * rng.normal(size=(n, 20))).astype(np.float32)


EVEN, UNEVEN = np.full(12, 1 / 12), np.array([6, 5, 4, 3, 2, 1, 1, 1, 0.5, 0.5, 0.2, 0.1]) / 24.3


def ours(a, b, count, seed):
    cells = Clusters.fit(np.concatenate([a, b]), count, seed)
    return mauve(cells.histogram(a), cells.histogram(b))


def test_the_area_is_the_packages_for_its_histograms():
    rng = np.random.default_rng(0)
    a, b = groups(rng, 400, EVEN), groups(rng, 400, UNEVEN)
    out = package.compute_mauve(p_features=a, q_features=b, num_buckets=40, verbose=False, mauve_scaling_factor=5)
    assert mauve(out.p_hist, out.q_hist) == pytest.approx(out.mauve, abs=1e-9)
    assert 0.05 < out.mauve < 0.95


@pytest.mark.parametrize("weights", [EVEN, UNEVEN])
def test_the_package_on_the_same_features(weights):
    """Both cluster at random; the tolerance is what seeds move it by, averaged over five."""
    rng = np.random.default_rng(1)
    a, b = groups(rng, 300, EVEN), groups(rng, 300, weights)
    theirs = [
        package.compute_mauve(
            p_features=a, q_features=b, num_buckets=30, verbose=False, mauve_scaling_factor=5, seed=s
        ).mauve
        for s in range(5)
    ]
    mine = [ours(a, b, 30, seed) for seed in range(5)]
    assert np.mean(mine) == pytest.approx(np.mean(theirs), abs=0.04)


def test_real_against_real_and_against_noise():
    rng = np.random.default_rng(2)
    real, other = groups(rng, 1000, UNEVEN), groups(rng, 1000, UNEVEN)
    noise = np.stack([rng.permutation(column) for column in other.T], axis=1)  # right in every dimension alone
    assert ours(real, other, 100, 0) > 0.9
    assert ours(real, noise, 100, 0) < 0.05


def test_ends_of_the_scale():
    p = np.array([3, 0, 5, 2])
    assert mauve(p, 10 * p) == pytest.approx(1)
    # without a shared cell only the mixtures are left: KL(p | w p + (1 - w) q) = -log w, so the frontier is
    # (w', w) = ((1 - w)^5, w^5)
    apart = mauve(np.array([1, 0]), np.array([0, 1]))
    w = np.linspace(0, 1, 100_001)
    assert apart == pytest.approx(np.trapezoid(w**5, -((1 - w) ** 5)), abs=1e-3) and apart < 0.01


def test_divergences_of_histograms():
    p, q = np.array([8, 1, 1]), np.array([2, 2, 6])
    smooth_p, smooth_q = (p + 0.5) / 11.5, (q + 0.5) / 11.5
    assert clusters.kl(p, q) == pytest.approx(sum(smooth_p * np.log(smooth_p / smooth_q)))
    assert clusters.kl(p, p) == 0 and np.isfinite(clusters.kl(p, np.array([10, 0, 0])))
    assert clusters.total_variation(p, q) == pytest.approx(0.6)
    assert clusters.total_variation(p, 3 * p) == 0


def test_wasserstein_moves_mass_between_centres():
    rng = np.random.default_rng(3)
    line = np.sort(rng.normal(size=(6, 1)), axis=0)
    p, q = rng.integers(0, 9, 6), rng.integers(1, 9, 6)
    expected = wasserstein_distance(line[:, 0], line[:, 0], p, q)
    assert clusters.wasserstein(p, q, line) == pytest.approx(expected)
    plane = rng.normal(size=(6, 3))
    assert clusters.wasserstein(p, q, plane) == pytest.approx(wasserstein_distance_nd(plane, plane, p, q))
    assert clusters.wasserstein(p, 2 * p, plane) == 0


def test_a_histogram_counts_the_nearest_centres():
    rng = np.random.default_rng(4)
    rows = groups(rng, 300, UNEVEN)
    cells = Clusters.fit(rows, 12, 0)
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True) - cells.mean) @ cells.axes
    nearest = np.linalg.norm(unit[:, None] - cells.centres, axis=2).argmin(axis=1)
    assert (cells.histogram(rows) == np.bincount(nearest, minlength=12)).all()


def test_refuses_more_clusters_than_different_texts():
    with pytest.raises(ValueError, match="fewer different texts than the 5 clusters"):
        Clusters.fit(np.repeat(np.eye(4, dtype=np.float32), 9, axis=0), 5, 0)
