"""WikiText-103 and One Billion Word: what a record is, from text files, parquet files and the hub."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpsda.data import DatasetSpec, load
from dpsda.data.language_modelling import articles, main, sentences
from dpsda.errors import InputError

WIKI = """
 = Robert Boulter =

 Robert Boulter is an English actor .

 = = Career = =

 In 2000 he had a part . = Not = a heading .
 = 2 + 2 = 4 =
 went on .

 = = = Films = = =

 = 1984 =
 is a book , not the heading of an article .

 = Du Fu =

 Du Fu was a poet .
"""
FIRST = """= Robert Boulter =
Robert Boulter is an English actor .
= = Career = =
In 2000 he had a part . = Not = a heading .
= 2 + 2 = 4 =
went on .
= = = Films = = =
= 1984 =
is a book , not the heading of an article ."""
SECOND = "= Du Fu =\nDu Fu was a poet ."


def test_an_article_begins_at_a_heading_between_empty_lines():
    lines = WIKI.splitlines(keepends=True)
    assert list(articles(lines)) == [FIRST, SECOND]
    cut = list(articles(lines[2:]))
    assert cut == ["\n".join(FIRST.splitlines()[1:]), SECOND]  # what comes before the first heading is a record, too
    assert list(articles([*lines, "", " = End ="])) == [FIRST, f"{SECOND}\n= End ="]
    assert list(articles([])) == list(articles(["\n", " \n"])) == []


def test_a_sentence_is_a_line():
    assert list(sentences(["One .\n", " \n", "", " Two . \n"])) == ["One .", "Two ."]


def written(tmp_path, name, *words):
    main([name, *map(str, words), "--output", str(tmp_path / "out")])
    return [pq.read_table(tmp_path / "out" / f"{split}.parquet")["text"].to_pylist() for split in ("train", "test")]


def test_a_carriage_return_ends_no_line_and_bytes_that_are_not_utf8_stop_nothing(tmp_path):
    text, table = tmp_path / "train.txt", tmp_path / "test.PQ"
    text.write_bytes(b"One\rtwo .\r\ncaf\xe9 .\n")
    column = pa.array([b"One\rtwo .", b"caf\xe9 ."], pa.binary())
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 2, column.buffers())}), table)
    found = ["One\rtwo .", "caf\ufffd ."]
    assert written(tmp_path, "one_billion_word", "--train", text, "--test", table) == [found, found]


def test_from_local_copies_into_a_data_set(tmp_path, capsys):
    text, table = tmp_path / "wiki.train.raw", tmp_path / "wiki.test.parquet"
    text.write_text(WIKI)
    pq.write_table(pa.table({"text": [None, *WIKI.splitlines(keepends=True)]}), table)
    assert written(tmp_path, "wikitext", "--train", text, text, "--test", table) == [
        [FIRST, SECOND] * 2,
        [FIRST, SECOND],
    ]
    assert "4 records" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["test.parquet", "train.parquet"]

    spec = DatasetSpec.read("wikitext")
    corpus = load(spec, "train", file=tmp_path / "out" / "train.parquet")
    assert corpus.num_records == 4 and corpus.texts[1] == SECOND


def test_from_the_hub(tmp_path, monkeypatch):
    import datasets

    asked = []

    def load_dataset(*names, split, streaming):
        asked.append((*names, split))
        return iter([{"text": f"A {split} sentence ."}, {"text": ""}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert written(tmp_path, "one_billion_word") == [["A train sentence ."], ["A test sentence ."]]
    assert asked == [("dvruette/lm1b", "train"), ("dvruette/lm1b", "test")]

    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(InputError, match=r"wikitext from the hub \(no network\); give --train and --test"):
        written(tmp_path, "wikitext")


@pytest.mark.parametrize(
    ("content", "match"), [(None, "there is no such file"), ("other", "no column 'text'"), ("empty", "no record")]
)
def test_bad_copies_leave_nothing(tmp_path, content, match):
    path = tmp_path / "copy.parquet"
    if content:
        pq.write_table(pa.table({"other": ["x"]} if content == "other" else {"text": [" "]}), path)
    with pytest.raises(InputError, match=match):
        written(tmp_path, "wikitext", "--train", path, "--test", path)
    assert not list((tmp_path / "out").glob("*"))


def test_a_damaged_parquet_file_is_named(tmp_path):
    path = tmp_path / "copy.parquet"
    path.write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match="not a parquet file"):
        written(tmp_path, "wikitext", "--train", path, "--test", path)
