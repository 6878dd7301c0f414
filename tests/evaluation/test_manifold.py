"""Precision, recall, density and coverage, against loops over all pairs."""

import numpy as np
import pytest

from dpsda.evaluation import manifold
from dpsda.evaluation.manifold import Manifold, overlap


def by_hand(real, fake, k):
    def radius(points, i):
        return sorted(np.linalg.norm(points[i] - points[j]) for j in range(len(points)) if j != i)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    fake_radii = [radius(fake, j) for j in range(len(fake))]
    inside = [[np.linalg.norm(x - y) <= r for x, r in zip(real, real_radii, strict=True)] for y in fake]
    precision = sum(any(row) for row in inside) / len(fake)
    reached = [any(np.linalg.norm(x - y) <= r for y, r in zip(fake, fake_radii, strict=True)) for x in real]
    recall = sum(reached) / len(real)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "density": sum(sum(row) for row in inside) / (k * len(fake)),
        "coverage": sum(any(row[i] for row in inside) for i in range(len(real))) / len(real),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("block", [7, 1024])
def test_brute_force(k, block, monkeypatch):
    monkeypatch.setattr(manifold, "BLOCK", block)
    rng = np.random.default_rng(k)
    real, fake = rng.normal(size=(60, 5)), 0.7 * rng.normal(size=(45, 5)) + 0.4
    found = overlap(Manifold.of(real, k), Manifold.of(fake, k))
    assert found == pytest.approx(by_hand(real, fake, k))
    assert 0.1 < found["recall"] < 0.9  # nothing is trivially 0 or 1


def test_ends_of_the_scale():
    rng = np.random.default_rng(0)
    real = Manifold.of(rng.normal(size=(50, 4)), 3)
    same, far = overlap(real, real), overlap(real, Manifold.of(rng.normal(size=(50, 4)) + 100, 3))
    assert same["precision"] == same["recall"] == same["f1"] == same["coverage"] == 1
    assert same["density"] == pytest.approx(4 / 3)  # each point is in its own ball and, on average, in k others
    assert set(far.values()) == {0.0}


def test_refuses_fewer_points_than_neighbours():
    with pytest.raises(ValueError, match="k = 3"):
        Manifold.of(np.zeros((3, 2)), 3)
