"""`attributes:` of spec.yaml: what is read, what each record's value is, and one line for everything that is wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml

from dpsda import start
from dpsda.data import DatasetSpec, load
from dpsda.data.attributes import MISSING, UNKNOWN, Attribute
from dpsda.errors import InputError

ATTRIBUTES = [
    {"column": "product", "domain": ["notes", "mail", "other"]},
    {"column": "plan", "domain": ["free", "paid"]},
    {"column": "price", "edges": [0, 10, 100]},
    {"column": "opened", "edges": ["2024-01-01", "2024-07-01", "2025-01-01"], "write": "middle"},
    {"name": "length", "words": [3, 6]},
    {"name": "link", "pattern": "https?://"},
    {"name": "mood", "describe": {"good": "all is well", "bad": "all is lost"}},
]
ROWS = [
    ("One two", "notes", "free", "0", "2024-01-01"),
    ("One two three", " mail ", "paid", "9.99", "2024-06-30T23:59"),
    ("One two three four", "calendar", "trial", "10", "2024-07-01"),
    ("See http://x for all of it", "", "", "", ""),
    ("One two three four five six", "OTHER", "paid ", "-5", "1999-01-01"),
    ("One", "notes", "free", "1e9", "2099-01-01"),
    ("One", "notes", "free", "nan", "yesterday"),
    ("One", "notes", "free", "1_0", "2024-13-01"),
]


def folder(tmp_path, attributes, rows=ROWS, **top):
    (tmp_path / "desk").mkdir(exist_ok=True)
    spec = {"text": "body", "attributes": attributes, "splits": {"train": "x.csv"}, **top}
    (tmp_path / "desk" / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    names = ["body", "product", "plan", "price", "opened"]
    pd.DataFrame(rows, columns=names).to_csv(tmp_path / "desk" / "x.csv", index=False, quoting=1)
    return tmp_path / "desk"


def test_every_record_has_a_value_of_its_own(tmp_path):
    spec = DatasetSpec.read(folder(tmp_path, ATTRIBUTES))
    corpus = load(spec, "train", attributes=True)
    named = {a.name: a for a in spec.attributes}
    assert spec.columns == ["body"] and load(spec, "train").columns == {}  # other stages read no attribute
    values = {
        name: [named[name].values[code] for code in codes] for name, codes in corpus.columns.items()
    }  # nothing is left out
    assert values["product"] == ["notes", "mail", "other", MISSING, "other", "notes", "notes", "notes"]
    assert values["plan"] == ["free", "paid", MISSING, MISSING, "paid", "free", "free", "free"]
    low, high = "0 to 10", "10 to 100"
    assert values["price"] == [low, low, high, MISSING, low, high, MISSING, MISSING]
    early, late = "2024-01-01 to 2024-07-01", "2024-07-01 to 2025-01-01"
    assert values["opened"] == [early, early, late, MISSING, early, late, MISSING, MISSING]
    assert [named["length"].values[c] for c in named["length"].read(corpus.texts)][:5] == [
        "fewer than 3 words",
        "3 to 5 words",
        "3 to 5 words",
        "6 words or more",
        "6 words or more",
    ]
    assert named["link"].read(corpus.texts).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert named["plan"].shown(2) == UNKNOWN and named["plan"].shown(0) == "free"


def test_what_is_released_lies_in_its_bin(tmp_path):
    spec = DatasetSpec.read(folder(tmp_path, ATTRIBUTES))
    price, opened, plan = (next(a for a in spec.attributes if a.name == n) for n in ("price", "opened", "plan"))
    codes = np.array([0, 1, 2] * 50, np.int32)
    written = price.written(codes, np.random.default_rng(0))
    assert all(isinstance(v, int) and 0 <= v < 10 for v in written[0::3]) and len(set(written[0::3])) > 5
    assert all(10 <= v < 100 for v in written[1::3]) and set(written[2::3]) == {None}
    assert opened.written(codes[:3], np.random.default_rng(0)) == ["2024-04-01", "2024-10-01", None]
    fine = Attribute("x", "edges", ("a", "b", ""), edges=(12345.62, 12345.64, 1e6))
    assert all(12345.62 <= v < 12345.64 for v in fine.written(np.zeros(500, np.int32), np.random.default_rng(0)))
    assert plan.written(codes[:3], np.random.default_rng(0)) == ["free", "paid", None]


def test_the_columns_have_a_fingerprint_of_their_own(tmp_path):
    def of(rows):
        corpus = load(DatasetSpec.read(folder(tmp_path, ATTRIBUTES, rows)), "train", attributes=True)
        return corpus.fingerprint(b"key"), corpus.fingerprint_of_columns(b"key")

    before, after = of(ROWS), of([(*ROWS[0][:2], "paid", *ROWS[0][3:]), *ROWS[1:]])
    assert before[0] == after[0] and before[1] != after[1]


def test_a_value_that_is_not_utf8_is_one_that_nobody_knows(tmp_path):
    path = folder(tmp_path, ATTRIBUTES) / "x.csv"
    path.write_bytes(path.read_bytes().replace(b'"notes","free","0"', b'"n\xe9tes","fr\xe9","0"'))
    corpus = load(DatasetSpec.read(path.parent), "train", attributes=True)
    assert len(corpus.texts) == len(ROWS) and corpus.columns["product"][0] == 2 and corpus.columns["plan"][0] == 2


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ([{"column": "plan", "domain": ["free"]}], r"attributes\[0\].domain: has one value, which tells nothing"),
        ([{"column": "plan", "domain": ["a", "a "]}], "names one value twice"),
        ([{"column": "plan", "domain": ["a", ""]}], "has an empty value; a column has one for missing anyway"),
        ([{"column": "price", "edges": [0, 5, 1e20]}], "are all numbers, up to 9.0072e"),
        ([{"column": "price", "edges": [0, 10, 5]}], r"attributes\[0\].edges: are three or more that rise"),
        ([{"column": "price", "edges": [0, 10]}], "are three or more that rise"),
        ([{"column": "price", "edges": [0, 10, ".inf"]}], "are all numbers, up to 9.*, or all dates"),
        ([{"column": "price", "edges": [0, "2024-01-01", 5]}], "are all numbers, up to 9.*, or all dates"),
        ([{"column": "price", "edges": [0, 5, 9], "write": "low"}], "write: uniform"),
        ([{"column": "price", "edges": [0, 5, 9], "decimals": 2.5}], "go with `decimals:` from 0 to 9"),
        ([{"column": "price", "edges": [1.2, 1.8, 9], "decimals": 0}], "from 1.2 to 1.8 there is no number with 0 dec"),
        (
            [{"column": "opened", "edges": ["2024-01-01", "2024-02-01", "2024-03-01"], "decimals": 1}],
            "if they are numbers",
        ),
        ([{"column": "kind", "domain": ["a", "b"]}], r"'kind' has two roles \(text, label, attribute, user\)"),
        ([{"column": "body", "domain": ["a", "b"]}], "'body' has two roles"),
        ([{"name": "text", "words": [3]}], "has a column 'text' of its own"),
        (
            [{"name": "m", "domain": ["a", "b"], "describe": {"a": "x", "c": "y"}}],
            r"describe: 'c' is not in the domain",
        ),
        ([{"name": "m", "domain": ["a", "b"], "describe": {"a": "x"}}], "says nothing of 'b'"),
        ([{"name": "m", "describe": {"a": "x"}}], "has one value"),
        ([{"name": "m", "words": [5, 5]}], "are whole numbers that rise"),
        ([{"name": "m", "pattern": "("}], "is no regular expression"),
        ([{"name": "m"}], "what has a `name` has one of `describe`, `words`, `pattern` as well"),
        ([{"column": "m", "words": [3]}], "what has a `column` has one of `domain`, `edges` as well"),
        ([{"column": "m", "domain": ["a", "b"], "words": [3]}], "`words` does not go with `column` and `domain`"),
        ([{"domain": ["a", "b"]}], "has a `column` of the file, or a `name`"),
        ([{"column": "m", "name": "m", "domain": ["a", "b"]}], "and not both"),
        ([{"colum": "m"}], "unknown key 'colum'; the nearest known key is 'column'"),
        ("plan", "attributes: is not a list"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, attributes, said):
    labels = [{"column": "kind", "domain": ["bug", "praise"]}]
    with pytest.raises(InputError, match=said) as error:
        DatasetSpec.read(folder(tmp_path, attributes, labels=labels))
    assert "\n" not in str(error.value) and "spec.yaml" in str(error.value)


def test_values_that_count_as_missing_are_told(tmp_path, capsys):
    """Which they are lies in private/, and only that there are many is printed; not of records that are left out."""
    rows = [("One", "notes", "free", "5 EUR", "2024-02-01"), ("", "notes", "gold", "6 EUR", ""), *ROWS[:2]]
    spec = DatasetSpec.read(folder(tmp_path, ATTRIBUTES[1:4], rows))
    corpus = load(spec, "train", attributes=True)
    assert corpus.missing.to_dict("list") == {"row": [0], "attribute": ["price"]}
    assert corpus.missing_share("price") == pytest.approx(1 / 3) and corpus.missing_share("plan") == 0
    start.tell_lost(corpus)
    told = capsys.readouterr().out.splitlines()
    assert "many records are left out" in told[0] and "private/dropped.csv" in told[0]
    assert "many values of price are none that spec.yaml knows" in told[1] and "private/missing.csv" in told[1]
    assert "EUR" not in str(told) and not len(load(spec, "train").missing)


def test_numbers_have_the_decimals_that_are_asked_for(tmp_path):
    given = [{"column": "price", "edges": [0, 10, 100], "decimals": 2}]
    [price] = DatasetSpec.read(folder(tmp_path, given)).attributes
    written = price.written(np.repeat([0, 1], 2000).astype(np.int32), np.random.default_rng(0))
    assert not price.whole and all(value == round(value, 2) for value in written)
    assert all(0 <= value < 10 for value in written[:2000]) and all(10 <= value < 100 for value in written[2000:])
    assert sum(value != round(value, 1) for value in written) > 3000
    [whole] = DatasetSpec.read(folder(tmp_path, [{**given[0], "decimals": 0}])).attributes
    assert whole.whole and all(
        isinstance(value, int) for value in whole.written(np.zeros(9, int), np.random.default_rng(0))
    )
    short = Attribute("x", "edges", ("a", "b", ""), edges=(0.0, 1.0, 2.0), decimals=1)
    assert max(short.written(np.zeros(999, np.int32), np.random.default_rng(0))) == 0.9  # and not 1.0, of the next bin
