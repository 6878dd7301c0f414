"""How well labels were predicted."""

from __future__ import annotations

import numpy as np


def label_scores(truth: np.ndarray, guessed: np.ndarray) -> dict[str, float]:
    """Accuracy, and macro F1 over the classes that `truth` (n,) has; `guessed` (n,) are the predictions."""
    from sklearn.metrics import f1_score

    truth, guessed = truth.astype(str), guessed.astype(str)
    return {
        "accuracy": float((truth == guessed).mean()),
        "macro_f1": float(f1_score(truth, guessed, labels=np.unique(truth), average="macro", zero_division=0)),
    }
