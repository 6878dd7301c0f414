"""Distinct n-grams and self-similarity, by hand."""

import numpy as np
import pytest

from dpsda.evaluation.diversity import distinct, ngrams, self_similarity


def test_distinct():
    texts = ["The cat sat.", "the CAT ran", ""]
    assert distinct(texts, 1) == pytest.approx(4 / 6)
    assert distinct(texts, 2) == pytest.approx(3 / 4)
    assert distinct(texts, 3) == 1 and distinct(texts, 4) == 0
    assert list(ngrams("It's fine, fine!", 2)) == ["it s", "s fine", "fine fine"]


def test_self_similarity():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 5)) + 1
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i in range(30) for j in range(30) if i != j]
    assert self_similarity(rows) == pytest.approx(np.mean(pairs))
    assert self_similarity(np.ones((3, 2))) == pytest.approx(1)
    assert self_similarity(np.eye(4)) == pytest.approx(0)
