"""Every distance between synthetic sets and a reference set, as one table with two rows to read the others by.

The row `floor` compares real texts with other real texts: no synthetic set can be expected to do better. Iteration 0
never saw private data: what is not better than it was not learnt. All rows compare n texts with n texts, because nearly
all of these metrics move with the number, and are means over `runs` draws of n reference texts.

What concerns the reference alone (embeddings, lengths, moments, neighbourhoods) is computed once and not for every set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dpsda.errors import InputError
from dpsda.evaluation import clusters, copies
from dpsda.evaluation.diversity import distinct, self_similarity
from dpsda.evaluation.fid import Moments, fid
from dpsda.evaluation.manifold import Manifold, overlap
from dpsda.evaluation.mauve import mauve
from dpsda.evaluation.nearest_distance import nearest_distance
from dpsda.evaluation.results import spread
from dpsda.evaluation.sinkhorn import sinkhorn
from dpsda.evaluation.text_lengths import wasserstein
from dpsda.neighbors import require_usable

FLOOR = "floor"
VARIANCE = 0.9  # share of the reference's that is kept by `whitened`
LEAST = 2  # texts of a set below which nothing can be measured

NAMES = (
    *("fid", "mauve", "kl", "tv", "wasserstein"),
    *("precision", "recall", "f1", "density", "coverage"),
    *("sinkhorn", "nn_real", "nn_synthetic", "length"),
    *("distinct_1", "distinct_2", "distinct_3", "self_similarity"),
    *("copies_exact", "copies_8gram", "copies_near"),
)
OTHER = "other_"  # what stands before the name of a metric by a second encoder
BY_OTHER = ("mauve", "fid", "precision", "recall", "coverage", "nn_real")
PERPLEXITY = f"{OTHER}perplexity"  # of the texts, where the second encoder is a language model


@dataclass(frozen=True)
class Measured:
    """N texts with their embeddings (N, D) and lengths (N,) in tokens."""

    name: str
    texts: Sequence[str]
    vectors: np.ndarray
    lengths: np.ndarray

    def __post_init__(self) -> None:
        require_usable(self.vectors, self.name)


@dataclass(frozen=True)
class Row:
    """A line of the table: the mean and standard deviation of each metric over the draws, None where not available."""

    name: str
    texts: int
    runs: int
    values: dict[str, tuple[float, float] | None]
    why: str = ""

    def cells(self) -> dict[str, Any]:
        """As a row of a table."""
        out: dict[str, Any] = {"set": self.name, "texts": self.texts, "runs": self.runs}
        for name in (*NAMES, *(name for name in self.values if name.startswith(OTHER))):
            out[name], out[f"{name}_std"] = self.values.get(name) or (None, None)
        return {**out, "why": self.why}

    def having(self, name: str, value: float) -> Row:
        """This row, with one more metric, of one draw; NaN is not available."""
        return replace(self, values={**self.values, name: None if math.isnan(value) else (value, 0.0)})

    def beside(self, other: Row) -> Row:
        """This row, with what another encoder says of the same texts."""
        values = {f"{OTHER}{name}": other.values.get(name) for name in BY_OTHER}
        return replace(self, values={**self.values, **values})


def whitened(reference: Measured, sets: Sequence[Measured]) -> tuple[Measured, list[Measured]]:
    """All sets on the principal components of the reference that keep VARIANCE of it, each at variance one.

    The hidden states of a language model lie in a narrow cone with a few loud directions, which would decide every
    distance (Su et al. 2021, "Whitening Sentence Representations").
    """
    rows = reference.vectors.astype(np.float64)
    mean = rows.mean(axis=0)
    _, singular, axes = np.linalg.svd(rows - mean, full_matrices=False)
    kept = int(np.searchsorted(np.cumsum(singular**2) / max((singular**2).sum(), 1e-300), VARIANCE)) + 1
    axes, scale = axes[:kept], singular[:kept] / math.sqrt(len(rows))
    scale = np.where(scale > 0, scale, 1)

    def white(some: Measured) -> Measured:
        return replace(some, vectors=((some.vectors - mean) @ axes.T / scale).astype(np.float32))

    return white(reference), [white(some) for some in sets]


def sample_size(reference: int, sets: Sequence[int], at_most: int) -> int:
    """n: as many texts as the smallest set has, and at most half of the reference, whose halves make the floor."""
    return min([reference // 2, at_most, *(size for size in sets if size >= LEAST)])


@dataclass
class Yardstick:
    """A reference set, ready to measure sets: n = `size` of its texts against n of theirs, `runs` times.

    `texts` are all texts of all those sets, for which copies in the whole of the reference are looked for at once; with
    None, they are not.
    """

    reference: Measured
    size: int
    texts: Sequence[str] | None
    runs: int = 5
    k: int = 3
    buckets: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < LEAST:
            raise InputError(
                f"{self.reference.name}: too few texts; the floor, real against real, needs two times {LEAST}"
            )
        count = len(self.reference.texts)
        self._drawn = [
            np.random.default_rng([self.seed, run]).permutation(count)[: 2 * self.size] for run in range(self.runs)
        ]
        self._sides = [_Side.of(self.reference, drawn[: self.size], self.k) for drawn in self._drawn]
        self._finder = None
        if self.texts is not None:
            self._finder = copies.Finder([*self.texts, *self.others])
            self._finder.read(self.reference.texts)

    @property
    def others(self) -> list[str]:
        """The texts of the reference that the floor compares with others, in the first draw."""
        return [self.reference.texts[i] for i in self._drawn[0][self.size :]]

    def floor(self) -> Row:
        """Real against real: other texts of the reference in the place of a synthetic set."""
        others = [drawn[self.size :] for drawn in self._drawn]
        return self._row(FLOOR, self.reference, others, own=np.sort(others[0]))

    def measure(self, texts: Measured) -> Row:
        """A synthetic set, of which n texts are drawn for every run where it has more."""
        if len(texts.texts) < LEAST:
            return Row(texts.name, len(texts.texts), self.runs, {}, f"{len(texts.texts)} texts")
        rows = range(self.runs)
        drawn = [np.random.default_rng([self.seed, run, 1]).permutation(len(texts.texts))[: self.size] for run in rows]
        return self._row(texts.name, texts, drawn, own=None)

    def _row(self, name: str, texts: Measured, drawn: list[np.ndarray], own: np.ndarray | None) -> Row:
        whole = own is None and len(texts.texts) == self.size  # the same texts in every run
        sides = [_Side.of(texts, rows, self.k) for rows in (drawn[:1] if whole else drawn)]
        sides = sides * self.runs if whole else sides
        reasons: dict[str, None] = {}  # in order, each once
        found = [
            _compare(real, side, self.buckets or max(self.size // 10, 2), self.seed + run, reasons)
            for run, (real, side) in enumerate(zip(self._sides, sides, strict=True))
        ]
        values = {name: spread([run[name] for run in found]) for name in found[0]}
        if self._finder is not None:
            some = texts.texts if own is None else sides[0].texts
            values["copies_exact"] = (self._finder.exact(some, own), 0.0)
            values["copies_8gram"] = (self._finder.overlapping(some, own), 0.0)
            vectors = texts.vectors if own is None else sides[0].vectors
            values["copies_near"] = (copies.near(vectors, self.reference.vectors, own), 0.0)
        return Row(name, self.size, self.runs, values, "; ".join(reasons))


@dataclass(frozen=True)
class _Side:
    """Some texts of a set, and what is known of them alone."""

    texts: list[str]
    vectors: np.ndarray
    lengths: np.ndarray
    moments: Moments
    manifold: Manifold | None  # None for fewer than k + 1 texts

    @classmethod
    def of(cls, texts: Measured, rows: np.ndarray, k: int) -> _Side:
        rows = np.sort(rows)  # in the order of the file that they may lie in
        vectors = np.ascontiguousarray(texts.vectors[rows])
        return cls(
            [texts.texts[i] for i in rows],
            vectors,
            texts.lengths[rows],
            Moments.of(vectors),
            Manifold.of(vectors, k) if k < len(vectors) else None,
        )


def _compare(real: _Side, side: _Side, buckets: int, seed: int, reasons: dict[str, None]) -> dict[str, float | None]:
    """Every metric of one draw; what is not available is None, and why is a key of `reasons`."""
    a, b = real.vectors, side.vectors
    values: dict[str, float | None] = dict.fromkeys(NAMES[: NAMES.index("copies_exact")])
    values["fid"] = fid(real.moments, side.moments)
    try:
        cells = clusters.Clusters.fit(np.concatenate([a, b]), buckets, seed)
    except ValueError as error:
        reasons[f"mauve, kl, tv, wasserstein: {error}"] = None
    else:
        p, q = cells.histogram(a), cells.histogram(b)
        values |= {"mauve": mauve(p, q), "kl": clusters.kl(p, q), "tv": clusters.total_variation(p, q)}
        values["wasserstein"] = clusters.wasserstein(p, q, cells.centres)
    if real.manifold is None or side.manifold is None:
        reasons["precision, recall, f1, density, coverage: fewer texts than k + 1"] = None
    else:
        values |= overlap(real.manifold, side.manifold)
    values["sinkhorn"] = sinkhorn(a, b)
    values["nn_real"], values["nn_synthetic"] = nearest_distance(a, b), nearest_distance(b, a)
    values["length"] = wasserstein(real.lengths, side.lengths)
    values |= {f"distinct_{n}": distinct(side.texts, n) for n in (1, 2, 3)}
    values["self_similarity"] = self_similarity(b)
    return values
