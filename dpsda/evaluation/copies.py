"""Which texts copy a reference text: word for word, in a run of eight words, or in meaning.

A copy need not be a leak (a proverb is in many texts), so the share is read beside that of real texts among each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dpsda.evaluation.diversity import ngrams, words
from dpsda.neighbors import search

RUN = 8  # words in a row that count as copied; characters, in scripts without spaces
NEAR = 0.95  # cosine of two embeddings from which texts count as the same

_SEVERAL = -1


class Finder:
    """Finds `texts` in reference texts that pass by one at a time: the memory is that of `texts`, not of the others.

    Of each run of words its 64-bit hash is kept, a fraction of its letters; two of 100 million share one by a chance of
    about 3 in 10,000."""

    def __init__(self, texts: Iterable[str]) -> None:
        wanted = list(texts)
        self._whole: dict[int, int | None] = {hash(_plain(text)): None for text in wanted}
        self._runs: dict[int, int | None] = {hash(gram): None for text in wanted for gram in ngrams(text, RUN)}

    def read(self, reference: Iterable[str]) -> None:
        """Note in which row of `reference` each whole text and each run of words is."""
        for row, text in enumerate(reference):
            _note(self._whole, hash(_plain(text)), row)
            for gram in ngrams(text, RUN):
                _note(self._runs, hash(gram), row)

    def exact(self, texts: Sequence[str], own: Sequence[int] | np.ndarray | None = None) -> float:
        """The share of `texts` that are a reference text, but for case, punctuation and white space; `own` are the
        reference rows that texts are themselves, which do not count."""
        return _share(texts, own, lambda text: [self._whole.get(hash(_plain(text)))])

    def overlapping(self, texts: Sequence[str], own: Sequence[int] | np.ndarray | None = None) -> float:
        """The share of `texts` that have `RUN` words in a row with a reference text."""
        return _share(texts, own, lambda text: [self._runs.get(hash(gram)) for gram in ngrams(text, RUN)])


def near(rows: np.ndarray, reference: np.ndarray, own: np.ndarray | None = None) -> float:
    """The share of `rows` (N, D) that have a cosine of at least `NEAR` with one of `reference` (M, D); `own` (N,) are
    the reference rows that they are themselves, which do not count."""
    if own is None:
        return float((search(rows, reference, 1, "cos_sim")[1] >= NEAR).mean())
    index, cosine = search(rows, reference, 2, "cos_sim")
    others = (index != own[:, None]) & (cosine >= NEAR)
    return float(others.any(axis=1).mean())


def _plain(text: str) -> str:
    return " ".join(words(text))


def _note(known: dict[int, int | None], key: int, row: int) -> None:
    if key in known:
        known[key] = row if known[key] in (None, row) else _SEVERAL


def _share(texts, own, places) -> float:
    rows = own if own is not None else [None] * len(texts)
    hits = [any(p is not None and p != row for p in places(text)) for text, row in zip(texts, rows, strict=True)]
    return float(np.mean(hits))
