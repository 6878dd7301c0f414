"""Where a record of a csv file ends: as every reader has it, or the file is refused. And tables that a user gives."""

import bz2
import csv
import gzip
import io

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsda import csv_records
from dpsda.csv_records import tables, texts
from dpsda.errors import InputError
from dpsda.runs import read_table

RETURN = "a carriage return outside quotes"


def read(path):
    return [row["text"] for table in tables(path, lambda there: ["text"]) for row in texts(table)[0].to_pylist()]


@pytest.fixture
def write(tmp_path):
    def write(content, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


BLOCKS = [1, 2, 3, 5, 8, 1 << 20]


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("text\nfour\rfour\nx\n", None),  # what pandas writes of a text with a carriage return
        ("text\r\nfour\rfour\r\nx\r\n", None),
        ("text\rfour\rx\r", None),  # line ends of an old Mac
        ("text\rfour", None),
        ('text\r"four"\r"x"\r', None),
        ('text\n"a ""quoted"" one"\n"b"\r"c"\n', None),
        ("text\nfour\r\r\nx\n", None),
        ("text\n\rfour\n", None),
        ('text\n"four\rfour"\nx\n', ["four\rfour", "x"]),
        ('text\r\n"four\r\nfour"\r\nx\r\n', ["four\r\nfour", "x"]),
        ('text\n"\r"\n"\r\r\n\r"\nx', ["\r", "\r\r\n\r", "x"]),
        ('text\n"a ""\r"" b"\nx\n', ['a "\r" b', "x"]),
        ("text\r\nfour\r\nx\r", ["four", "x"]),  # at the end of the file it divides nothing
        ("text\nx", ["x"]),
        ('text\n"x"', ["x"]),
        ('\ufeff"text"\n"x"\n', ["x"]),  # after a byte order mark, too
        ("\ufeff\r\n\ntext\nx\n", ["x"]),
        ("text\n", []),
    ],
)
def test_where_records_end(write, monkeypatch, block, content, found):
    monkeypatch.setattr(csv_records, "BLOCK", block)
    if found is None:
        with pytest.raises(InputError, match=RETURN) as error:
            read(write(content))
        assert "pandas: to_csv with quoting=1" in str(error.value) and "\n" not in str(error.value)
    else:
        assert read(write(content)) == found


def test_a_file_of_one_line_is_not_read_to_its_end(write, monkeypatch):
    """Line ends of an old Mac show in the first piece; so does a record that goes on and on, at a bound."""
    monkeypatch.setattr(csv_records, "BLOCK", 16)
    monkeypatch.setattr(csv_records, "LONGEST", 64)
    with pytest.raises(InputError, match=RETURN):
        read(write(b"text\rfour\r" + b"x" * 1000))
    with pytest.raises(InputError, match=r"a record of more than .* GiB, or quotes that are never closed"):
        read(write(b'text\n"' + b"x\n" * 1000))
    assert read(write(b'text\n"' + b"x\n" * 30 + b'"\ny\n')) == ["x\n" * 30, "y"]


@given(st.text('ab,"""\r\n\r\n', max_size=24), st.sampled_from(BLOCKS))
@settings(max_examples=400, deadline=None)
def test_what_is_accepted_is_what_every_reader_reads(tmp_path_factory, content, block):
    """A reader that ends a record at every carriage return (Python's, pandas') has the same records as ours."""
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes(f"text\n{content}".encode())
    before, csv_records.BLOCK = csv_records.BLOCK, block
    try:
        found = read(path)
    except InputError:
        return
    finally:
        csv_records.BLOCK = before
    python = [row[0] for row in csv.reader(io.StringIO(f"text\n{content}", newline="")) if row][1:]
    assert found == python
    if found:
        pandas = pd.read_csv(path, dtype=str, keep_default_na=False)
        assert found == pandas["text"].tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,b\nx,1\n".encode("utf-16"), "is UTF-16, or no text at all; save it as csv in UTF-8"),
        ("text,b\r\nx,1\r\n".encode("utf-16-le"), "is UTF-16, or no text at all"),
        ("text,b\r\nx,1\r\n".encode("utf-16-be"), "is UTF-16, or no text at all"),
        ("text,naïve\nx,1\n".encode("latin-1"), "the header is not UTF-8; save the file in UTF-8"),
        (b'"text\nna\xefve",b\nx,1\n', "the header is not UTF-8"),
        (b"", "the file is empty, without even a header"),
        (b"\n\r\n\n", "the file is empty, without even a header"),
        (b"\xef\xbb\xbf", "the file is empty, without even a header"),
    ],
)
def test_a_file_that_is_no_csv_in_utf8(write, content, message):
    path = write(content)
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert "\n" not in str(error.value) and "\ufffd" not in str(error.value)


