"""The records of a folder of text files: a file is one, whatever folder inside it lies in.

Its columns are `text`, what is in the file; `file`, its path inside the folder; and `folder`, that of its own folder,
which sorted text often has its label in.
"""

from __future__ import annotations

import codecs
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("text", "file", "folder")
FILES = 1024  # read at a time


def tables(path: Path, columns: Sequence[str]) -> Iterator[tuple[pa.Table, dict[str, np.ndarray]]]:
    """Some of `COLUMNS` as large_string, the files in the order of their paths, `FILES` at a time; and of the texts,
    which of them are not UTF-8, (n,) bool. Only `.txt` files count, and none that a link or a dot hides."""
    import pyarrow as pa

    files = (p for p in sorted(path.rglob("*.txt")) if p.is_file() and not p.is_symlink() and not _hidden(p, path))
    while some := list(itertools.islice(files, FILES)):
        contents = [file.read_bytes() for file in some]
        texts = [content.decode("utf-8-sig", "replace") for content in contents]
        inside = [file.relative_to(path) for file in some]
        values = {"text": texts, "file": list(map(_name, inside)), "folder": [_name(p.parent) for p in inside]}
        arrays = {name: pa.chunked_array([pa.array(values[name], pa.large_string())]) for name in columns}
        # the mark of what is no UTF-8 may also be there as it is
        bad = np.array([t.encode() != c.removeprefix(codecs.BOM_UTF8) for t, c in zip(texts, contents, strict=True)])
        yield pa.table(arrays), {"text": bad} if bad.any() else {}


def _name(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
