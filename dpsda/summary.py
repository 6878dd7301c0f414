"""What a run shows at its end."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsda.arg_utils import typed
from dpsda.privacy.accounting import epsilon, round_up
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder, label_columns, read_csv, read_json, row_columns
from dpsda.stages import AUGPE
from dpsda.wording import printable

if TYPE_CHECKING:
    import pandas as pd


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


def examples(frame: pd.DataFrame, labels: list[str], beside: Sequence[str] = (), count: int = 10) -> str:
    """`count` texts with their labels and the columns `beside` these, in turn from every label."""
    turn = frame.groupby(labels).cumcount() if labels else frame.index.to_series()
    shown = frame.loc[turn.sort_values(kind="stable").index[:count]].sort_values(labels, kind="stable")
    lines: list[str] = []
    for row in shown.to_dict("records"):
        label = ", ".join(str(row[c]) or "-" for c in (*labels, *beside))
        lines.append(f"  {printable(f'[{label}]') + ' ' if label else ''}{printable(row['text'])}")
    return "\n".join(lines)


def show(folder: RunFolder, ledger: Ledger, epochs: int, distances: Path, *, log_private: bool) -> None:
    """Print how a finished run ends: the table, ten texts, the guarantee, where the release lies, and how its pages are
    made. Nothing from `private/` is printed without `log_private`."""
    facts = read_json(folder.release / "certificate.json")
    texts = read_csv(folder.release / "synthetic.csv")
    may_show = distances.exists() and (log_private or folder.private not in distances.parents)
    print()
    print(iteration_table(ledger, epochs, read_csv(distances) if may_show else None))
    print()
    if log_private or folder.protected:
        config = folder.config()
        print(examples(texts, label_columns(texts.columns, config), row_columns(config)))
        print()
    end(folder, facts)


def end(folder: RunFolder, facts: dict[str, Any]) -> None:
    """Print the guarantee of a certificate, where the release lies, and how its pages are made."""
    print(facts["statement"])
    print(f"release: {folder.release}")
    print(f"pages of it, to share and for yourself: {typed(f'report {shlex.quote(str(folder.root))}')}")
