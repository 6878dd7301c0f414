"""Tables of instructions and answers: csv or parquet, read as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpsda.errors import InputError
from dpsda.runs import read_table

if TYPE_CHECKING:
    import pandas as pd

INSTRUCTION = ("instruction", "text")  # names of the column, the first that is there


def read_instructions(path: Path) -> list[str]:
    """The instructions of a file, or of the parquet files of a folder in the order of their names. One that stands
    there twice comes once; blank ones are left out."""
    frame = read_rows(path)
    return list(dict.fromkeys(text for text in _column(frame, path, INSTRUCTION) if text.strip()))


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """(instruction, answer) of every row that has both."""
    frame = read_rows(path)
    rows = zip(_column(frame, path, INSTRUCTION), _column(frame, path, ("answer",)), strict=True)
    pairs = [(text, answer) for text, answer in rows if text.strip() and answer.strip()]
    if not pairs:
        raise InputError(f"{path}: no row has both an instruction and an answer")
    return pairs


def read_rows(path: Path) -> pd.DataFrame:
    """A csv or parquet file as strings. Raises InputError where it cannot be read or has no rows."""
    frame = read_table(path)
    if frame.empty:
        raise InputError(f"{path}: the file has no rows")
    return frame


def draw(rows: list, number: int | None, seed: int) -> list:
    """`number` of the rows, or all, without replacement and in their order."""
    if number is None or number >= len(rows):
        return rows
    chosen = np.random.default_rng(seed).choice(len(rows), number, replace=False)
    return [rows[i] for i in np.sort(chosen)]


def _column(frame: pd.DataFrame, path: Path, names: Sequence[str]) -> list[str]:
    for name in names:
        if name in frame:
            return frame[name].tolist()
    wanted = " or ".join(repr(name) for name in names)
    raise InputError(f"{path}: has no column {wanted} in its header")  # which may be a record
