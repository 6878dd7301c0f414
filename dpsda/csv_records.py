"""The records of a csv file, and the texts of any table, as they stand there.

RFC 4180: commas (tabs in a file that is called .tsv, semicolons where the header has some and no comma), quotation
marks, line ends of LF or CRLF, the header in the first record. A file is cut at the ends of records, where the number
of quotation marks before is even, and each piece goes through the CSV parser of Arrow as one block. (Over block
boundaries that parser loses a byte of a quoted "\\r\\n", Arrow issue 51368, which would make a text depend on the
lengths of those before it.) Nothing runs Python per row, but for a piece that is not UTF-8.

What leaves it open where a record begins is refused, and the whole file with it: a quotation mark inside a field that
is not quoted, a carriage return outside quotes, a row with more or fewer fields than the header. Whatever else is wrong
with a field is its record's own affair, so fields come as bytes, and `texts` says which of them are not UTF-8.
"""

from __future__ import annotations

import codecs
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpsda.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 32 << 20  # bytes parsed at a time
LONGEST = 1 << 30  # bytes of a record; Arrow parses less than 2 GiB at once
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".lz4": "lz4", ".zst": "zstd"}
REWRITE = "write it with a CSV library, in UTF-8"


def is_parquet(path: Path) -> bool:
    """Whether a file is parquet, by its name."""
    return path.suffix.lower() in (".parquet", ".pq")


def suffix(path: Path) -> str:
    """What a name ends with, in lower case, but for that of a compression."""
    return (Path(path.stem) if path.suffix.lower() in COMPRESSED else path).suffix.lower()


