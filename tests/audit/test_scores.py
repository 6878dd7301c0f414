"""What synthetic texts tell of members."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dpsda.audit import scores


def test_bigrams_by_hand():
    """Of the synthetic words a b a c: p(a) = (2 + 1) / (4 + 4), p(b | a) = (1 + p(b)) / (2 + 1), p(b) = 2 / 8."""
    found = scores.bigrams(["a b"], ["A b, a c."])
    assert found == pytest.approx([(math.log(3 / 8) + math.log((1 + 2 / 8) / 3)) / 2])


def test_copies_score_higher():
    synthetic = [f"the sea is {word} at night" for word in ("calm", "rough", "dark", "cold")]
    found = scores.bigrams(["the sea is dark at night", "night dark the at is sea", "other words"], synthetic)
    assert found[0] > found[1] > found[2]


def test_similarity_is_a_mean_cosine():
    rng = np.random.default_rng(0)
    synthetic = rng.normal(size=(40, 8)).astype(np.float32)
    mine = rng.normal(size=(3, 8)).astype(np.float32)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (mine, synthetic)]
    wanted = np.sort(unit[0] @ unit[1].T, axis=1)[:, -scores.NEAREST :].mean(axis=1)
    assert scores.similarity(mine, synthetic) == pytest.approx(wanted, abs=1e-6)


def test_attack_by_hand():
    """Of 200 others, the best has a score that 3 of 4 members exceed: at 1% two of them may be above the threshold."""
    values = np.concatenate([np.arange(200) / 200, [2.0, 2.0, 2.0, 0.5]])
    there = np.arange(204) >= 200
    found = scores.attack(values, there)
    assert found.hits == 0.75
    assert found.auc == pytest.approx((3 * 200 + 100.5) / (4 * 200), abs=1e-3)
    assert scores.attack(-values, there).auc == pytest.approx(1 - found.auc)


def test_by_canary():
    assert list(scores.by_canary(np.array([1.0, 3.0, 5.0]), [0, 0, 1])) == [2.0, 5.0]
