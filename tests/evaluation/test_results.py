"""Rows are kept as they come, and a line that a kill cut short is no row."""

import pandas as pd

from dpsda.evaluation.results import Results, digest, key


def test_rows_survive_and_a_torn_line_does_not(tmp_path):
    table = Results(tmp_path / "private" / "table")
    table.add("a", {"set": "0", "fid": 0.5, "why": ""})
    table.add("b", {"set": "1", "fid": None, "why": "no texts"})
    file = tmp_path / "private" / "table.jsonl"
    file.write_bytes(file.read_bytes()[:-9])  # killed while it wrote
    again = Results(tmp_path / "private" / "table")
    assert again.get("a") == {"set": "0", "fid": 0.5, "why": ""} and again.get("b") is None
    again.add("b", {"set": "1", "fid": None, "why": "no texts"})
    last = Results(tmp_path / "private" / "table")
    last.write([last.get("a"), last.get("b")])
    shown = pd.read_csv(last.csv, dtype=str, keep_default_na=False)
    assert shown.to_dict("records") == [
        {"set": "0", "fid": "0.50000", "why": ""},
        {"set": "1", "fid": "n/a", "why": "no texts"},
    ]


def test_a_key_is_of_settings_and_texts():
    assert key({"a": 1, "b": 2}, "x") == key({"b": 2, "a": 1}, "x") != key({"a": 1, "b": 3}, "x")
    assert digest(["ab", "c"]) != digest(["a", "bc"]) != digest(["a"], ["bc"])
    assert digest(iter(["ab", "c"]), ["x", "y"]) == digest(["ab", "c"], ["x", "y"])