def delimiter(path: Path) -> str:
    """What parts the fields of a csv file: a tab by its name, or a semicolon, if its header has some and no comma."""
    if suffix(path) in (".tsv", ".tab"):
        return "\t"
    state = path.stat()
    return _by_header(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache
def _by_header(path: Path, changed: int, size: int) -> str:
    """`changed` and `size` are of the file that is there now."""
    data = next(blocks(path), b"").removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    first = data[: _first_end(data)]
    return ";" if b";" in first and b"," not in first else ","


def blocks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, decompressed, `BLOCK` at a time. InputError where it cannot be decompressed."""
    import pyarrow as pa

    with pa.input_stream(str(path), compression=COMPRESSED.get(path.suffix.lower())) as stream:
        while True:
            try:
                block: bytes = stream.read(BLOCK)
            except OSError:
                raise InputError(f"{path} is damaged: it cannot be decompressed") from None
            if not block:
                return
            yield block


def header(path: Path) -> list[str]:
    """The columns of a file, by its first record; nothing else of it is looked at."""
    data = next(blocks(path), b"").removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    if not data:
        raise InputError(f"{path}: the file is empty, without even a header")
    first = data[: _first_end(data)]
    _check_header(path, first)
    return list(_parsed(path, first.rstrip(b"\r\n") + b"\n").column_names)


def _parsed(path: Path, block: bytes, convert: pa.csv.ConvertOptions | None = None) -> pa.Table:
    """A header and the records after it as one block."""
    import pyarrow as pa
    import pyarrow.csv

    options = pyarrow.csv.ReadOptions(block_size=len(block) + 1, use_threads=False)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True, delimiter=delimiter(path))
    try:
        return pyarrow.csv.read_csv(pa.py_buffer(block), options, parse, convert)
    except pa.ArrowInvalid:  # Arrow's message quotes the row: never pass it on
        raise InputError(
            f"{path}: a row has more or fewer fields than the header, so it cannot be read as a table; {REWRITE}"
        ) from None


def tables(path: Path, choose: Callable[[list[str]], list[str]]) -> Iterator[pa.Table]:
    """The columns that `choose` takes of those in the header, as large_binary, about `BLOCK` bytes at a time; a table
    without rows for a file without records."""
    import pyarrow as pa
    import pyarrow.csv

    header, columns, convert, none = b"", [], None, True
    for block in records(path):
        if not header:
            end = _first_end(block)
            header, block = block[:end].rstrip(b"\r\n") + b"\n", block[end:]
            columns = choose(_parsed(path, header).column_names)
            convert = pyarrow.csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(columns, pa.large_binary()),
                strings_can_be_null=False,
            )
        if block:
            none = False
            yield _parsed(path, header + block, convert).select(columns)
    if not header:
        raise InputError(f"{path}: the file is empty, without even a header")
    if none:
        yield _parsed(path, header, convert).select(columns)


def texts(table: pa.Table) -> tuple[pa.Table, dict[str, np.ndarray]]:
    """The columns as large_string, with U+FFFD for what is not UTF-8; and for each column that has such values, which
    of its n values they are, (n,) bool. ArrowException for a column that cannot be text, such as one of lists."""
    import pyarrow as pa

    columns, broken = {}, {}
    for name in table.column_names:
        column = table[name]
        if "binary" not in str(column.type):
            column = column.cast(pa.large_string())  # which checks no text
        column = column.cast(pa.large_binary())
        try:
            columns[name] = column.cast(pa.large_string())
        except pa.ArrowInvalid:
            values = column.to_pylist()
            decoded = [None if value is None else value.decode("utf-8", "replace") for value in values]
            columns[name] = pa.chunked_array([pa.array(decoded, pa.large_string())])
            broken[name] = np.array([t is not None and t.encode() != v for v, t in zip(values, decoded, strict=True)])
    return pa.table(columns), broken


def records(path: Path) -> Iterator[bytes]:
    """The bytes of the file in pieces of about `BLOCK` that end where a record ends; the first begins with the header.

    InputError where the file is no text in UTF-8, as its header tells, or it is open where its records begin.
    """
    begun = False
    for block in _pieces(path):
        if not begun:
            block = block.removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
            if not block:
                continue
            _check_header(path, block[: _first_end(block)])
            begun = True
        _check_line_ends(path, block)
        _check_quotes(path, block)
        yield block


def _pieces(path: Path) -> Iterator[bytes]:
    rest: list[bytes] = []  # of a record whose end is still to come
    odd = False  # whether the number of quotation marks in it is
    for new in blocks(path):
        cut = _last_end(new, odd)
        if cut:
            yield b"".join([*rest, new[:cut]])
            rest, odd = [], False
        else:
            _check_line_ends(path, new, odd)
            if sum(map(len, rest)) > LONGEST:
                raise InputError(
                    f"{path}: has a record of more than {LONGEST / 2**30:g} GiB, or quotes that are never closed; "
                    f"{REWRITE}"
                )
        rest.append(new[cut:])
        odd ^= new.count(b'"', cut) % 2 == 1
    if any(rest):
        yield b"".join([*rest, b"\n"])


def _first_end(data: bytes) -> int:
    """The end of the first record in `data`: after a line end outside quotes."""
    end = data.find(b"\n")
    while end >= 0 and data.count(b'"', 0, end) % 2:
        end = data.find(b"\n", end + 1)
    return end + 1 or len(data)


def _last_end(data: bytes, odd: bool) -> int:
    """The end of the last whole record in `data`, 0 without one; `odd` is the number of quotation marks before."""
    end, quotes = len(data), data.count(b'"') + odd
    while end > 0:
        start = data.rfind(b"\n", 0, end)
        quotes -= data.count(b'"', start + 1, end)
        if quotes % 2 == 0:
            return start + 1
        end = start
    return 0


def _check_header(path: Path, header: bytes) -> None:
    if header.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in header:
        raise InputError(f"{path}: is UTF-16, or no text at all; save it as csv in UTF-8")
    try:
        header.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: the header is not UTF-8; save the file in UTF-8") from None


def _check_line_ends(path: Path, data: bytes, odd: bool = False) -> None:
    """Refuse a carriage return outside quotes that no line feed follows: some readers end a record there. At the end of
    `data` it ends nothing, or more is to come. `odd` is the number of quotation marks before."""
    if b"\r" not in data:
        return
    chars = np.frombuffer(data, np.uint8)
    returns = np.flatnonzero(chars[:-1] == ord("\r"))
    alone = returns[chars[returns + 1] != ord("\n")]
    if not len(alone):
        return
    quotes = np.searchsorted(np.flatnonzero(chars == ord('"')), alone) + odd
    if (quotes % 2 == 0).any():
        raise InputError(
            f"{path}: a carriage return outside quotes, with no line feed after it, so it is open where a record ends; "
            "write texts in quotes and line ends as LF or CRLF (pandas: to_csv with quoting=1)"
        )


def _check_quotes(path: Path, block: bytes) -> None:
    """Refuse a quotation mark inside an unquoted field: with one, it is undefined where the records end."""
    chars = np.frombuffer(block, np.uint8)  # with a line end behind it, and, at -1, before it
    part = delimiter(path).encode()
    before_one, after_one = (np.isin(np.arange(256), list(part + beside)) for beside in (b'\n"', b'\r\n"'))
    quotes = np.flatnonzero(chars == ord('"'))
    if len(quotes) % 2:
        raise InputError(f"{path}: a quoted field is never closed; write the file with a CSV library")
    before, after = chars[quotes[0::2] - 1], chars[quotes[1::2] + 1]
    if not (before_one[before].all() and after_one[after].all()):
        raise InputError(f"{path}: a quotation mark inside a field that is not quoted; write it with a CSV library")