def test_bytes_that_are_not_utf8_are_told_value_by_value():
    """A lone surrogate, an overlong form and a cut-off letter; of any type that can hold them."""
    good, bad = ["plain", "é", "\ufffd", "", None], [b"\xed\xa0\x80", b"\xc0\xaf", b"caf\xc3", b"\xff\xfe"]
    values = [None if value is None else value.encode() for value in good] + bad
    for kind in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int32(), pa.binary())):
        table, broken = texts(pa.table({"t": pa.array(values, pa.binary()).cast(kind), "n": range(9)}))
        assert table["t"].to_pylist()[:5] == good and all("\ufffd" in text for text in table["t"].to_pylist()[5:])
        assert list(broken) == ["t"] and broken["t"].tolist() == [False] * 5 + [True] * 4
        assert table["n"].to_pylist()[0] == "0" and set(table.schema.types) == {pa.large_string()}
    assert texts(pa.table({"t": good}))[1] == {}


def test_names_that_tell_the_kind_of_a_file(write, tmp_path):
    for name in ("t.parquet", "t.PARQUET", "t.pq", "t.Pq"):
        pq.write_table(pa.table({"text": [name]}), tmp_path / name)
        assert read_table(tmp_path / name)["text"].tolist() == [name]
    for name, pack in (("t.CSV", bytes), ("t.csv.GZ", gzip.compress), ("t.csv.Bz2", bz2.compress), ("t.txt", bytes)):
        assert read_table(write(pack(b"text\nx\n"), name))["text"].tolist() == ["x"]
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in ("c.PQ", "a.parquet", "b.pq"):
        pq.write_table(pa.table({"text": [name]}), folder / name)
    (folder / "notes.csv").write_text("text\nnone of these\n")
    assert read_table(folder)["text"].tolist() == ["a.parquet", "b.pq", "c.PQ"]


def test_a_table_as_strings(write, tmp_path):
    frame = read_table(write('id,text,n,\n007,"a\r\nb",5.0,\n,NA,,x\n'))
    assert frame.to_dict("list") == {"id": ["007", ""], "text": ["a\r\nb", "NA"], "n": ["5.0", ""]}
    assert read_table(write("a,b\n")).columns.tolist() == ["a", "b"]
    assert read_table(write("a,b,c\n1,2,3\n"), lambda there: [there[2], there[0]]).columns.tolist() == ["c", "a"]
    pq.write_table(pa.table({"b": [1, None], "text": ["x", None]}), tmp_path / "t.pq")
    assert read_table(tmp_path / "t.pq", lambda there: ["text"]).to_dict("list") == {"text": ["x", ""]}


SECRET = "5ecre7"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"text\nfour\r{SECRET}\n", RETURN),
        (f"text,text\n{SECRET},a\n", "has more than one column 'text' in its header; rename all but one"),
        (f"text,b\n{SECRET}\n", "more or fewer fields"),
        (f"text,b\n{SECRET},1,2\n", "more or fewer fields"),
        (f'text\n5" {SECRET} 6"\n', "inside a field that is not quoted"),
        (f'text\n"{SECRET}\n', "never closed"),
        (f"text\n{SECRET}\udcff\n", "cannot be read as a table: 'text' is not UTF-8; save it in UTF-8"),
        ("", "is empty"),
    ],
)
def test_a_table_that_cannot_be_read(write, content, message):
    path = write(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as error:
        read_table(path)
    assert SECRET not in str(error.value) and "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_parquet_table_that_cannot_be_read(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), path)
    with pytest.raises(InputError, match="has more than one column 'text'"):
        read_table(path)
    pq.write_table(pa.table({"text": not_utf8([SECRET.encode() + b"\xff", b"good"])}), path)
    with pytest.raises(InputError, match="'text' is not UTF-8") as error:
        read_table(path)
    assert SECRET not in str(error.value)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match="cannot be read as a table"):
        read_table(path)


def not_utf8(values):
    """A column of strings that was written without a look at its bytes, as other libraries do."""
    column = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(column), column.buffers())
