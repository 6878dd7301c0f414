"""Tables that grow row by row: a row is on the disk as soon as it is known, and is not computed again.

`NAME.jsonl` has a line for every row ever made, with a key of all that decided it; `NAME.csv` is the table of the last
command. A row is written when it is whole, so what was killed half-way leaves none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dpsda.privacy.files import append_line
from dpsda.runs import write_csv

MISSING = "n/a"
CODE = 1  # raise it where a row is computed otherwise than before: rows that are there do not count then


class NotAvailable(Exception):
    """Why a row has no figures, in words that quote no text: it is kept, and not tried again."""


Row = dict[str, Any]  # numbers, text, and None for what is not available


class Results:
    """The table at `path`, given without a suffix."""

    def __init__(self, path: Path) -> None:
        self.csv, self._lines = path.with_name(path.name + ".csv"), path.with_name(path.name + ".jsonl")
        self._rows: dict[str, Row] = {}
        for line in (
            self._lines.read_text(encoding="utf-8", errors="replace").splitlines() if self._lines.exists() else ()
        ):
            try:
                row = json.loads(line)
                self._rows[row.pop("key")] = row
            except (ValueError, KeyError, AttributeError):  # the line that a kill cut short
                continue

    def get(self, key: str) -> Row | None:
        return self._rows.get(key)

    def add(self, key: str, row: Row) -> Row:
        text = json.dumps({"key": key, **row})
        start = "\n" if self._torn() else ""
        append_line(self._lines, start + text)
        self._rows[key] = row
        return row

    def write(self, rows: Sequence[Row]) -> None:
        """Make `rows` the csv."""
        import pandas as pd

        write_csv(self.csv, pd.DataFrame([{name: shown(value, 5) for name, value in row.items()} for row in rows]))

    def _torn(self) -> bool:
        return self._lines.exists() and not self._lines.read_bytes().endswith(b"\n") and self._lines.stat().st_size > 0


def spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Mean and standard deviation, 0 for a single value; None where one of the values is not available."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return float(np.mean(known)), float(np.std(known, ddof=1)) if len(known) > 1 else 0.0


def shown(value: Any, digits: int) -> str:
    """A cell as text."""
    if value is None:
        return MISSING
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def key(settings: dict[str, Any], *texts: str) -> str:
    """What a row depends on, as one string: its settings and the digests of its texts."""
    return hashlib.sha256(json.dumps([CODE, settings, *texts], sort_keys=True).encode()).hexdigest()


def digest(texts: Iterable[str], *columns: Iterable[str]) -> str:
    """A hash of texts and their labels."""
    found = hashlib.sha256()
    for values in (texts, *columns):
        for value in values:
            data = value.encode("utf-8", "surrogatepass")
            found.update(len(data).to_bytes(8, "little") + data)
        found.update(b"\xff" * 8)
    return found.hexdigest()
