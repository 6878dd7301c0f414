"""How much a set of texts varies in itself. Neither high nor low is good: compare with real text of the same number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dpsda.wording import terms


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; the characters, in scripts without spaces."""
    return terms(text.casefold())


def ngrams(text: str, n: int) -> Iterator[str]:
    """Every run of `n` words of a text, joined by spaces."""
    run = words(text)
    return (" ".join(run[i : i + n]) for i in range(len(run) - n + 1))


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct-n (Li et al. 2016, arXiv:1510.03055): different runs of `n` words by all of them, in [0, 1].

    0 where no text has n words. Falls with the number of texts.
    """
    seen: set[str] = set()
    total = 0
    for text in texts:
        grams = list(ngrams(text, n))
        total += len(grams)
        seen.update(grams)
    return len(seen) / total if total else 0.0


def self_similarity(rows: np.ndarray) -> float:
    """Mean cosine between two different ones of the embeddings `rows` (N, D), N >= 2."""
    rows = np.asarray(rows, dtype=np.float64)
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    total = unit.sum(axis=0)
    return float((total @ total - np.vecdot(unit, unit).sum()) / (len(rows) * (len(rows) - 1)))
