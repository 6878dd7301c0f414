"""The order and the types of the columns of a release, like those of the private file.

The order is that of a header or a schema, and so as public as spec.yaml. Types are not read off the file: whether a
column of numbers is one of integers or of floats may tell that one record has no value in it. spec.yaml says them.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from dpsda.data.loading import column_names
from dpsda.data.spec import DatasetSpec
from dpsda.json_lines import is_json_lines

if TYPE_CHECKING:
    import pyarrow as pa

    Layout = dict[str, pa.DataType]  # of the columns of a release


def layout(spec: DatasetSpec, path: Path) -> Layout:
    """What a release of texts like those of the file has: id, parent_id, and the columns of the file that the spec
    names, in its order; the text as `text`. An attribute that no column holds, as it is read off the text, comes last.
    `edges` are numbers or dates, and all else are strings."""
    import pyarrow as pa

    types: Layout = dict.fromkeys([spec.text, *spec.label_columns], pa.string())
    for attribute in spec.attributes:
        number = pa.int64() if attribute.whole else pa.float64()
        kind = pa.date32() if attribute.dates else number
        types[attribute.name] = kind if attribute.kind == "edges" else pa.string()
    there = [] if is_json_lines(path) else column_names(path)  # of which the first record would tell an order
    order = [name for name in dict.fromkeys([*there, *types]) if name in types]
    found = {"text" if name == spec.text else name: types[name] for name in order}
    return {"id": pa.string(), "parent_id": pa.string(), **found}


def cast(table: pa.Table, types: Layout) -> pa.Table:
    """The columns of `table` in this order and of these types, and then any others. An empty label or attribute is
    null. A column stays as it is if it holds something else, as a file that somebody resamples may."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = {}
    for name in [*(name for name in types if name in table.column_names), *table.column_names]:
        column = table[name]
        if name not in ("id", "parent_id", "text") and (
            pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        ):
            column = pc.if_else(pc.equal(column, ""), None, column)
        with contextlib.suppress(pa.ArrowInvalid):
            column = column.cast(types.get(name, column.type))
        found[name] = column
    return pa.table(found)
