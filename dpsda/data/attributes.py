"""What stands beside the text of a record: `attributes:` of spec.yaml. Each has few values, and all of them are public.

    attributes:
      - {column: product, domain: [notes, mail, other]}      # a value that is none of these is `other`, if there is one
      - {column: price, edges: [0, 10, 100], decimals: 2}    # numbers or dates: [0, 10), [10, 100)
      - {column: opened, edges: [2024-01-01, 2024-07-01, 2025-01-01], write: middle}   # or uniform, the default
      - {name: battery, describe: {good: the battery lasts long, bad: the battery dies}}   # read off the text
      - {name: length, words: [10, 20]}                      # fewer than 10 words, 10 to 19, 20 and more
      - {name: link, pattern: "https?://"}                   # whether it occurs: no, yes

A column has one more value, MISSING. A record has it if its value is empty, or is outside the domain and the domain has
no `other`. What lies beyond the edges counts in the first or last bin. What is read off the text is read record by
record, on this machine: a record has the value whose description is nearest to its text, by the encoder. A column may
have a `describe`, too, for the figure that tells whether a synthetic text says what its row says.
"""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsda.wording import count, normalise

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from dpsda.data.spec import Reader

MISSING = ""
OTHER = "other"
UNKNOWN = "not given"  # what a prompt says where a value is missing
MOST = 2.0**53  # of an edge: whole numbers are exact up to there
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Attribute:
    """One attribute. `values` are the names of what it can be; for a column, MISSING is the last of them."""

    name: str
    kind: str  # the key of spec.yaml that it has: domain, edges, describe, words or pattern
    values: tuple[str, ...]
    edges: tuple[float, ...] = ()  # of the bins, one more than these, in days since 1970 where they are dates
    dates: bool = False
    middle: bool = False  # what is written of a bin: its middle, or any value in it
    decimals: int | None = None  # of the numbers that are written
    says: tuple[str, ...] = ()  # what a text of each value says; MISSING has none
    fewest: tuple[int, ...] = ()  # words of all ranges but the first
    pattern: str = ""

    @property
    def column(self) -> bool:
        """Whether the file has it; otherwise it is read off the text."""
        return self.kind in _WAYS["column"]

    @property
    def whole(self) -> bool:
        """Whether a release has whole numbers of it: the edges of its bins are, and no decimals are asked for."""
        return self.kind == "edges" and not self.dates and not self.decimals and all(map(float.is_integer, self.edges))

    @property
    def readable(self) -> bool:
        """Whether a text tells it."""
        return not self.column or bool(self.says)

    def shown(self, code: int) -> str:
        """The value in a prompt; -1 is none."""
        return (self.values[code] if code >= 0 else MISSING) or UNKNOWN

    def positions(self, column: pa.ChunkedArray) -> np.ndarray:
        """(n,) int32 positions in `values` of the strings of a file's column, each by itself; -1 for what is neither
        empty nor a value."""
        known = {normalise(value): i for i, value in enumerate(self.values) if value}
        beyond = next((i for i, value in enumerate(self.values) if value.casefold() == OTHER), -1)
        missing = len(self.values) - 1

        def code(value: str) -> int:
            if not value.strip():
                return missing
            return self._bin(value.strip()) if self.kind == "edges" else known.get(normalise(value), beyond)

        return coded(column, code, missing)

    def codes(self, column: pa.ChunkedArray) -> np.ndarray:
        """The same with MISSING for what is no value."""
        found = self.positions(column)
        return np.where(found < 0, len(self.values) - 1, found).astype(np.int32)

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """(n,) int32 what a pattern or a number of words says of each text."""
        if self.kind == "pattern":
            wanted = re.compile(self.pattern)
            return np.fromiter((wanted.search(text) is not None for text in texts), np.int32, len(texts))
        return np.searchsorted(self.fewest, [count(text) for text in texts], side="right").astype(np.int32)

    def written(self, codes: np.ndarray, rng: np.random.Generator) -> list[str | int | float | None]:
        """What a release has in the column: the names of values, or numbers or dates in their bins. None is missing."""
        if self.kind != "edges":
            return [self.values[code] or None for code in codes.tolist()]
        return [self._within(code, rng) for code in codes.tolist()]

    def _bin(self, value: str) -> int:
        number = day(value) if self.dates else _number(value)
        if number is None:
            return -1
        return min(max(bisect.bisect_right(self.edges, number) - 1, 0), len(self.edges) - 2)

    def _within(self, code: int, rng: np.random.Generator) -> str | int | float | None:
        share = 0.5 if self.middle else rng.random()  # one draw a row, whatever the bin
        if code >= len(self.edges) - 1:
            return None
        low, high = self.edges[code], self.edges[code + 1]
        number = low + share * (high - low)
        if self.dates:
            return (_EPOCH + timedelta(days=math.floor(number))).isoformat()
        if self.whole:
            return math.floor(number)
        digits = 2 - math.floor(math.log10(high - low)) if self.decimals is None else self.decimals
        short = round(number, digits)
        step = (short < low) - (short >= high)  # what was rounded out of the bin comes back
        short = round(short + step * 10.0**-digits, digits)
        return short if low <= short < high else number


