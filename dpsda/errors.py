"""The one exception for bad input: entry points print it as one line and exit with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """What is wrong, where, and what to do about it, in one line that quotes no private value."""


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """'; did you mean X?' for the known name that is most like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
