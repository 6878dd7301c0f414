"""The one exception for bad input: entry points print it as one line and exit with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

LONGEST = 240  # characters of another library's message that are shown


class InputError(ValueError):
    """What is wrong, where, and what to do about it, in one line that quotes no private value."""


def not_yaml(path: Path, error: Exception) -> InputError:
    """For a file that a YAML reader gave up on: the line, and not the error's text, which quotes what stands there."""
    mark = getattr(error, "problem_mark", None)
    return InputError(f"{path}{f', line {mark.line + 1}' if mark else ''}: this is not YAML")


def first_line(error: Exception) -> str:
    """The first line of an error's text, printable and cut, with its kind where it is no sentence, as of a KeyError."""
    kind, line = type(error).__name__, next(iter(str(error).strip().splitlines()), "")
    line = "".join(c if c.isprintable() else " " for c in line).strip().rstrip(".")
    line = line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
    return line if " " in line else f"{kind}: {line}" if line else kind


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """'; did you mean X?' for the known name that is most like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
