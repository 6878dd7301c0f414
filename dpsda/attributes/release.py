"""What a run releases of its attributes, and the rows that it draws from that."""

from __future__ import annotations

import functools
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dpsda.attributes.marginals import FILE, MARGINALS, Marginals, Tables
from dpsda.attributes.options import RowOptions
from dpsda.attributes.rows import RowModel, check_installed
from dpsda.data import DatasetSpec, PrivateCorpus
from dpsda.data.attributes import Attribute, row_codes
from dpsda.errors import InputError
from dpsda.noisy_histogram import noisy_histogram
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import Histogram, UserHistogram
from dpsda.runs import RunFolder, read_csv, write_csv


def marginals_of(spec: DatasetSpec, options: RowOptions) -> Marginals | None:
    """What is released of the attributes, if rows of them are drawn. InputError where that cannot be."""
    if not spec.attributes or options.attributes == "none":
        return None
    check_installed()
    return Marginals.of(spec, options.marginals)


@dataclass(frozen=True)
class Rows:
    """Rows of the attributes of a data set, for the texts of one stage of a run."""

    attributes: tuple[Attribute, ...]
    marginals: Marginals
    folder: RunFolder
    ledger: Ledger
    stage: str

    def tables(self, corpus: PrivateCorpus, codes: Callable[[], np.ndarray], mechanism: Histogram) -> Tables:
        """The noisy marginals, drawn once by `mechanism`; `codes` gives the private (n, K) ones of the attributes.

        Privacy: see `Marginals.votes`; `noisy_histogram` is the only thing that meets the private codes.
        """
        path, bins = self.folder.shared / FILE, self.marginals.bins()
        private = np.empty((0, len(self.marginals.names)), np.int32)
        if self.ledger.result(MARGINALS) is None:  # read before they are reserved: an encoder may fail here
            private = self.marginals.variables(corpus.cells, codes())
        elif not read_csv(io.BytesIO(self.ledger.stored(MARGINALS)))[list(bins)].equals(bins):
            raise InputError(
                f"{path}: an earlier stage of this run released other marginals; give its --marginals, and leave "
                "`attributes:` of spec.yaml as it was"
            )
        noisy = noisy_histogram(
            self.folder,
            self.ledger,
            self.stage,
            MARGINALS,
            path,
            mechanism,
            lambda: self.marginals.votes(private),
            corpus.users,
            bins,
        )
        return self.marginals.tables(noisy)

    def model(self, tables: Tables, say: Callable[[str], None]) -> Callable[..., np.ndarray]:
        """What draws (n, K) codes of rows for texts of the label cells (n,), by a generator of numbers. The model is
        fitted for the first of them."""

        @functools.cache
        def model() -> RowModel:
            started = time.monotonic()
            fitted = RowModel.of(*self._in_units(tables))
            say(f"rows: a model of {len(self.marginals.sets)} noisy marginals, {time.monotonic() - started:.0f} s")
            return fitted

        def drawn(cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            given = cells if self.marginals.labelled else None
            return model().draw(given, len(cells), rng)[:, self.marginals.labelled :]

        return drawn

    def drawn(
        self, tables: Tables, cells: np.ndarray, rng: np.random.Generator, say: Callable[[str], None]
    ) -> np.ndarray:
        """(n, K) codes of rows for texts of the label cells (n,): drawn once, and kept."""
        import pandas as pd

        path = self.folder.state / "rows.csv"
        if not self.ledger.holds(path):
            rows = self.model(tables, say)(cells, rng)
            columns = {a.name: [a.values[code] for code in rows[:, i]] for i, a in enumerate(self.attributes)}
            write_csv(path, pd.DataFrame(columns))
            self.ledger.note(self.stage, path, of=[MARGINALS])
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
