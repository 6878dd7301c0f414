"""Writes that a kill at any moment leaves either undone or done."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def write_atomic(path: Path, data: bytes, scratch_folder: Path | None = None) -> None:
    """Write `data` to a temporary name, fsync it, then rename it to `path` and fsync the folder.

    The temporary file lies beside `path`, or in `scratch_folder` where nobody may find it after a kill.
    """
    with appearing(path, scratch_folder) as scratch:
        scratch.write_bytes(data)


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
