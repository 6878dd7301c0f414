"""Writes that a kill at any moment leaves either undone or done, and folders that are never shared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARKER = "NEVER_SHARE.txt"
_MARKED = b"What lies in this folder was computed from private data without noise. Never share it.\n"


def private_folder(path: Path) -> Path:
    """The folder `path`, made if it is not there: nobody else may read it, and a file in it says what it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    if not (path / MARKER).exists():
        write_atomic(path / MARKER, _MARKED)
    return path


def is_private(path: Path) -> bool:
    """Whether a file or folder is there and lies in a folder that is never shared: one that is called `private`, or one
    that says so, whatever its name and whatever links lead there. (/private itself is how some systems call /tmp.)"""
    place = path.expanduser().resolve()
    above = (place, *place.parents)
    named = any(p.name == "private" and p.parent != p.parent.parent for p in above)
    return place.exists() and (named or any((p / MARKER).is_file() for p in above))


def write_atomic(path: Path, data: bytes, scratch_folder: Path | None = None) -> None:
    """Write `data` to a temporary name, fsync it, then rename it to `path` and fsync the folder.

    The temporary file lies beside `path`, or in `scratch_folder` where nobody may find it after a kill.
    """
    with appearing(path, scratch_folder) as scratch:
        scratch.write_bytes(data)


def write_json(path: Path, data: Any) -> None:
    write_atomic(path, (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def appearing(path: Path, scratch_folder: Path | None = None) -> Iterator[Path]:
    """A temporary name to write a file under, which becomes `path` when the block ends well, as `write_atomic` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = (scratch_folder or path.parent) / f".{path.name}.{os.getpid()}.tmp"
    try:
        yield scratch
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise
    _sync_folder(path.parent)


def drop_unfinished(folder: Path) -> None:
    """Remove what a kill left in `folder` under a temporary name."""
    for left in folder.glob(".*.tmp"):
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()


def append_line(path: Path, line: str) -> None:
    """Append one line and fsync it; a kill leaves at most a last line without its newline."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        file.write(line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def sha256(path: Path) -> str:
    """The hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
