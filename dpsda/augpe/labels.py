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
    sizes: np.ndarray,  # (labels,) how many texts of each are wanted
) -> np.ndarray:  # (M,) a label of each
    """What logistic regression on the candidates under each label, weighted by the counts above zero, predicts. Where a
    label would have fewer texts than are wanted, those that lose least by it move there, from labels with too many."""
    from sklearn.linear_model import LogisticRegression

    weights = np.maximum(noisy, 0.0)
    voted = np.flatnonzero(weights.sum(axis=1))
    likely = np.full((len(vectors), len(noisy)), -np.inf)  # the logarithm of each label's probability
    if len(voted) > 1:
        labels, texts = np.nonzero(weights)
        model = LogisticRegression(max_iter=1000).fit(vectors[texts], labels, sample_weight=weights[labels, texts])
        likely[:, voted] = model.predict_log_proba(vectors)
    elif len(voted):
        likely[:, voted] = 0.0
    likely = np.maximum(likely, -1e9)  # a label without a vote is far, and all labels are as far where none has any
    found: np.ndarray = likely.argmax(axis=1)
    for label in np.flatnonzero(sizes):
        while (there := np.bincount(found, minlength=len(sizes)))[label] < sizes[label]:
            free = np.flatnonzero((there > sizes)[found])
            if not len(free):
                return found
            loss = likely[free, found[free]] - likely[free, label]
            found[free[loss.argmin()]] = label
    return found
