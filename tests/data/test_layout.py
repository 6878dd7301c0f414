"""A release has the columns of the private file again, in its order."""

from __future__ import annotations

import datetime as dt

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


def test_the_order_is_the_file_s_and_the_types_are_the_spec_s(spec, tmp_path):
    fields = {"paid": [1], "new": [True], "other": ["never read"], "body": ["a"], "weight": [0.1], "opened": ["b"]}
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({**fields, "stars": [1]}), path)
    table = released(spec, path)
    types = dict(zip(table.column_names, table.schema.types, strict=True))
    assert list(types) == ["id", "parent_id", "paid", "new", "text", "weight", "opened", "stars", "length"]
    assert (types["paid"], types["weight"], types["opened"]) == (pa.int64(), pa.float64(), pa.date32())
    assert types["stars"] == types["new"] == types["length"] == types["text"] == pa.string()
    rows = table.to_pylist()
    assert [row["text"] for row in rows] == ["x", "", "z"] and rows[0]["parent_id"] == ""
    assert rows[0]["new"] == "false" and rows[0]["opened"] < dt.date(2024, 7, 1)
    assert {rows[2][name] for name in ("paid", "new", "weight", "opened")} == {None}


def test_one_record_without_a_value_changes_no_type(spec, tmp_path):
    """pandas writes a column of integers as floats once one value is missing: its type would tell that."""
    frame = pd.DataFrame(
        {"body": ["a", "b"], "stars": [1, 2], "paid": [3, 4], "weight": 0.1, "opened": "", "new": "true"}
    )
    found = []
    for paid in ([3, 4], [3, None]):
        frame.assign(paid=paid).to_parquet(tmp_path / "train.parquet")
        found.append(layout(spec, tmp_path / "train.parquet"))
    assert found[0] == found[1]


def test_of_json_lines_no_record_decides_the_order(spec, tmp_path):
    path, found = tmp_path / "train.jsonl", []
    for first in ('{"weight": 1, "body": "a"}', '{"body": "a"}', "no object"):
        path.write_text(f'{first}\n{{"body": "b", "paid": 1}}\n')
        found.append(layout(spec, path))
    assert found[0] == found[1] == found[2]
    assert list(found[0]) == ["id", "parent_id", "text", "stars", "opened", "paid", "weight", "new", "length"]


def test_texts_that_came_from_elsewhere_keep_what_they_hold(spec, tmp_path):
    (tmp_path / "train.csv").write_text("paid,stars,body\n")
    given = pa.table({"id": ["a"], "text": ["x"], "stars": ["?"], "paid": ["many"], "more": ["1"], "weight": [""]})
    found = cast(given, layout(spec, tmp_path / "train.csv")).to_pylist()
    assert found == [{"id": "a", "paid": "many", "stars": "?", "text": "x", "weight": None, "more": "1"}]
