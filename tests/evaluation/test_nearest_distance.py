"""Distance to the nearest synthetic text, against brute force."""

import numpy as np
import pytest

from dpsda.evaluation.nearest_distance import nearest_distance


def test_brute_force():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(70, 9)).astype(np.float32), 3 * rng.normal(size=(50, 9)).astype(np.float32)
    unit_real = real / np.linalg.norm(real, axis=1, keepdims=True)
    unit_fake = fake / np.linalg.norm(fake, axis=1, keepdims=True)
    assert nearest_distance(real, fake) == pytest.approx((1 - unit_real @ unit_fake.T).min(axis=1).mean(), abs=1e-6)


def test_ends_of_the_scale():
    x = np.eye(3, dtype=np.float32)
    assert nearest_distance(x, 5 * x) == pytest.approx(0)
    assert nearest_distance(x[:1], x[1:]) == pytest.approx(1)
    assert nearest_distance(x[:1], -x[:1]) == pytest.approx(2)


def test_refuses_empty():
    x = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="no real"):
        nearest_distance(x[:0], x)
    with pytest.raises(ValueError, match="candidates"):
        nearest_distance(x, x[:0])
