"""The records of a JSON lines file: one object a line, its keys the columns.

Whatever is wrong with a line is its record's own affair, as no line can move where another one begins.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsda import csv_records
from dpsda.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def is_json_lines(path: Path) -> bool:
    """Whether a file holds JSON lines, by its name."""
    return csv_records.suffix(path) in (".jsonl", ".ndjson", ".json")


def header(path: Path) -> list[str]:
    """The keys of the first record; InputError where that is none."""
    record = next((_record(line) for line in _lines(path)), None)
    if record is None:
        raise InputError(f"{path}: its first line is no JSON object in UTF-8; write an object a line")
    return list(record)


def columns(path: Path) -> list[str]:
    """The keys of all records, in the order in which they come."""
    return list(dict.fromkeys(key for line in _lines(path) for key in _record(line) or ()))


def tables(path: Path, columns: Sequence[str]) -> Iterator[tuple[pa.Table, dict[str, np.ndarray]]]:
    """The columns as large_string, a block at a time: numbers, true and false as JSON writes them, null for
    what is missing, a list or an object. And for each column that has such values, which of its n values are not UTF-8,
    (n,) bool; of a line that is no object in UTF-8, all. A line without anything is no record. InputError where the
    file cannot be decompressed."""
    import pyarrow as pa

    for block in _blocks(path):
        found = [_record(line) for line in block.split(b"\n") if line.strip()]
        arrays, broken = {}, {}
        for name in columns:
            values = [None if record is None else _text(record.get(name)) for record in found]
            bad = [record is None or not _is_utf8(value) for record, value in zip(found, values, strict=True)]
            if any(bad):
                broken[name] = np.array(bad)
                values = [None if wrong else value for value, wrong in zip(values, bad, strict=True)]
            arrays[name] = pa.chunked_array([pa.array(values, pa.large_string())])
        yield pa.table(arrays), broken


def _record(line: bytes) -> dict[str, Any] | None:
    """The object of a line, or None where there is none."""
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_utf8(value: str | None) -> bool:
    """Not so for an escaped half of a character."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: Any) -> str | None:
    if isinstance(value, str) or value is None:
        return value
    return json.dumps(value) if isinstance(value, (bool, int, float)) else None


def _lines(path: Path) -> Iterator[bytes]:
    """The lines that hold something."""
    return (line for block in _blocks(path) for line in block.split(b"\n") if line.strip())


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of the file in pieces that end where a line ends."""
    rest: list[bytes] = []
    for number, new in enumerate(csv_records.blocks(path)):
        if not number:
            new = new.removeprefix(codecs.BOM_UTF8)
            if csv_records.suffix(path) == ".json" and new.lstrip().startswith(b"["):
                raise InputError(f"{path}: is one JSON list; write an object a line, as by: jq -c '.[]' {path.name}")
        end = new.rfind(b"\n") + 1
        if end:
            yield b"".join([*rest, new[:end]])
            rest = []
        rest.append(new[end:])
    if any(rest):
        yield b"".join(rest)