def coded(column: pa.ChunkedArray, code: Callable[[str], int], missing: int) -> np.ndarray:
    """(n,) int32 the code of each string of a column, and `missing` where there is none; of each value once."""
    out = [np.zeros(0, np.int32)]
    for chunk in column.dictionary_encode().chunks:
        codes = [missing if value is None else code(value) for value in chunk.dictionary.to_pylist()]
        index = chunk.indices.fill_null(len(codes)).to_numpy()
        out.append(np.array([*codes, missing], dtype=np.int32)[index])
    return np.concatenate(out)


def day(value: str) -> float | None:
    """Days since 1970 of a date as in 2024-05-01, with whatever follows it; None for what is none."""
    try:
        return float((date.fromisoformat(value[:10]) - _EPOCH).days)
    except ValueError:
        return None


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return None if math.isnan(number) or "_" in value else number


def row_codes(frame: pd.DataFrame, attributes: Sequence[Attribute]) -> np.ndarray:
    """(M, K) int32 codes of the rows of a table of strings, by the names of values or as a release has them; -1 for
    what is neither."""
    import pyarrow as pa

    codes = np.empty((len(frame), len(attributes)), np.int32)
    for i, attribute in enumerate(attributes):
        strings: pa.ChunkedArray = pa.chunked_array([pa.array(frame[attribute.name].astype(str), pa.large_string())])
        known = {value: code for code, value in enumerate(attribute.values)}
        named = np.array([known.get(value, -1) for value in strings.to_pylist()], np.int32)
        codes[:, i] = np.where(named >= 0, named, attribute.codes(strings)) if attribute.column else named
    return codes


def write_columns(
    frame: pd.DataFrame, codes: np.ndarray, attributes: Sequence[Attribute], rng: np.random.Generator
) -> pd.DataFrame:
    """`frame` (N rows) with the columns that a release has for the rows `codes` (N, K), of one type whatever they
    hold."""
    import pandas as pd

    for i, attribute in enumerate(attributes):
        number = "Int64" if attribute.whole else "Float64"
        kind = number if attribute.kind == "edges" and not attribute.dates else "string"
        values = pd.Series(attribute.written(codes[:, i], rng), dtype=kind, index=frame.index)
        frame = frame.assign(**{attribute.name: values})
    return frame


# what an attribute has beside its `column` or `name`: one of these, and what may stand beside that
_WAYS: dict[str, dict[str, tuple[str, ...]]] = {
    "column": {"domain": ("describe",), "edges": ("write", "decimals")},
    "name": {"describe": ("domain",), "words": (), "pattern": ()},
}


def read_attribute(reader: Reader, item: Any, where: str) -> Attribute:
    """An item of `attributes:`; whatever is wrong with it is an InputError that names the file and the place."""
    keys = dict.fromkeys(
        (*_WAYS, *(key for ways in _WAYS.values() for way in ways for key in (way, *ways[way]))), False
    )
    given = {key: value for key, value in reader.mapping(item, where, keys).items() if value is not None}
    whose = [key for key in _WAYS if key in given]
    if len(whose) != 1:
        reader.fail(where, "has a `column` of the file, or a `name` for what is read off the text, and not both")
    ways = [way for way in _WAYS[whose[0]] if way in given]
    if len(ways) != 1:
        reader.fail(where, f"what has a `{whose[0]}` has one of {_listed(_WAYS[whose[0]])} as well")
    way = ways[0]
    odd = next((key for key in given if key not in (*whose, way, *_WAYS[whose[0]][way])), None)
    if odd:
        reader.fail(where, f"`{odd}` does not go with `{whose[0]}` and `{way}`")
    name = reader.text(given[whose[0]], f"{where}.{whose[0]}")
    return _READERS[way](reader, name, given, where)


