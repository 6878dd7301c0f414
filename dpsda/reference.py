"""Distances of a run's texts to a reference set, iteration by iteration."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpsda.neighbors import usable
from dpsda.runs import RunFolder, read_csv, write_csv

if TYPE_CHECKING:
    import pandas as pd

    from dpsda.data import PrivateCorpus
    from dpsda.embedding import Embeds

OLD = {"nn_distance": "nn_real"}  # columns in the files of earlier versions


@dataclass
class Distances:
    """Distances of each iteration's kept texts to a reference set, measured once and kept in one csv.

    Columns: iteration; nn_real, the mean cosine distance from a reference text to its nearest kept text; fid, the
    Frechet distance between equal-sized sets, the larger one cut down by a fixed draw. The csv lies beside the
    iterations where the reference is public, else in `private/`.
    """

    path: Path
    reference: PrivateCorpus | None
    public: bool
    encoder: Embeds
    protected: bool = True  # texts of a run without noise are private

    def note(self, t: int, texts: list[str]) -> None:
        """Measure iteration `t` unless that was done."""
        import pandas as pd

        from dpsda.evaluation.fid import fid
        from dpsda.evaluation.nearest_distance import nearest_distance

        table = self._table()
        if self.reference is None or str(t) in set(table["iteration"]):
            return
        synthetic = self.encoder.embed(texts, private=not self.protected, desc="candidates")
        size = min(len(self._real), len(synthetic))
        spread = f"{fid(_sample(self._real, size), _sample(synthetic, size)):.5f}" if size > 1 else "-"
        near = f"{nearest_distance(self._real, synthetic):.5f}"
        row = {"iteration": str(t), "nn_real": near, "fid": spread}
        write_csv(self.path, pd.concat([table, pd.DataFrame([row])]))

    def row(self, t: int) -> dict[str, float]:
        """The distances of iteration `t` as far as they were measured."""
        table = self._table()
        rows = table[table["iteration"] == str(t)].to_dict("records")
        return {name: float(x) for row in rows for name, x in row.items() if name != "iteration" and x != "-"}

    def _table(self) -> pd.DataFrame:
        import pandas as pd

        if not self.path.exists():
            return pd.DataFrame(columns=["iteration"])
        return read_csv(self.path).rename(columns=OLD)

    @functools.cached_property
    def _real(self) -> np.ndarray:
        assert self.reference is not None
        rows = self.encoder.embed(self.reference.texts, private=not self.public, desc="reference")
        return rows[usable(rows)]


def distances_file(folder: RunFolder, split: str, public: bool) -> Path:
    return (folder.shared if public else folder.private) / f"distances_{split}.csv"


def _sample(vectors: np.ndarray, size: int) -> np.ndarray:
    """`size` rows by a fixed draw, so that iterations are compared with the same reference rows."""
    return vectors[np.random.default_rng(0).permutation(len(vectors))[:size]]
