"""Private records vote for the candidates that lie nearest to them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from dpsda.augpe.ballot import Ballot
from dpsda.neighbors import Metric, nearest, usable
from dpsda.privacy.mechanism import NO_VOTE

if TYPE_CHECKING:
    from dpsda.embedding import Embeds


class Voters(Protocol):
    """The private records, wherever they are: (n, k) votes, as `vote` gives them."""

    def vote(self, ballot: Ballot, k: int) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Records:
    """The private records in this process: n texts, and the label cell of each."""

    texts: Sequence[str]
    cells: np.ndarray
    encoder: Embeds

    def vote(self, ballot: Ballot, k: int) -> np.ndarray:
        return vote(self._vectors, self.cells, ballot, k)

    @functools.cached_property
    def _vectors(self) -> np.ndarray:
        """(n, D), embedded once (Xie et al. 2024, Algorithm 1, line 1)."""
        return self.encoder.embed(self.texts, private=True, desc="private records")


def vote(
    private: np.ndarray,  # (n, D) float32, may be memory-mapped
    cells: np.ndarray,  # (n,) the label cell of each record
    ballot: Ballot,
    k: int,
) -> np.ndarray:  # (n, k) candidate numbers
    """Each record's k nearest candidates of its own label (Xie et al. 2024, Algorithm 1, line 7), corrected for hubs as
    the ballot says.

    A label with fewer than k candidates takes fewer votes of each of its records, one without any takes none, and a
    record whose vector is no point in space casts none: NO_VOTE fills the rest. The result is private; it goes into a
    mechanism's `release` and nowhere else.
    """
    votes = np.full((len(cells), k), NO_VOTE, dtype=np.int64)
    order = np.argsort(cells, kind="stable")
    good = usable(private)
    bounds = np.searchsorted(cells[order], np.arange(int(max(cells.max(), ballot.cells.max(initial=0))) + 2))
    for cell in np.unique(ballot.cells):
        rows = np.sort(order[bounds[cell] : bounds[cell + 1]])
        rows = rows[good[rows]]
        own = np.flatnonzero(ballot.cells == cell)
        if len(rows):
            metric, shifts = cast(Metric, ballot.metric), ballot.shifts[own]
            found = nearest(private, ballot.vectors[own], min(k, len(own)), metric, shifts=shifts, rows=rows)
            votes[rows[:, None], np.arange(found.shape[1])] = own[found]
    return votes
