"""A release has the columns of the private file again: their order and their types."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from dpsda.data import DatasetSpec
from dpsda.data.attributes import write_columns
from dpsda.data.layout import cast, layout

SPEC = {
    "text": "body",
    "labels": [{"column": "stars", "domain": [1, 2, 3]}],
    "attributes": [
        {"column": "opened", "edges": ["2024-01-01", "2024-07-01", "2025-01-01"]},
        {"column": "paid", "edges": [0, 10, 100]},
        {"column": "weight", "edges": [0, 0.5, 2]},
        {"column": "new", "domain": ["true", "false"]},
        {"name": "length", "words": [5]},
    ],
    "splits": {"train": "train.csv"},
}
CODES = np.array([[0, 1, 0, 1, 0], [1, 0, 1, 0, 1], [2, 2, 2, 2, 0]])  # of the last, all but the length is missing


@pytest.fixture
def spec(tmp_path) -> DatasetSpec:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    return DatasetSpec.read(tmp_path)


def released(spec: DatasetSpec, path) -> pa.Table:
    frame = pd.DataFrame({"id": ["a", "b", "c"], "parent_id": "", "text": ["x", "", "z"], "stars": ["1", "3", "2"]})
    frame = write_columns(frame, CODES, spec.attributes, np.random.default_rng(0))
    return cast(pa.Table.from_pandas(frame, preserve_index=False), layout(spec, path))


def test_a_parquet_file_s_order_and_types(spec, tmp_path):
    day, kinds = dt.date(2024, 5, 1), {"stars": pa.int8(), "paid": pa.int32(), "weight": pa.float32()}
    fields = {"paid": [1], "new": [True], "other": ["never read"], "body": ["a"], "weight": [0.1], "opened": [day]}
    arrays = {name: pa.array(values, kinds.get(name)) for name, values in {**fields, "stars": [1]}.items()}
    pq.write_table(pa.table(arrays), tmp_path / "train.parquet")
    table = released(spec, tmp_path / "train.parquet")
    types = dict(zip(table.column_names, table.schema.types, strict=True))
    assert list(types) == ["id", "parent_id", "paid", "new", "text", "weight", "opened", "stars", "length"]
    assert (types["stars"], types["paid"], types["weight"]) == (pa.int8(), pa.int32(), pa.float32())
    assert (types["new"], types["opened"], types["length"]) == (pa.bool_(), pa.date32(), pa.string())
    rows = table.to_pylist()
    assert [row["text"] for row in rows] == ["x", "", "z"] and rows[0]["parent_id"] == ""
    assert rows[0]["new"] is False and rows[0]["stars"] == 1 and rows[0]["opened"] < dt.date(2024, 7, 1)
    assert {rows[2][name] for name in ("paid", "new", "weight", "opened")} == {None}


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_file_without_types_has_numbers_where_there_are_bins(spec, tmp_path, form):
    columns = ["weight", "stars", "body", "paid", "opened", "new"]
    path = tmp_path / f"train.{form}"
    path.write_text(",".join(columns) + "\n" if form == "csv" else json.dumps(dict.fromkeys(columns, "")) + "\n")
    table = released(spec, path)
    types = dict(zip(table.column_names, table.schema.types, strict=True))
    assert list(types) == ["id", "parent_id", "weight", "stars", "text", "paid", "opened", "new", "length"]
    assert (types["paid"], types["weight"], types["stars"]) == (pa.int64(), pa.float64(), pa.string())
    assert types["opened"] == types["new"] == pa.string()


def test_a_type_that_not_all_values_have_is_not_taken(spec, tmp_path):
    """A domain with a word in it, bins of numbers that are not whole, and texts that came from elsewhere."""
    content = SPEC | {"labels": [{"column": "stars", "domain": [1, "none"]}]}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(content))
    names = ["body", "stars", "paid", "weight", "opened", "new"]
    whole = {name: pa.array(["a"] if name == "body" else [1], None if name == "body" else pa.int8()) for name in names}
    pq.write_table(pa.table(whole), tmp_path / "train.parquet")
    types = layout(DatasetSpec.read(tmp_path), tmp_path / "train.parquet")
    assert (types["stars"], types["weight"], types["paid"]) == (pa.string(), pa.float64(), pa.int8())
    assert types["opened"] == types["new"] == pa.string()
    given = pa.table({"id": ["a"], "text": ["x"], "stars": ["?"], "paid": ["many"], "more": ["1"]})
    assert cast(given, types).to_pylist() == [{"id": "a", "text": "x", "stars": "?", "paid": "many", "more": "1"}]
