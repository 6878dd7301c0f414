"""Logistic regression on frozen embeddings: what a classifier can learn from a set of texts, in seconds."""

from __future__ import annotations

import numpy as np

STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # C, the inverse of the regularisation, tried on the validation texts


def probe(
    train: tuple[np.ndarray, np.ndarray],  # embeddings (N, D), labels (N,)
    validation: tuple[np.ndarray, np.ndarray],
    test: np.ndarray,  # (M, D)
) -> np.ndarray:
    """The labels (M,) predicted for `test`, by the strength that does best on `validation`; of equal ones, the most
    regularised. Raises ValueError if `train` has one class only."""
    from sklearn.linear_model import LogisticRegression

    best, chosen = -1.0, None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000).fit(*train)
        score = float((model.predict(validation[0]) == validation[1]).mean())
        if score > best:
            best, chosen = score, model
    assert chosen is not None
    return chosen.predict(test)
