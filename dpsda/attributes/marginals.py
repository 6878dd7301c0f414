"""Noisy 1- and 2-way marginals of the label cell and the attributes: one histogram, and one event of the ledger.

Every record, or user, votes once in each marginal: for the bin of its own values. A record without a value of an
attribute (see `codes_of`) casts no vote in the marginals of that one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dpsda.data import DatasetSpec
from dpsda.errors import InputError
from dpsda.privacy.mechanism import NO_VOTE, Histogram, Votes

if TYPE_CHECKING:
    import pandas as pd

    from dpsda.privacy.ledger import Ledger

MARGINALS = "marginals"  # the name of the release
FILE = "marginals.csv"
CELLS = 1_000_000  # of all marginals together, at most
WEAK_SIGNAL = 0.5  # votes of a cell for one standard deviation of noise, below which pairs tell little

Set = tuple[int, ...]  # the variables of a marginal, in order
Tables = dict[Set, np.ndarray]  # the counts of each marginal, in its shape


@dataclass(frozen=True)
class Marginals:
    """Which marginals are released: of V variables, the label cell (if there are labels) and then the attributes, each
    alone, and in pairs unless `ways` is 1."""

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]  # of each variable
    ways: int = 2
    labelled: bool = False  # whether the first variable is the label cell

    @classmethod
    def of(cls, spec: DatasetSpec, ways: int = 2) -> Marginals:
        """InputError where they have more than CELLS cells."""
        names = spec.attribute_names
        values = [tuple(value or "(missing)" for value in attribute.values) for attribute in spec.attributes]
        if spec.labels:
            names.insert(0, ", ".join(spec.label_columns))
            values.insert(0, tuple(", ".join(cell) for cell in spec.cells))
        marginals = cls(tuple(names), tuple(values), min(ways, len(names)), bool(spec.labels))
        if int(marginals._starts[-1]) > CELLS:
            largest = max(marginals.sets, key=lambda some: math.prod(marginals.shape(some)))
            raise InputError(
                f"{spec.folder / 'spec.yaml'}: the marginals have {marginals._starts[-1]:,} cells, and {CELLS:,} are "
                f"the most; that of {' and '.join(names[i] for i in largest)} alone has "
                f"{math.prod(marginals.shape(largest)):,}; merge values, or give --marginals 1"
            )
        return marginals

    @property
    def told(self) -> str:
        """What a data card says of them."""
        count = len(self.names) - self.labelled
        return f"{count}, of rows drawn from {len(self.sets)} noisy marginals"

    def signal(self, ledger: Ledger, mechanism: Histogram) -> str:
        """A line on the counts to expect against the noise, of the largest marginal: from public figures alone."""
        unit, units = ledger.header["unit"], int(ledger.header["units"])
        largest = max(self.sets, key=lambda some: math.prod(self.shape(some)))
        cells = math.prod(self.shape(largest))
        # a user's whole vote is shared by all marginals
        votes = units / cells / (math.sqrt(len(self.sets)) if unit == "user" else 1)
        line = (
            f"marginals: {len(self.sets)}; the largest, of {' and '.join(self.names[i] for i in largest)}, has "
            f"{cells:,} cells, with {votes:.3g} votes each on average, against noise of standard deviation "
            f"{mechanism.scale:.3g}" + (" (a user's vote is shared by all marginals)" if unit == "user" else "")
        )
        weak = mechanism.scale and votes < WEAK_SIGNAL * mechanism.scale
        less = "merge values, or give --marginals 1" if self.ways > 1 else "merge values, or ask for a larger --epsilon"
        return f"{line}\nwarning: that is mostly noise; {less}" if weak else line

    @cached_property
    def sets(self) -> list[Set]:
        """All marginals; the label cell, alone, is the first where there are labels."""
        variables = range(len(self.names))
        return [some for way in range(1, self.ways + 1) for some in itertools.combinations(variables, way)]

    def shape(self, some: Set) -> tuple[int, ...]:
        return tuple(len(self.values[i]) for i in some)

    @cached_property
    def _starts(self) -> np.ndarray:
        """The first bin of each marginal, and how many bins there are in all."""
        return np.cumsum([0, *(math.prod(self.shape(some)) for some in self.sets)])

    def variables(self, cells: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """(n, V) codes of records with the label cells (n,) and the attributes (n, K)."""
        return np.column_stack([cells, codes]) if self.labelled else codes

    def votes(self, codes: np.ndarray) -> Votes:
        """(n, m) the bins that records with the codes (n, V) vote for. Two marginals share no bin."""
        found = np.full((len(codes), len(self.sets)), NO_VOTE, dtype=np.int64)
        for column, (some, start) in enumerate(zip(self.sets, self._starts, strict=False)):
            own = codes[:, list(some)]
            there = (own >= 0).all(axis=1)
            found[there, column] = start + np.ravel_multi_index(tuple(own[there].T), self.shape(some))
        return found

    def bins(self) -> pd.DataFrame:
        """Of each bin: of what it is a marginal, and the values."""
        import pandas as pd

        rows = [
            (" x ".join(self.names[i] for i in some), " x ".join(values))
            for some in self.sets
            for values in itertools.product(*(self.values[i] for i in some))
        ]
        return pd.DataFrame(rows, columns=["attributes", "values"])

    def tables(self, noisy: np.ndarray) -> Tables:
        """The noisy counts of each marginal in its shape."""
        parts = np.split(noisy, self._starts[1:-1])
        return {some: part.reshape(self.shape(some)) for some, part in zip(self.sets, parts, strict=True)}
