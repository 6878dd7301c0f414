"""Rows against rows, and texts against their rows, on counts that are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from dpsda.data import DatasetSpec, load
from dpsda.evaluation.rows import compare

SPEC = {
    "text": "body",
    "attributes": [
        {"column": "plan", "domain": ["free", "paid"]},
        {"column": "price", "edges": [0, 10, 20]},
        {"name": "link", "pattern": "http"},
        {"name": "mood", "describe": {"good": "good", "bad": "bad"}},
    ],
    "splits": {"train": "x.csv"},
}


class Words:
    """A vector of a text by the words good and bad in it."""

    def embed(self, texts, *, private, desc=""):
        return np.array([["good" in text, "bad" in text, 0.1] for text in texts], np.float32)


@pytest.fixture
def corpus(tmp_path):
    """100 records: paid ones cost 15 and are good; every fourth is free, costs 5, is bad and has a link."""
    rows = [("bad http://x", "free", 5) if i % 4 == 0 else (f"good {i}", "paid", 15) for i in range(100)]
    pd.DataFrame(rows, columns=["body", "plan", "price"]).to_csv(tmp_path / "x.csv", index=False)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    return load(DatasetSpec.read(tmp_path), "train", attributes=True)


def figures(corpus, tmp_path, rows):
    names = ["text", "plan", "price", "link", "mood"]
    pd.DataFrame(rows, columns=names[: len(rows[0])]).to_csv(tmp_path / "samples.csv", index=False)
    found = compare(corpus, {"1": tmp_path / "samples.csv"}, Words(), public=True, protected=True, runs=3, seed=0)
    assert [row["set"] for row in found] == ["floor", "1"] and [*found[0]] == [*found[1]]
    return found


def test_real_rows_and_texts_are_at_no_distance(corpus, tmp_path):
    same = [("bad http://x", "free", "0 to 10", "yes", "bad")] * 10 + [("good", "paid", "10 to 20", "no", "good")] * 30
    floor, found = figures(corpus, tmp_path, same)
    assert found["texts"] == 40 and found["agreement"] == found["agreement_mood"] == floor["agreement"] == 1
    assert found["rows_1"] == found["rows_2"] == found["said_1"] == found["said_2"] == 0
    assert 0 < floor["rows_1"] <= floor["rows_2"] < 0.2


def test_rows_that_do_not_fit_and_texts_that_say_something_else(corpus, tmp_path):
    """Numbers as a release has them; all free, though a quarter is; half of the texts are not what their rows say."""
    rows = [("good", "free", 3, "no", ["good", "bad"][i % 2]) for i in range(40)]
    _, found = figures(corpus, tmp_path, rows)
    assert found["agreement"] == 0.75 and found["agreement_link"] == 1 and found["agreement_mood"] == 0.5
    assert found["rows_1"] == pytest.approx(np.mean([0.75, 0.75, 0.25, 0.25]))  # plan, price, link, mood: |.5 - .25|
    assert found["said_1"] == pytest.approx(0.25) and found["rows_2"] > found["rows_1"]


def test_a_set_without_rows_is_read_all_the_same(corpus, tmp_path):
    _, found = figures(corpus, tmp_path, [("good",)] * 40)
    assert found["said_1"] == pytest.approx(0.25) and found["rows_1"] is found["agreement"] is None


def test_an_empty_set_has_no_table(corpus, tmp_path):
    (tmp_path / "samples.csv").write_text("text,plan,price,link,mood\n")
    files = {"1": tmp_path / "samples.csv"}
    assert compare(corpus, files, Words(), public=True, protected=True, runs=1, seed=0) == []


def test_no_attributes_no_table(tmp_path):
    pd.DataFrame({"body": ["a", "b"]}).to_csv(tmp_path / "x.csv", index=False)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**SPEC, "attributes": []}))
    corpus = load(DatasetSpec.read(tmp_path), "train")
    assert compare(corpus, {}, Words(), public=True, protected=True, runs=1, seed=0) == []
