"""The Sinkhorn divergence where it has a closed form."""

import numpy as np
import pytest

from dpsda.evaluation.sinkhorn import sinkhorn


def test_closed_forms():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 6)).astype(np.float32)
    assert sinkhorn(a, a[::-1]) == pytest.approx(0, abs=1e-5)
    shift = np.array([3, 4, 0, 0, 0, 0], dtype=np.float32)
    assert sinkhorn(a, a + shift) == pytest.approx(12.5, rel=1e-3)  # |shift|^2 / 2: every point moves by it
    assert sinkhorn(a[:1], a[:1] + shift) == pytest.approx(12.5, rel=1e-3)


def test_on_a_line_it_is_the_distance_of_sorted_points():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(200, 1)), 2 * rng.normal(size=(200, 1)) + 1
    expected = ((np.sort(a, axis=0) - np.sort(b, axis=0)) ** 2).mean() / 2
    assert sinkhorn(a, b) == pytest.approx(expected, rel=0.02)
    assert sinkhorn(a, np.repeat(b, 3, axis=0)) == pytest.approx(expected, rel=0.02)


def test_all_equal():
    assert sinkhorn(np.ones((3, 2)), np.ones((5, 2))) == 0
