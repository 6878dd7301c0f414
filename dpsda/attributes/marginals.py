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
from dpsda.data.attributes import Attribute
from dpsda.errors import InputError
from dpsda.privacy.mechanism import NO_VOTE, Votes

if TYPE_CHECKING:
    import pandas as pd

MARGINALS = "marginals"  # the name of the release
FILE = "marginals.csv"
CELLS = 1_000_000  # of one marginal, at most

Set = tuple[int, ...]  # the variables of a marginal, in order


@dataclass(frozen=True)
class Marginals:
    """Which marginals are released: of V variables, the label cell (if there are labels) and then the attributes, each
    alone, and in pairs unless `ways` is 1."""

    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]  # of each variable
    ways: int = 2

    @classmethod
    def of(cls, spec: DatasetSpec, attributes: tuple[Attribute, ...], ways: int = 2) -> Marginals:
        """InputError where a marginal has more than CELLS cells."""
        names = [attribute.name for attribute in attributes]
        values = [tuple(value or "(missing)" for value in attribute.values) for attribute in attributes]
        if spec.labels:
            names.insert(0, ", ".join(spec.label_columns))
            values.insert(0, tuple(", ".join(cell) for cell in spec.cells))
        marginals = cls(tuple(names), tuple(values), min(ways, len(names)))
        for some in marginals.sets:
            cells = math.prod(marginals.shape(some))
            if cells > CELLS:
                raise InputError(
                    f"{spec.folder / 'spec.yaml'}: the marginal of {' and '.join(names[i] for i in some)} has "
                    f"{cells:,} cells, and {CELLS:,} are the most; merge values of these, or give --marginals 1"
                )
        return marginals

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

    def tables(self, noisy: np.ndarray) -> dict[Set, np.ndarray]:
        """The noisy counts of each marginal in its shape."""
        parts = np.split(noisy, self._starts[1:-1])
        return {some: part.reshape(self.shape(some)) for some, part in zip(self.sets, parts, strict=True)}
