"""JSON lines: a record a line, each judged by itself; and tables by tabs."""

import codecs
import gzip
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsda import csv_records, json_lines
from dpsda.data import Label, load
from dpsda.errors import InputError
from dpsda.runs import read_table
from tests.data.test_loading import STARS, spec, write

SECRET = "a private sentence"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def lines(path, rows) -> None:
    data = b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.mark.parametrize("name", ["t.jsonl", "t.ndjson", "t.JSONL", "t.jsonl.gz"])
def test_what_is_read(tmp_path, name):
    """Values as JSON writes them; what is no record, or has no text, is dropped by itself."""
    rows = [
        {"text": "a,\nb\u2028", "stars": 1, "more": [1, {}]},
        b"",  # nothing is no record
        b'{"text": "' + SECRET.encode(),
        {"stars": 2.0, "text": 'quo"te'},
        b'{"text": "\xff", "stars": 1}',
        b'{"text": "\\ud800", "stars": 1}',
        b'{"text": "nobody reads the rest", "stars": 3, "more": "\\ud800"}',
        b'["text"]',
        b'{"text": ' + b"[" * 100_000,
        {"text": None, "stars": 1},
        {"text": {"a": 1}, "stars": 1},
        {"text": "no stars"},
        {"text": "4", "stars": "3"},
        {"text": "é\x00", "stars": "2"},
    ]
    lines(tmp_path / name, rows)
    corpus = load(spec(tmp_path, labels=STARS), "train", file=tmp_path / name)
    assert [*corpus.texts] == [*("a,\nb\u2028", 'quo"te', "nobody reads the rest", "4", "é\x00")]
    assert corpus.cells.tolist() == [0, 1, 2, 2, 1]
    unread, empty = "not UTF-8, or no JSON", "no text"
    assert corpus.dropped.values.tolist() == [
        *([row, unread] for row in (1, 3, 4, 6, 7)),
        *([row, empty] for row in (8, 9)),
        [10, "stars is outside its domain"],
    ]


def test_a_filter_lets_in_what_is_no_record_and_goes_by_its_own_column(tmp_path):
    lines(tmp_path / "t.jsonl", [{"text": "a", "f": "yes"}, b"[", b'{"text": "\\ud800", "f": "no"}', {"f": "yes"}])
    corpus = load(spec(tmp_path, filter={"f": ("yes",)}), "train", file=tmp_path / "t.jsonl")
    assert [*corpus.texts] == ["a"]
    assert corpus.dropped.values.tolist() == [[1, "not UTF-8, or no JSON"], [3, "no text"]]


def test_a_mark_of_the_byte_order_and_keys_that_come_late(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(codecs.BOM_UTF8 + b'{"text":\r "a"}\r\n{"more": 1, "text": "b"}')
    assert [*load(spec(tmp_path), "train", file=path).texts] == ["a", "b"]
    assert json_lines.header(path) == ["text"] and json_lines.columns(path) == ["text", "more"]
    assert read_table(path).values.tolist() == [["a", ""], ["b", "1"]]


@given(st.lists(TEXTS, min_size=1, max_size=12), st.sampled_from([1, 17, 64, 1 << 20]))
@settings(max_examples=40, deadline=None)
def test_any_text_survives(tmp_path_factory, texts, block):
    path = tmp_path_factory.mktemp("json") / "t.jsonl"
    lines(path, [{"text": f"_{text}"} for text in texts])
    before, csv_records.BLOCK = csv_records.BLOCK, block
    try:
        assert [*load(spec(path.parent), "train", file=path).texts] == [f"_{text}" for text in texts]
        assert read_table(path)["text"].tolist() == [f"_{text}" for text in texts]
    finally:
        csv_records.BLOCK = before


def test_what_is_refused_quotes_nothing(tmp_path):
    for data, said in (
        (b"\n", "is empty"),
        (SECRET.encode(), "no record is left"),
    ):
        (tmp_path / "t.jsonl").write_bytes(data)
        with pytest.raises(InputError, match=said) as error:
            load(spec(tmp_path), "train", file=tmp_path / "t.jsonl")
        assert SECRET not in str(error.value)
        with pytest.raises(InputError, match="its first line is no JSON object") as error:
            json_lines.header(tmp_path / "t.jsonl")
        assert SECRET not in str(error.value)
    lines(tmp_path / "t.jsonl", [{"text": "fine"}, SECRET.encode()])
    with pytest.raises(InputError, match="a line is no JSON object") as error:
        read_table(tmp_path / "t.jsonl")
    assert SECRET not in str(error.value)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(b"{}" * 10_000)[:30])
    with pytest.raises(InputError, match="cannot be decompressed"):
        load(spec(tmp_path), "train", file=tmp_path / "t.jsonl.gz")


