"""Read the private records of a split, record by record: no record's fate depends on another's (DESIGN, rule 9).

User ids, labels and the values of a filter are compared in the one form of `normalise`, so that a person whose name is
typed in several ways is one user, in one part of a split.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from dpsda import csv_records, hub_datasets, json_lines, text_folder
from dpsda.arg_utils import typed
from dpsda.data.attributes import coded
from dpsda.data.spec import DatasetSpec, normalise
from dpsda.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ROWS = 1 << 16  # rows of parquet read at a time
NOT_UTF8 = 3  # of the reasons below


class Texts(Sequence[str]):
    """A sequence of strings in one Arrow buffer (bytes of the texts + 8 per text). A slice is a list of str."""

    def __init__(self, chunks: pa.ChunkedArray):
        self._chunks = chunks

    def __len__(self) -> int:
        return len(self._chunks)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at):
        if isinstance(at, slice):
            start, stop, step = at.indices(len(self))
            if step != 1:
                return [self[i] for i in range(start, stop, step)]
            return self._chunks.slice(start, max(stop - start, 0)).to_pylist()
        at = operator.index(at)
        if not -len(self) <= at < len(self):
            raise IndexError("no such text")
        return self._chunks[at % len(self)].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 8192):
            yield from self[start : start + 8192]


def _none_missing() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({"row": np.zeros(0, np.int64), "attribute": np.zeros(0, object)})


@dataclass(frozen=True, eq=False)
class PrivateCorpus:
    """The private records of one split.

    file: where they were read from;
    texts: n strings; cells: (n,) int32, the index of each record's joint label cell in `spec.cells`;
    users: (n,) int64, equal where two records are of one user, however it is spelled, or None without a user column;
    columns: of each attribute that is a column, (n,) int32 positions in its values;
    dropped: columns `row` (counted from 0 after the header) and `reason`: for private/ only;
    missing: columns `row` and `attribute`, of values that count as missing as the spec does not know them: the same.
    """

    spec: DatasetSpec
    file: Path
    texts: Texts
    cells: np.ndarray
    users: np.ndarray | None
    dropped: pd.DataFrame
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    missing: pd.DataFrame = field(default_factory=_none_missing)

    @property
    def num_records(self) -> int:
        return len(self.texts)

    @property
    def num_users(self) -> int | None:
        """How many users have a record; None without a user column."""
        return None if self.users is None else len(np.unique(self.users))

    @property
    def dropped_share(self) -> float:
        """The share that was dropped of the records which the filter and the hash range let in; private."""
        return len(self.dropped) / max(len(self.dropped) + len(self.texts), 1)

    def missing_share(self, attribute: str) -> float:
        """The share of the records whose value of an attribute counts as missing, though there is one; private."""
        return float((self.missing["attribute"] == attribute).sum()) / len(self.texts)

    def fingerprint(self, key: bytes) -> str:
        """HMAC-SHA256 under `key` over the texts, cells and users, in hexadecimal; not over the columns, as not every
        stage reads them."""
        import pyarrow as pa
        import pyarrow.compute as pc

        digest = hmac.new(key, digestmod=hashlib.sha256)
        chunks = [chunk for chunk in self.texts._chunks.chunks if len(chunk)]
        for chunk in chunks:  # all lengths, then all bytes: unambiguous, and the same however the texts are chunked
            digest.update(pc.binary_length(chunk).to_numpy(zero_copy_only=False).astype("<i8"))
        digest.update(len(self.texts).to_bytes(8, "little"))
        for chunk in chunks:
            _, offsets, data = chunk.buffers()
            offsets = np.frombuffer(offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
            if offsets[-1] > offsets[0]:
                digest.update(pa.py_buffer(data)[int(offsets[0]) : int(offsets[-1])])
        digest.update(self.cells.astype("<i4").data)
        digest.update(b"users" if self.users is not None else b"no users")
        if self.users is not None:
            digest.update(self.users.astype("<i8").data)
        return digest.hexdigest()

    def fingerprint_of_columns(self, key: bytes) -> str:
        """HMAC-SHA256 under `key` over the columns, in hexadecimal."""
        digest = hmac.new(key, digestmod=hashlib.sha256)
        for codes in self.columns.values():
            digest.update(codes.astype("<i4").data)
        return digest.hexdigest()


def load(
    spec: DatasetSpec,
    split: str,
    *,
    file: str | Path | None = None,
    share: float = 1.0,
    attributes: bool = False,  # whether the columns of attributes are read; otherwise they need not be there
) -> PrivateCorpus:
    """The records of `split`, or of `file` (csv, tsv or JSON lines, compressed or not, parquet, a folder of text files,
    or `hf:NAME`) under that split's hash range, or under the first `share` of that range.

    Of the records that the filter and the hash range let in, those without a text, with a label outside its domain,
    without a user or with a value that is not UTF-8 are dropped one by one; a filter lets in what is not UTF-8. Raises
    InputError if the file is missing, empty or lacks a column, if no record is left, or if the csv is malformed, as it
    is open then where a record begins; no message holds a value or a count.
    """
    import pandas as pd
    import pyarrow as pa

    bounds, path = _bounds(spec, split, share), _file(spec, split, file)
    texts, cells, users, rows, reasons, start = [], [], [], [], [], 0
    own = {a.name: a for a in spec.attributes if a.column and attributes}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in own}
    missing = [_none_missing()]
    for table, broken in _tables(path, list(dict.fromkeys([*spec.columns, *own]))):
        selected, cell, reason = _judge(table, spec, bounds, broken)
        keep = selected & (reason == 0)
        texts.append(table[spec.text].filter(pa.array(keep)))
        cells.append(cell[keep])
        if spec.user:
            users.append(normalised(table[spec.user]).filter(pa.array(keep)))
        for name, attribute in own.items():
            codes = attribute.positions(table[name])
            odd = codes < 0
            codes[odd] = len(attribute.values) - 1
            columns[name].append(codes[keep])
            missing.append(pd.DataFrame({"row": start + np.flatnonzero(keep & odd), "attribute": name}))
        bad = np.flatnonzero(selected & (reason > 0))
        rows.append(start + bad)
        reasons.append(reason[bad])
        start += len(keep)
    if not start:
        raise InputError(f"{path} is empty: it has no records")
    if not sum(map(len, cells)):
        raise InputError(_none_left(path, spec, split, bounds))
    return PrivateCorpus(
        spec=spec,
        file=path,
        texts=Texts(pa.chunked_array([chunk for column in texts for chunk in column.chunks if len(chunk)])),
        cells=np.concatenate(cells),
        users=_codes(users) if spec.user else None,
        dropped=pd.DataFrame({"row": np.concatenate(rows), "reason": _reasons(spec)[np.concatenate(reasons)]}),
        columns={name: np.concatenate(parts) for name, parts in columns.items()},
        missing=pd.concat(missing, ignore_index=True),
    )


def load_columns(
    spec: DatasetSpec, split: str, columns: Sequence[str], *, file: str | Path | None = None
) -> list[list[str]]:
    """Columns of the records that `load` keeps, in its order: what a file holds beside text and labels, such as the
    answers of a conversation. What is empty, or not UTF-8, is ''. Raises InputError as `load` does."""
    import pyarrow as pa

    path = _file(spec, split, file)
    found: list[list[str]] = [[] for _ in columns]
    for table in _whole(path, list(dict.fromkeys([*spec.columns, *columns]))):
        kept = table.filter(pa.array(taken(table, spec, split)))
        for values, column in zip(found, columns, strict=True):
            values += [value or "" for value in kept[column].to_pylist()]
    if not found[0]:
        raise InputError(_none_left(path, spec, split, _bounds(spec, split, 1.0)))
    return found


def rows(spec: DatasetSpec, split: str, *, file: str | Path | None = None, attributes: bool = False) -> pa.Table:
    """All rows of the file that `load` reads, with the columns of the data set as strings, those of `attributes` among
    them that the file has: nothing is left out but what is not UTF-8."""
    import pyarrow as pa

    path = _file(spec, split, file)
    own = [attribute.name for attribute in spec.attributes if attribute.column and attributes]
    if own and not json_lines.is_json_lines(path):  # whose records may lack a key that others have
        there = column_names(path)
        own = [name for name in own if name in there]
    wanted = list(dict.fromkeys([*spec.columns, *own]))
    schema = pa.schema([(name, pa.large_string()) for name in wanted])
    return pa.concat_tables([schema.empty_table(), *_whole(path, wanted)])


def _none_left(path: Path, spec: DatasetSpec, split: str, bounds: tuple[float, float]) -> str:
    """Why no record of a file is left, and what to do: the first key of spec.yaml that lets none in, or else what is
    most often wrong with those that it lets in. No count is told, and nothing that a single record may have alone."""
    names = [*spec.filter]
    stages = {name: {key: spec.filter[key] for key in names[: n + 1]} for n, name in enumerate(names)}
    let_in, wrong = Counter[str](), Counter[str]()
    for table, broken in _tables(path, list(spec.columns)):
        for name, filters in stages.items():
            let_in[name] += int(_judge(table, replace(spec, filter=filters), (0.0, 1.0), broken)[0].sum())
        selected, _, reason = _judge(table, spec, bounds, broken)
        wrong.update(_reasons(spec)[reason[selected]].tolist())
    where, spec_yaml = f"{path}, split {split!r}: no record is left: ", spec.folder / "spec.yaml"
    for name in names:
        if not let_in[name]:
            return f"{where}`filter:` of {spec_yaml} lets none in by {name}; compare its values with the file's"
    if not wrong:
        return f"{where}none lies in the hash range {bounds[0]:g} to {bounds[1]:g} of {spec_yaml}; widen it"
    [(most, _)] = wrong.most_common(1)
    return f"{where}all are left out (most often: {most}); compare columns and domains in {spec_yaml} with the file"


def taken(table: pa.Table, spec: DatasetSpec, split: str, share: float = 1.0) -> np.ndarray:
    """(n,) whether `load` takes each row of such a table."""
    selected, _, reason = _judge(table, spec, _bounds(spec, split, share), {})
    return selected & (reason == 0)


def _bounds(spec: DatasetSpec, split: str, share: float) -> tuple[float, float]:
    """The hash range of a split, or the first `share` of it."""
    low, high = spec.split(split).hash
    return (low, low + share * (high - low)) if share < 1 else (low, high)


def _file(spec: DatasetSpec, split: str, file: str | Path | None) -> Path:
    """The file of a split, or `file` instead; InputError where there is none."""
    path = spec.path(spec.split(split).file if file is None else hub_datasets.absolute(file))
    if not (path.is_file() or path.is_dir() or hub_datasets.is_named(path)):
        known = file is None and (spec.folder / "download.yaml").exists()
        how = f"fetch it by `{typed(f'download {spec.name}')}`" if known else "put it there"
        raise InputError(f"{spec.name}, split {split!r}: there is no file {path}; {how}, or name another one")
    return path


def _tables(path: Path, columns: list[str]) -> Iterator[tuple[pa.Table, dict[str, np.ndarray]]]:
    """The columns as strings, some rows at a time, and of each column which of the values are not UTF-8."""
    if hub_datasets.is_named(path):
        yield from hub_datasets.tables(path, columns)
    elif path.is_dir():
        _required(path, text_folder.COLUMNS, columns)
        yield from text_folder.tables(path, columns)
    elif csv_records.is_parquet(path):
        yield from _parquet(path, columns)
    elif json_lines.is_json_lines(path):
        yield from json_lines.tables(path, columns)
    else:
        yield from map(csv_records.texts, csv_records.tables(path, lambda there: _required(path, there, columns)))


def _whole(path: Path, columns: list[str]) -> Iterator[pa.Table]:
    """The columns as strings, some rows at a time, with null for what is not UTF-8: such a record is never taken."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for table, broken in _tables(path, columns):
        for column, bad in broken.items():
            there = pc.if_else(pa.array(bad), pa.scalar(None, pa.large_string()), table[column])
            table = table.set_column(table.column_names.index(column), column, there)
        yield table


