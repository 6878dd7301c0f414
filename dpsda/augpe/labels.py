"""Labels that are read off the votes, for texts whose own say little: those of a generator that learnt them badly.

A candidate stands under every label, and a record votes for one under its own. So the noisy counts under a label tell
where the records of that label lie, and a classifier that is fitted to them tells the label of a text as far as the
embedding knows it. It costs nothing more: a record still casts the same number of votes, and what is done with noisy
counts and public vectors is post-processing.
"""

from __future__ import annotations

import numpy as np


def labels_of(
    vectors: np.ndarray,  # (M, D) of the candidates
    noisy: np.ndarray,  # (labels, M) noisy counts
) -> np.ndarray:  # (M,) a label of each
    """What logistic regression on the candidates under each label, weighted by the counts above zero, predicts."""
    from sklearn.linear_model import LogisticRegression

    weights = np.maximum(noisy, 0.0)
    voted = np.flatnonzero(weights.sum(axis=1))
    if len(voted) < 2:
        return np.full(len(vectors), voted[0] if len(voted) else 0)
    labels, texts = np.nonzero(weights)
    model = LogisticRegression(max_iter=1000).fit(vectors[texts], labels, sample_weight=weights[labels, texts])
    found: np.ndarray = model.predict(vectors)
    return found