def test_a_file_of_a_million_bytes_is_read_in_bounded_time(tmp_path):
    """Two million rows in a minute are 30 us a row; a machine that is ten times as slow still passes."""
    lines(tmp_path / "t.jsonl", [{"text": f"text {i}", "stars": i % 3 + 1} for i in range(20_000)])
    before = time.process_time()
    assert load(spec(tmp_path, labels=STARS), "train", file=tmp_path / "t.jsonl").num_records == 20_000
    assert time.process_time() - before < 6


@pytest.mark.parametrize("name", ["t.tsv", "t.tab", "t.tsv.gz"])
def test_tabs_part_the_fields_of_a_tsv(tmp_path, name):
    rows = ["text\tstars", 'a, "b"\t1'.replace('"', ""), '"a\tb ""c""\nd"\t2', "\t3"]
    data = "\n".join(rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    corpus = load(spec(tmp_path, labels=STARS), "train", file=tmp_path / name)
    assert [*corpus.texts] == ["a, b", 'a\tb "c"\nd'] and corpus.dropped["reason"].tolist() == ["no text"]
    assert read_table(tmp_path / name).shape == (3, 2)
    (tmp_path / "t.tsv").write_text('text\tstars\na "b" c\t1\n')
    with pytest.raises(InputError, match="a quotation mark inside a field"):
        load(spec(tmp_path, labels=STARS), "train", file=tmp_path / "t.tsv")


def test_a_csv_is_still_parted_by_commas(tmp_path):
    write(tmp_path, [["a\tb", "1"]])
    assert [*load(spec(tmp_path, labels=STARS), "train").texts] == ["a\tb"]
    assert csv_records.suffix(tmp_path / "a.TSV.gz") == ".tsv" and csv_records.suffix(tmp_path / "a.gz") == ""


def test_semicolons_part_the_fields_where_the_header_has_no_comma(tmp_path):
    path = tmp_path / "x.csv"
    for content, texts in (
        ('text;stars\r\n"a; b";1\r\n"c, ""d""";2\r\n', ["a; b", 'c, "d"']),
        ("text,stars;\na;b,1\n", None),  # a comma is there, so it parts
        ("text,stars\na;b,1\n", ["a;b"]),
    ):
        path.write_text(content)
        named = STARS if texts else (Label("stars;", ("1", "2")),)
        assert [*load(spec(tmp_path, labels=named), "train", file=path).texts] == (texts or ["a;b"])
    path.write_text('text;stars\na "b" c;1\n')
    with pytest.raises(InputError, match="a quotation mark inside a field"):
        load(spec(tmp_path, labels=STARS), "train", file=path)


def test_json_is_read_a_record_a_line(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"text": "a", "stars": 1}\n{"text": "b", "stars": 2}\n')
    assert [*load(spec(tmp_path, labels=STARS), "train", file=path).texts] == ["a", "b"]
    path.write_text('[{"text": "a", "stars": 1},\n {"text": "b", "stars": 2}]')
    with pytest.raises(InputError, match=r"is one JSON list; write an object a line, as by: jq -c '\.\[\]' x.json"):
        load(spec(tmp_path, labels=STARS), "train", file=path)