def _reasons(spec: DatasetSpec) -> np.ndarray:
    """What the reason codes of `_judge` mean; 0 is a good record."""
    labels = [f"{label.column} is outside its domain" for label in spec.labels]
    return np.array(["", "no text", "no user", "not UTF-8, or no JSON", *labels], dtype=object)


def _judge(
    table: pa.Table, spec: DatasetSpec, bounds: tuple[float, float], broken: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Of each of n rows, from its own values only: selected (n,) bool, cell (n,) int32, reason (n,) int8. `broken` is
    which values of a column are not UTF-8."""
    import pyarrow.compute as pc

    users = normalised(table[spec.user]) if spec.user else None
    selected = np.ones(len(table), dtype=bool)
    for column, values in spec.filter.items():
        selected &= (_positions(table[column], values) >= 0) | broken.get(column, False)
    if bounds != (0.0, 1.0):
        fraction = record_hash(table[spec.text] if users is None else users)
        selected &= (bounds[0] <= fraction) & (fraction < bounds[1])
    cell = np.zeros(len(table), dtype=np.int32)
    reason = np.zeros(len(table), dtype=np.int8)
    for code, label in reversed(list(enumerate(spec.labels, start=NOT_UTF8 + 1))):  # the first complaint wins
        position = _positions(table[label.column], label.domain)
        reason[position < 0] = code
        stride = int(np.prod([len(later.domain) for later in spec.labels[code - NOT_UTF8 :]]))
        cell += stride * position
    for code, needed in ((2, users), (1, table[spec.text])):
        if needed is not None:
            blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(needed, "")), "")
            reason[blank.to_numpy()] = code
    for column, bad in broken.items():
        if column in spec.columns:  # in an attribute, it is a value that nobody knows
            reason[bad] = NOT_UTF8
    return selected, cell, reason


def _positions(column: pa.ChunkedArray, domain: Sequence[str]) -> np.ndarray:
    """The position of each of n values in `domain`, (n,) int32, -1 for a value outside it."""
    positions = {normalise(value): i for i, value in enumerate(domain)}
    return coded(column, lambda value: positions.get(normalise(value), -1), -1)


def normalised(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`normalise` of each value. Only a chunk that has a value which may change is looked at closer: what is beyond
    printable ASCII, begins or ends with a space, or ends as 5.0 does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    out = []
    for chunk in column.chunks:
        if pc.any(pc.match_substring_regex(chunk, r"[^\x20-\x7e]|^ | $|\.0+$")).as_py():
            coded = chunk.dictionary_encode()
            known = [None if value is None else normalise(value) for value in coded.dictionary.to_pylist()]
            chunk = pa.array(known, pa.large_string()).take(coded.indices)
        out.append(chunk)
    return pa.chunked_array(out, pa.large_string())


def user_hash(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) `record_hash` of each user: what a split by users goes by."""
    return record_hash(normalised(column))


def record_hash(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) float64 in [0, 1): the first 53 bits of the BLAKE2b of each value, the same everywhere and for ever."""
    out = []
    for chunk in column.chunks:
        values = chunk.fill_null("").cast("large_binary").to_numpy(zero_copy_only=False)
        hashes = map(functools.partial(hashlib.blake2b, digest_size=8), values)
        digests = b"".join(map(operator.methodcaller("digest"), hashes))  # the loop is in C: 1 us a text
        out.append((np.frombuffer(digests, ">u8") >> np.uint64(11)) * 2.0**-53)
    return np.concatenate([np.zeros(0), *out])


def _codes(users: list[pa.ChunkedArray]) -> np.ndarray:
    """(n,) 53 bits of a hash of each user: the same whoever else is there. Two of a million users would share a code
    with a probability of 6e-5, and would then be protected as one."""
    import pyarrow as pa

    column = pa.chunked_array([chunk for part in users for chunk in part.chunks])
    return (record_hash(column) * 2.0**53).astype(np.int64)


def column_names(path: Path) -> list[str]:
    """The names of the columns of a file of records: by its header, by its schema, or of JSON lines the keys of the
    first record; of a folder of text files, those that it always has. InputError where there are none."""
    if hub_datasets.is_named(path):
        return hub_datasets.columns(path)
    if path.is_dir():
        return list(text_folder.COLUMNS)
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such file; give a csv, tsv, JSON lines or parquet file, a folder of text files, or "
            "hf:NAME"
        )
    if csv_records.is_parquet(path):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(path).names)
        except (pa.ArrowException, OSError):
            raise InputError(f"{path} is not a parquet file, or is damaged") from None
    if json_lines.is_json_lines(path):
        return json_lines.header(path)
    return csv_records.header(path)


def _required(path: Path, there: Sequence[str], wanted: list[str]) -> list[str]:
    """`wanted`, if each of these columns is there once."""
    for column in wanted:
        if there.count(column) != 1:
            many = "more than one" if column in there else "no"
            known = f"; a folder of text files has {', '.join(there)}"
            where = known if path.is_dir() else " in its header"  # which may be a record
            raise InputError(f"{path} has {many} column {column!r}{where}")
    return wanted


def _parquet(path: Path, columns: list[str]) -> Iterator[tuple[pa.Table, dict[str, np.ndarray]]]:
    """As `_tables`, `ROWS` rows at a time. Labels and users may be numbers, texts may not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        there = schema.names
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise InputError(f"{path} is not a parquet file, or is damaged") from None
    _required(path, there, columns)
    kind = schema.field(columns[0]).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise InputError(f"{path}: the text column {columns[0]!r} holds {kind}, not text")
    try:
        for batch in file.iter_batches(batch_size=ROWS, columns=columns):
            yield csv_records.texts(pa.Table.from_batches([batch]).select(columns))
    except (pa.ArrowException, OSError):
        raise InputError(f"{path}: a column cannot be read as text, or the file is damaged") from None