def _of_domain(reader: Reader, name: str, given: dict[str, Any], where: str) -> Attribute:
    domain = _several(reader, reader.domain(given["domain"], f"{where}.domain"), f"{where}.domain")
    says = _said(reader, given["describe"], domain, f"{where}.describe") if "describe" in given else ()
    return Attribute(name, "domain", (*domain, MISSING), says=says)


def _of_edges(reader: Reader, name: str, given: dict[str, Any], where: str) -> Attribute:
    where, write = f"{where}.edges", given.get("write", "uniform")
    texts = [reader.text(edge, where).strip() for edge in reader.list(given["edges"], where)]
    numbers = [_number(edge) for edge in texts]
    dates = None in numbers
    edges = [edge for edge in ([day(edge) for edge in texts] if dates else numbers) if edge is not None]
    if len(edges) < len(texts) or not all(abs(edge) <= MOST for edge in edges):
        reader.fail(where, f"are all numbers, up to {MOST:g}, or all dates as 2024-05-01")
    if len(edges) < 3 or any(not low < high for low, high in itertools.pairwise(edges)):
        reader.fail(where, "are three or more that rise: [0, 10, 100] are the bins from 0 to 10 and from 10 to 100")
    if write not in ("uniform", "middle"):
        reader.fail(where, "go with `write: uniform` (any value in its bin) or `write: middle`")
    decimals = given.get("decimals")
    if decimals is not None and (dates or decimals not in map(str, range(10))):
        reader.fail(where, "go with `decimals:` from 0 to 9, if they are numbers")
    short = None if decimals is None else int(decimals)
    for low, high in itertools.pairwise(edges):
        if short is not None and math.ceil(low * 10**short) / 10**short >= high:
            reader.fail(where, f"from {low:g} to {high:g} there is no number with {short} decimals")
    bins = [f"{low} to {high}" for low, high in itertools.pairwise(texts)]
    return Attribute(name, "edges", (*bins, MISSING), tuple(edges), dates, write == "middle", short)


def _of_describe(reader: Reader, name: str, given: dict[str, Any], where: str) -> Attribute:
    where = f"{where}.describe"
    domain = given.get("domain", list(reader.mapping(given["describe"], where)))
    domain = _several(reader, reader.domain(domain, where), where)
    return Attribute(name, "describe", domain, says=_said(reader, given["describe"], domain, where))


def _of_words(reader: Reader, name: str, given: dict[str, Any], where: str) -> Attribute:
    texts = reader.list(given["words"], f"{where}.words")
    edges = [int(edge) if isinstance(edge, str) and edge.isdecimal() else 0 for edge in texts]
    if not edges or edges[0] < 1 or any(not low < high for low, high in itertools.pairwise(edges)):
        reader.fail(f"{where}.words", "are whole numbers that rise: [10, 20] are three ranges, with 10 to 19 between")
    between = [
        f"{low} to {high - 1} words" if low < high - 1 else f"{low} words" for low, high in itertools.pairwise(edges)
    ]
    values = (f"fewer than {edges[0]} words", *between, f"{edges[-1]} words or more")
    return Attribute(name, "words", values, fewest=tuple(edges))


def _of_pattern(reader: Reader, name: str, given: dict[str, Any], where: str) -> Attribute:
    pattern = reader.text(given["pattern"], f"{where}.pattern")
    try:
        re.compile(pattern)
    except re.error as error:
        reader.fail(f"{where}.pattern", f"is no regular expression ({error})")
    return Attribute(name, "pattern", ("no", "yes"), pattern=pattern)


_READERS = {
    "domain": _of_domain,
    "edges": _of_edges,
    "describe": _of_describe,
    "words": _of_words,
    "pattern": _of_pattern,
}


def _several(reader: Reader, domain: tuple[str, ...], where: str) -> tuple[str, ...]:
    if MISSING in domain:
        reader.fail(where, "has an empty value; a column has one for missing anyway")
    if len(domain) < 2:
        reader.fail(where, "has one value, which tells nothing; give two or more, or leave the attribute out")
    return domain


def _said(reader: Reader, given: Any, domain: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The description of each value of the domain."""
    said = {normalise(value): text for value, text in reader.mapping(given, where).items()}
    for value in given:
        if normalise(value) not in {normalise(known) for known in domain}:
            reader.fail(where, f"{value!r} is not in the domain")
    missing = next((value for value in domain if normalise(value) not in said), None)
    if missing is not None:
        reader.fail(where, f"says nothing of {missing!r}")
    return tuple(reader.text(said[normalise(value)], where) for value in domain)


def _listed(ways: Iterable[str]) -> str:
    return ", ".join(f"`{way}`" for way in ways)
