"""The order and the types of a file's columns, which a release has again. Both are as public as spec.yaml is: they say
what a table is, and nothing of what it holds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsda import csv_records, hub_datasets, json_lines, text_folder
from dpsda.data.spec import DatasetSpec

if TYPE_CHECKING:
    import pyarrow as pa

    Layout = dict[str, pa.DataType]  # of the columns of a release


def layout(spec: DatasetSpec, path: Path) -> Layout:
    """What a release of texts like those of the file has: id, parent_id, and the columns of the file that the spec
    names, in its order; the text as `text`. An attribute that no column holds, as it is read off the text, comes last.

    A column has the type that it has in the file, if whatever may be released of it can be of that type. Where the
    file has no types, `edges` are numbers, and all else are strings.
    """
    import pyarrow as pa

    values: dict[str, Sequence[Any]] = {spec.text: ("a",)} | {label.column: label.domain for label in spec.labels}
    usual: Layout = dict.fromkeys(values, pa.string())
    for attribute in spec.attributes:
        number = attribute.kind == "edges" and not attribute.dates
        usual[attribute.name] = (pa.int64() if attribute.whole else pa.float64()) if number else pa.string()
        values[attribute.name] = [v for v in attribute.values if v]
        if attribute.kind == "edges":
            values[attribute.name] = ("2024-05-01",) if attribute.dates else attribute.edges
    types = _types(path)
    found = {"id": pa.string(), "parent_id": pa.string()}
    for column in dict.fromkeys([*types, *values]):
        if column in values:
            kind = types.get(column)
            fits = kind is not None and _fits(values[column], usual[column], kind)
            found["text" if column == spec.text else column] = kind if fits else usual[column]
    return found


def cast(table: pa.Table, types: Layout) -> pa.Table:
    """The columns of `table` in this order and of these types, and then any others. An empty label or attribute is
    null. A column stays as it is if it holds something else, as a file that somebody resamples may."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = {}
    for name in [*(name for name in types if name in table.column_names), *table.column_names]:
        column = table[name]
        if name not in ("id", "parent_id", "text") and _is_text(column.type):
            column = pc.if_else(pc.equal(column, ""), None, column)
        with contextlib.suppress(pa.ArrowInvalid):
            column = column.cast(types.get(name, column.type))
        columns[name] = column
    return pa.table(columns)


def _types(path: Path) -> dict[str, pa.DataType | None]:
    """The columns of a file; None where it has no types."""
    import pyarrow.parquet as pq

    if hub_datasets.is_named(path):
        schema = hub_datasets.schema(path)
    elif path.is_dir():
        return dict.fromkeys(text_folder.COLUMNS)
    elif csv_records.is_parquet(path):
        schema = pq.read_schema(path)
    else:
        return dict.fromkeys((json_lines if json_lines.is_json_lines(path) else csv_records).header(path))
    return {field.name: getattr(field.type, "value_type", field.type) for field in schema}


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _fits(values: Sequence[Any], usual: pa.DataType, kind: pa.DataType) -> bool:
    """Whether what is written of these values can be of a type; a number that is not whole is none of a whole one."""
    import pyarrow as pa

    if pa.types.is_floating(usual) and not pa.types.is_floating(kind) and not _is_text(kind):
        return False
    try:
        pa.array(values, usual).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True
