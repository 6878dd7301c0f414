"""The records of a JSON lines file: one object a line, its keys the columns.

Whatever is wrong with a line is its record's own affair, as no line can move where another one begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsda.csv_records import BLOCK, COMPRESSED, suffix
from dpsda.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def is_json_lines(path: Path) -> bool:
    """Whether a file holds JSON lines, by its name."""
    return suffix(path) in (".jsonl", ".ndjson")


def header(path: Path) -> list[str]:
    """The keys of the first record; InputError where that is none."""
    first = next((line for block in _blocks(path) for line in block.splitlines() if line.strip()), b"")
    record = _record(first)
    if record is None:
        raise InputError(f"{path}: its first line is no JSON object in UTF-8; write an object a line")
    return list(record)


def tables(path: Path, columns: Sequence[str]) -> Iterator[tuple[pa.Table, dict[str, np.ndarray]]]:
    """The columns as large_string, about `BLOCK` bytes at a time: numbers, true and false as JSON writes them, null for
    what is missing, a list or an object; and (n,) bool, which records are no JSON object in UTF-8, by each column. A
    line without anything is no record. InputError where the file cannot be decompressed."""
    import pyarrow as pa

    for block in _blocks(path):
        found = [_record(line) for line in block.split(b"\n") if line.strip()]
        values = {name: [_text(record.get(name)) if record else None for record in found] for name in columns}
        bad = np.array([record is None for record in found], dtype=bool)
        table = pa.table({name: pa.chunked_array([pa.array(own, pa.large_string())]) for name, own in values.items()})
        yield table, dict.fromkeys(columns, bad) if bad.any() else {}


def _record(line: bytes) -> dict[str, Any] | None:
    """The object of a line; None where there is none, or it is not UTF-8, escaped halves of a character included."""
    try:
        record = json.loads(line.decode("utf-8"))
        if not isinstance(record, dict):
            return None
        for value in record.values():
            if isinstance(value, str):
                value.encode()
        return record
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    if isinstance(value, str) or value is None:
        return value
    return json.dumps(value) if isinstance(value, (bool, int, float)) else None


def _blocks(path: Path) -> Iterator[bytes]:
    """The bytes of the file in pieces that end where a line ends."""
    import pyarrow as pa

    rest: list[bytes] = []
    with pa.input_stream(str(path), compression=COMPRESSED.get(path.suffix.lower())) as stream:
        read: Callable[[int], bytes] = stream.read
        while True:
            try:
                new = read(BLOCK)
            except OSError:
                raise InputError(f"{path} is damaged: it cannot be decompressed") from None
            if not new:
                break
            end = new.rfind(b"\n") + 1
            if end:
                yield b"".join([*rest, new[:end]])
                rest = []
            rest.append(new[end:])
    if any(rest):
        yield b"".join(rest)
