"""What a run releases of its attributes, and the rows that it draws from that: each once, and kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dpsda.attributes.marginals import FILE, MARGINALS, Marginals, Tables
from dpsda.attributes.read_off import codes_of
from dpsda.attributes.rows import draw
from dpsda.data import PrivateCorpus
from dpsda.data.attributes import Attribute, row_codes
from dpsda.noisy_histogram import noisy_histogram
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import Histogram, UserHistogram
from dpsda.runs import RunFolder, read_csv, write_csv

if TYPE_CHECKING:
    from dpsda.embedding import Embeds


@dataclass(frozen=True)
class Rows:
    """Rows of the attributes of a data set, for the texts of one stage of a run."""

    attributes: tuple[Attribute, ...]
    marginals: Marginals
    folder: RunFolder
    ledger: Ledger
    stage: str

    def tables(self, corpus: PrivateCorpus, encoder: Embeds, mechanism: Histogram) -> Tables:
        """The noisy marginals, drawn once by `mechanism`.

        Privacy: see `Marginals.votes`; `noisy_histogram` is the only thing that meets the private codes.
        """
        codes = np.empty((0, len(self.marginals.names)), np.int32)
        if self.ledger.result(MARGINALS) is None:  # read before they are reserved: an encoder may fail here
            codes = codes_of(corpus, self.attributes, encoder)
            codes = np.column_stack([corpus.cells, codes]) if self.marginals.labelled else codes
        noisy = noisy_histogram(
            self.folder,
            self.ledger,
            self.stage,
            MARGINALS,
            self.folder.shared / FILE,
            mechanism,
            lambda: self.marginals.votes(codes),
            corpus.users,
            self.marginals.bins(),
        )
        return self.marginals.tables(noisy)

    def drawn(
        self, tables: Tables, cells: np.ndarray, rng: np.random.Generator, say: Callable[[str], None]
    ) -> np.ndarray:
        """(n, K) codes of rows for texts of the label cells (n,), drawn from a model of the marginals."""
        import pandas as pd

        path = self.folder.state / "rows.csv"
        if not self.ledger.holds(path):
            started = time.monotonic()
            given = cells if self.marginals.labelled else None
            rows = draw(*self._in_units(tables), given, len(cells), rng)[:, self.marginals.labelled :]
            columns = {a.name: [a.values[code] for code in rows[:, i]] for i, a in enumerate(self.attributes)}
            write_csv(path, pd.DataFrame(columns))
            self.ledger.note(self.stage, path, of=[MARGINALS])
            took = f"{time.monotonic() - started:.0f} s"
            say(f"rows: {len(cells):,} drawn from {len(self.marginals.sets)} noisy marginals, {took}")
        return row_codes(read_csv(path), self.attributes)

    def _in_units(self, tables: Tables) -> tuple[Tables, float]:
        """The marginals as counts of units, and the standard deviation of the noise that they were drawn with. A
        user's whole vote is shared by all marginals, so that of one weighs less."""
        reserved = self.ledger.reservation(MARGINALS)
        assert reserved is not None and isinstance(reserved.mechanism, Histogram)
        scale = reserved.mechanism.scale
        if not isinstance(reserved.mechanism, UserHistogram):
            return tables, scale
        weight = math.sqrt(len(self.marginals.sets))
        return {some: table * weight for some, table in tables.items()}, scale * weight
