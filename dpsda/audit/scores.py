"""What synthetic texts tell of who was in the private data, to someone who has the texts and nothing else."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dpsda.audit.bounds import Array
from dpsda.evaluation.diversity import words
from dpsda.neighbors import search

NEAREST = 25  # synthetic texts that a similarity is the mean of, as in Meeus et al. 2025
FALSE_POSITIVES = 0.01  # at which the share of true positives is read


@dataclass(frozen=True)
class Attack:
    """How well a score tells members from others: 0.5 is chance for `auc`, and FALSE_POSITIVES for `hits`."""

    auc: float
    hits: float


def bigrams(texts: Iterable[str], synthetic: Iterable[str]) -> Array:
    """(n,) the mean log probability of the words of each text in a model of the pairs of words in `synthetic`, which
    falls back to single words and then to none (Meeus et al. 2025, The Canary's Echo, section 3.2)."""
    single: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for text in synthetic:
        run = words(text)
        single.update(run)
        pairs.update(itertools.pairwise(run))
    total, known = single.total(), len(single) + 1

    def log_probability(before: str | None, word: str) -> float:
        alone = (single[word] + 1) / (total + known)
        if before is None:
            return math.log(alone)
        return math.log((pairs[before, word] + alone) / (single[before] + 1))

    scores = []
    for text in texts:
        run = words(text)
        gains = [log_probability(before, word) for before, word in zip([None, *run], run, strict=False)]
        scores.append(sum(gains) / max(1, len(gains)))
    return np.array(scores)


def similarity(vectors: np.ndarray, synthetic: np.ndarray) -> Array:
    """(n,) the mean cosine of each text's embedding to those of the NEAREST synthetic texts."""
    return search(vectors, synthetic, min(NEAREST, len(synthetic)), "cos_sim")[1].mean(axis=1)


def by_canary(scores: Array, number: Sequence[int] | np.ndarray) -> Array:
    """(m,) the mean over the records of each canary."""
    return np.bincount(number, scores) / np.bincount(number)


def attack(scores: Array, there: np.ndarray) -> Attack:
    """Raises ValueError unless there are members and others."""
    from sklearn.metrics import roc_auc_score, roc_curve

    false, true, _ = roc_curve(there, scores)
    return Attack(float(roc_auc_score(there, scores)), float(true[false <= FALSE_POSITIVES].max()))
