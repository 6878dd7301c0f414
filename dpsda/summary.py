"""What a run shows at its end, and the distances to a reference set that it notes on its way."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpsda.neighbors import usable
from dpsda.privacy.accounting import epsilon, round_up
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder, read_csv, read_json, write_csv
from dpsda.stages import AUGPE
from dpsda.wording import printable

if TYPE_CHECKING:
    import pandas as pd

    from dpsda.data import PrivateCorpus
    from dpsda.embedding import Embeds


@dataclass
class Distances:
    """Distances of each iteration's kept texts to a reference set, measured once and kept in one csv.

    Columns: iteration; nn_distance, the mean cosine distance from a reference text to its nearest kept text; fid, the
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

        table = read_csv(self.path) if self.path.exists() else pd.DataFrame(columns=["iteration"])
        if self.reference is None or str(t) in set(table["iteration"]):
            return
        synthetic = self.encoder.embed(texts, private=not self.protected, desc="candidates")
        size = min(len(self._real), len(synthetic))
        spread = f"{fid(_sample(self._real, size), _sample(synthetic, size)):.5f}" if size > 1 else "-"
        near = f"{nearest_distance(self._real, synthetic):.5f}"
        row = {"iteration": str(t), "nn_distance": near, "fid": spread}
        write_csv(self.path, pd.concat([table, pd.DataFrame([row])]))

    def row(self, t: int) -> dict[str, float]:
        """The distances of iteration `t` as far as they were measured."""
        table = read_csv(self.path) if self.path.exists() else None
        rows = [] if table is None else table[table["iteration"] == str(t)].to_dict("records")
        return {name: float(x) for row in rows for name, x in row.items() if name != "iteration" and x != "-"}

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


def spent(ledger: Ledger, t: int) -> float:
    """The epsilon of all that was released up to iteration `t`, by the stages before this one, too."""
    charges = ledger.charges()
    ours = [n for n, charge in enumerate(charges) if charge.stage == AUGPE]
    until = [n for n in ours if charges[n].start <= t]  # the label counts come before the first iteration
    # what comes before the first of the next iteration, or of this stage, came before it; later stages are not of it
    stop = max(until, default=-1) + 1 or min(ours, default=len(charges))
    return round_up(epsilon(ledger.events()[:stop], float(ledger.header["delta"])))


def iteration_table(ledger: Ledger, epochs: int, distances: pd.DataFrame | None) -> str:
    """Iteration, epsilon spent up to it, and the distances where they were measured."""
    measured = {} if distances is None else {row["iteration"]: row for row in distances.to_dict("records")}
    columns = [c for c in (distances.columns if distances is not None else []) if c != "iteration"]
    lines = ["  ".join(["iteration", "epsilon", *columns])]
    for t in range(epochs + 1):
        now = spent(ledger, t)
        shown = "inf" if math.isinf(now) else f"{now:.4f}"
        cells = [f"{t:9d}", f"{shown:>7}"]
        cells += [f"{measured[str(t)][c] if str(t) in measured else '-':>{len(c)}}" for c in columns]
        lines.append("  ".join(cells))
    return "\n".join(lines)


def examples(frame: pd.DataFrame, label_columns: list[str], count: int = 10) -> str:
    """`count` texts with their labels, in turn from every label."""
    rows = frame.copy()
    rows["turn"] = rows.groupby(label_columns).cumcount() if label_columns else range(len(rows))
    shown = rows.sort_values("turn", kind="stable").head(count).sort_values(label_columns, kind="stable")
    lines: list[str] = []
    for row in shown.to_dict("records"):
        label = ", ".join(str(row[c]) for c in label_columns)
        lines.append(f"  {printable(f'[{label}]') + ' ' if label else ''}{printable(row['text'])}")
    return "\n".join(lines)


def show(folder: RunFolder, ledger: Ledger, epochs: int, distances: Path, *, log_private: bool) -> None:
    """Print how a finished run ends: the table, ten texts, the guarantee, and where the release lies. Nothing from
    `private/` is printed without `log_private`."""
    facts = read_json(folder.release / "certificate.json")
    texts = read_csv(folder.release / "synthetic.csv")
    may_show = distances.exists() and (log_private or folder.private not in distances.parents)
    print()
    print(iteration_table(ledger, epochs, read_csv(distances) if may_show else None))
    print()
    if log_private or folder.protected:
        print(examples(texts, [c for c in texts.columns if c not in ("id", "parent_id", "text")]))
        print()
    print(facts["statement"])
    print(f"release: {folder.release}")
