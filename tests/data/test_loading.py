"""Loading: the records of a file, one by one, and nothing private in a message."""

import bz2
import csv
import gzip
import io
import random
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsda import csv_records
from dpsda.audit import canaries
from dpsda.data import DatasetSpec, Label, Split, load, loading
from dpsda.data.loading import load_columns, normalised, record_hash, rows, taken, user_hash
from dpsda.data.spec import normalise
from dpsda.errors import InputError
from dpsda.options import DataOptions


def spec(folder, **fields):
    return DatasetSpec(**{"name": "t", "folder": folder, "text": "text", "splits": {"train": Split("t.csv")}} | fields)


def write(folder, rows, header=("text", "stars"), name="t.csv", newline="\r\n"):
    out = io.StringIO()
    csv.writer(out, lineterminator=newline).writerows([header, *rows])
    (folder / name).write_bytes(out.getvalue().encode("utf-8"))


STARS = (Label("stars", ("1", "2", "3")),)


def test_rotten_tomatoes():
    """The shipped data set: the figures of the file are public, and no text is in both splits."""
    data = DatasetSpec.read("rotten_tomatoes")
    train, test = load(data, "train"), load(data, "test")
    assert train.num_records + test.num_records == 12_808 and 1_800 < test.num_records < 2_200
    assert not set(train.texts) & set(test.texts)
    assert len(train.dropped) == 0 and train.users is None and train.num_users is None
    assert train.cells.dtype == np.int32 and np.bincount(train.cells).tolist()[0] > train.num_records / 2
    assert data.cells == [("fresh",), ("rotten",)]


fields = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(
    st.lists(st.tuples(st.one_of(fields, st.text('",\n\r a', max_size=12)), fields), min_size=1, max_size=15),
    st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]),
    st.sampled_from([1, 17, 64, 1 << 20]),
)
@settings(max_examples=60, deadline=None)
def test_any_text_survives_a_csv(tmp_path_factory, rows, style, block):
    """Quoted newlines, commas, doubled quotes, blanks, Unicode: what a CSV library wrote is what is read, however the
    file is cut in blocks (Arrow's own blocks lose bytes of a quoted CRLF)."""
    folder = tmp_path_factory.mktemp("csv")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=style[0], quoting=style[1])
    writer.writerows([("other", "text"), *[(b, a) for a, b in rows]])
    (folder / "t.csv").write_bytes(out.getvalue().encode("utf-8"))
    expected = [text for text, _ in rows if text.strip()]
    before, csv_records.BLOCK = csv_records.BLOCK, block
    try:
        if expected:
            assert list(load(spec(folder), "train").texts) == expected
        else:
            with pytest.raises(InputError, match="no record is left"):
                load(spec(folder), "train")
    finally:
        csv_records.BLOCK = before


def test_bad_rows_are_dropped_one_by_one(tmp_path):
    rows = [("a", 1), ("", 1), ("  \n\t", 2), ("b", 4), ("c", "3.0"), ("d", ""), ("None", " 2"), ("", 9), ("NaN", "2")]
    write(tmp_path, rows)
    corpus = load(spec(tmp_path, labels=STARS), "train")
    assert list(corpus.texts) == ["a", "c", "None", "NaN"]
    assert corpus.cells.tolist() == [0, 2, 1, 1]
    assert corpus.dropped["row"].tolist() == [1, 2, 3, 5, 7]
    outside = "stars is outside its domain"
    assert corpus.dropped["reason"].tolist() == ["no text", "no text", outside, outside, "no text"]


def test_joint_cells_follow_the_spec(tmp_path):
    labels = (Label("a", ("x", "y")), Label("b", ("1", "2", "3")), Label("c", ("u", "v")))
    data = spec(tmp_path, labels=labels)
    rows = [(f"text {i}", *random.Random(i).choice(data.cells)) for i in range(200)]
    write(tmp_path, rows, header=("text", "a", "b", "c"))
    corpus = load(data, "train")
    assert [data.cells[cell] for cell in corpus.cells] == [row[1:] for row in rows]


def test_where_no_record_is_left_the_cause_is_named(tmp_path):
    rows = [("a", "4", "en", "u"), ("b", "4", "en", " "), ("c", "5", "fr", "w")]
    write(tmp_path, rows, header=("text", "stars", "language", "author"))

    def why(columns=None, **settings):
        with pytest.raises(InputError) as error:
            if columns:
                load_columns(spec(tmp_path, **settings), "train", columns)
            else:
                load(spec(tmp_path, **settings), "train")
        return str(error.value).split("no record is left: ")[1]

    assert why(labels=STARS).startswith("all are left out (most often: stars is outside its domain); compare")
    assert why(["language"], labels=STARS, user="author").startswith("all are left out (most often: stars is outside")
    assert "lets none in by language;" in why(filter={"author": ("u", "w"), "language": ("de",)})
    assert "lets none in by author;" in why(filter={"language": ("fr",), "author": ("u",)})  # none has both
    assert why(splits={"train": Split("t.csv", (0.0, 1e-12))}).startswith("none lies in the hash range 0 to 1e-12 of ")


@pytest.mark.parametrize("stars", [[1, 2, 3], [1.0, 2.0, 3.0], ["1", "2.0", " 3 "]])
@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet(tmp_path, stars, text):
    table = pa.table({"text": pa.array(["a", "b\r\nc", None], pa.string()).cast(text), "stars": stars, "x": [1, 2, 3]})
    pq.write_table(table, tmp_path / "t.parquet")
    corpus = load(spec(tmp_path, labels=STARS), "train", file=tmp_path / "t.parquet")
    assert list(corpus.texts) == ["a", "b\r\nc"] and corpus.cells.tolist() == [0, 1]
    assert corpus.dropped.to_dict("list") == {"row": [2], "reason": ["no text"]}


def test_compressed_csv(tmp_path):
    write(tmp_path, [("a", 1), ("b", 2)])
    data = (tmp_path / "t.csv").read_bytes()
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(data))
    (tmp_path / "t.csv.bz2").write_bytes(bz2.compress(data))
    for name in ("t.csv.gz", "t.csv.bz2"):
        assert list(load(spec(tmp_path), "train", file=tmp_path / name).texts) == ["a", "b"]


def test_byte_order_mark(tmp_path):
    (tmp_path / "t.csv").write_bytes("text,stars\r\né,1\r\n".encode("utf-8-sig"))
    assert list(load(spec(tmp_path), "train").texts) == ["é"]


def test_filter_and_users(tmp_path):
    rows = [("a", "en", "u"), ("b", "fr", "u"), ("c", "en", "v"), ("d", "en", " "), ("e", "en", "u"), ("", "fr", "u")]
    write(tmp_path, rows, header=("text", "language", "author"))
    corpus = load(spec(tmp_path, user="author", filter={"language": ("en",)}), "train")
    assert list(corpus.texts) == ["a", "c", "e"]
    assert corpus.users.dtype == np.int64 and corpus.num_users == 2
    assert corpus.users[0] == corpus.users[2] != corpus.users[1]
    assert corpus.dropped.to_dict("list") == {"row": [3], "reason": ["no user"]}


def test_the_hash_splits_by_text_or_user(tmp_path):
    """Of 10,000 texts, a share of 0.3 is off by more than 0.02 with probability below 2e-5 (and the hash is fixed)."""
    rows = [(f"text {i % 10_000}", f"user {i % 100}") for i in range(20_000)]
    write(tmp_path, rows, header=("text", "author"))
    splits = {"a": Split("t.csv", (0.0, 0.3)), "b": Split("t.csv", (0.3, 1.0))}
    a, b = (load(spec(tmp_path, splits=splits), name) for name in "ab")
    assert abs(a.num_records / 20_000 - 0.3) < 0.02 and a.num_records + b.num_records == 20_000
    assert not set(a.texts) & set(b.texts)
    assert len(set(a.texts)) == a.num_records / 2  # both copies of a text are on one side
    a, b = (load(spec(tmp_path, splits=splits, user="author"), name) for name in "ab")
    assert a.num_users + b.num_users == 100 and 0 < a.num_users < 100


ANNA = ["anna", " anna", "anna ", "\tanna\u00a0", "anna"]
NUMBER = ["17", "17.0", " 17.00 ", "17", "17.0"]
ZOE = ["Zo\u00eb", "Zoe\u0308", " Zo\u00eb", "Zoe\u0308\n", "Zo\u00eb"]


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_user_is_one_however_it_is_typed(tmp_path, share):
    """So are labels and the values of a filter. Each person's records are in one part of a split."""
    users = [name for three in zip(ANNA, NUMBER, ZOE, strict=True) for name in three]
    labels, language = ("caf\u00e9", "cafe\u0301", " caf\u00e9 "), ("\u00e9", "e\u0301 ")
    records = [(f"text {i}", labels[i % 3], user, language[i % 2]) for i, user in enumerate(users)]
    splits = {"train": Split("t.csv"), "a": Split("t.csv", (0.0, 0.5)), "b": Split("t.csv", (0.5, 1.0))}
    data = spec(
        tmp_path, user="author", labels=(Label("stars", ("cafe\u0301",)),), filter={"f": ("e\u0301",)}, splits=splits
    )
    write(tmp_path, records, header=("text", "stars", "author", "f"))
    corpus = load(data, "train")
    assert corpus.num_records == 15 and corpus.num_users == 3 and len(corpus.dropped) == 0
    assert [len(set(corpus.users[i::3])) for i in range(3)] == [1, 1, 1]
    parts = [{*load(data, name, share=share).users} for name in "ab" if _any(data, name, share)]
    assert sum(map(len, parts)) == len(set().union(*parts)) and (share < 1 or sum(map(len, parts)) == 3)


def _any(data, name, share):
    return taken(rows(data, name), data, name, share).any()


def test_users_of_a_parquet_file_are_those_of_a_csv(tmp_path):
    write(tmp_path, [("a", "17"), ("b", "18.0")], header=("text", "author"))
    pq.write_table(pa.table({"text": ["a", "b"], "author": [17.0, 18.0]}), tmp_path / "t.parquet")
    pq.write_table(pa.table({"text": ["a", "b"], "author": [17, 18]}), tmp_path / "t.pq")
    data = spec(tmp_path, user="author")
    codes = [load(data, "train", file=tmp_path / name).users.tolist() for name in ("t.csv", "t.parquet", "t.pq")]
    assert codes[0] == codes[1] == codes[2]


def test_a_canary_takes_the_place_of_a_whole_user(tmp_path):
    """However its records spell the name: else what is left of a user is in the data of all canaries' coins."""
    names = [spelling.format(i) for i in range(40) for spelling in ("user {}", " user {}", "user {}\u00a0")]
    write(tmp_path, [(f"one two three four {i}", name) for i, name in enumerate(names)], header=("text", "author"))
    (tmp_path / "spec.yaml").write_text("text: text\nuser: author\nsplits: {train: t.csv}\n")
    data = DatasetSpec.read(tmp_path)
    canaries.plant(tmp_path / "out", data, DataOptions(str(tmp_path)), 15, 2)
    made = canaries.read(tmp_path / "out", data, "train", 1.0)
    assert made.others == 3 * (40 - len(made.there)) and len(made.there) == made.canaries.num_users


values = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
spellings = st.one_of(
    values,
    st.from_regex(r"\s?[+-]?\d{1,3}(\.0{0,2}\d?)?\s?", fullmatch=True),
    st.text(" \t.0x1e\u0301\u00e9\u2126\u1100\u1161"),
)


@given(st.lists(st.one_of(st.none(), spellings, spellings.map(lambda x: unicodedata.normalize("NFD", x))), max_size=8))
@settings(max_examples=400, deadline=None)
def test_the_form_of_a_column_is_that_of_each_value(found):
    """Also where each is a chunk of its own, which may hold nothing to change."""
    expected = [None if value is None else normalise(value) for value in found]
    for chunks in ([found], [[value] for value in found]):
        column = normalised(pa.chunked_array(chunks, pa.large_string()))
        assert column.to_pylist() == expected and column.type == pa.large_string()


def test_the_hash_of_a_user_in_that_form_is_that_of_the_text():
    column = pa.chunked_array([["anna", "17", "Zo\u00eb", "a  b", "v1.0x"]], pa.large_string())
    assert user_hash(column).tolist() == record_hash(column).tolist()


def test_the_hash_is_the_same_for_ever():
    """The values of hashlib.blake2b(text, digest_size=8), of which the first 53 bits are a fraction of [0, 1)."""
    values = record_hash(pa.chunked_array([["", "abc"], ["é\n"]], pa.large_string()))
    assert values.tolist() == [0.8931675160897388, 0.846604635986145, 0.28769843288569685]


def test_no_record_depends_on_another(tmp_path, monkeypatch):
    """Removing a row of the file leaves the fate of every other row as it was, whatever the blocks."""
    rng = random.Random(0)
    rows = [(f'{i} "x"\r\n' * rng.randrange(3), rng.randrange(5), rng.choice(["u", "v", ""])) for i in range(60)]
    data = spec(tmp_path, labels=STARS, user="author", splits={"train": Split("t.csv", (0.0, 0.6))}, filter={})
    data_by_text = spec(tmp_path, labels=STARS, splits={"train": Split("t.csv", (0.0, 0.6))})

    def fates(rows, one):
        write(tmp_path, rows, header=("text", "stars", "author"))
        corpus = load(one, "train")
        return list(zip(corpus.texts, corpus.cells.tolist(), strict=True))

    monkeypatch.setattr(csv_records, "BLOCK", 64)
    for one in (data, data_by_text):
        whole = fates(rows, one)
        for i in range(0, 60, 7):
            rest = fates(rows[:i] + rows[i + 1 :], one)
            lost = [record for record in whole if record not in rest]
            assert len(whole) - len(rest) == len(lost) <= 1 and [r for r in whole if r not in lost] == rest


def test_texts_are_a_sequence(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_records, "BLOCK", 100)  # several chunks
    expected = [f"text {i}" for i in range(100)]
    write(tmp_path, [(text, 1) for text in expected])
    texts = load(spec(tmp_path), "train").texts
    assert len(texts) == 100 and list(texts) == expected
    assert texts[3] == expected[3] and texts[-1] == expected[-1] and texts[np.int64(50)] == expected[50]
    for at in (slice(0, 5), slice(10, 90), slice(95, 200), slice(50, 20), slice(None, None, -7), slice(-3, None)):
        assert texts[at] == expected[at]
    with pytest.raises(IndexError):
        texts[100]


def test_fingerprint(tmp_path, monkeypatch):
    data = spec(tmp_path, labels=STARS, user="author")
    header = ("text", "stars", "author")
    rows = [("ab", 1, "u"), ("c", 2, "v"), ("", 3, "v"), ("d", 3, "u")]

    def fingerprint(rows, key=b"key", one=data):
        write(tmp_path, rows, header=header)
        return load(one, "train").fingerprint(key)

    original = fingerprint(rows)
    assert len(original) == 64 and fingerprint(rows) == original
    monkeypatch.setattr(csv_records, "BLOCK", 20)
    assert fingerprint(rows) == original  # however it was read
    assert fingerprint([rows[0], rows[1], rows[3]]) == original  # a dropped row is not part of the corpus
    others = [
        fingerprint(rows, b"another"),
        fingerprint([("a", 1, "u"), ("bc", 2, "v"), rows[3]]),  # the same bytes, cut elsewhere
        fingerprint([("ab", 3, "u"), *rows[1:]]),
        fingerprint([("ab", 1, "v"), *rows[1:]]),
        fingerprint(rows[:3]),
        fingerprint([rows[1], rows[0], *rows[2:]]),
        fingerprint(rows, one=spec(tmp_path, labels=STARS)),
    ]
    assert len({original, *others}) == 8


SECRET = "5ecre7"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("text,stars\r\n", "is empty"),
        (f"txt,stars\r\n{SECRET},1\r\n", "no column 'text' in its header"),
        (f"{SECRET},1\r\nanother,1\r\n", "no column 'text' in its header"),
        (f"text,text,stars\r\n{SECRET},a,1\r\n", "more than one column 'text'"),
        (f"text,stars\r\n{SECRET},and a comma,1\r\n", "more or fewer fields"),
        (f"text,stars\r\n{SECRET}\r\n", "more or fewer fields"),
        (f'text,stars\r\n"{SECRET},1\r\n', "never closed"),
        (f'text,stars\r\n5" {SECRET} 6",1\r\n', "inside a field that is not quoted"),
        (f'text,stars\r\n"{SECRET}"x,1\r\n', "inside a field that is not quoted"),
        (f"text,stars\r\n{SECRET}\udcff,1\r\n", "no record is left"),
        (f"text,stars,na\udcefve\r\n{SECRET},1,1\r\n", "the header is not UTF-8"),
        (f"text,st\0ars\r\n{SECRET},1\r\n", "is UTF-16, or no text at all"),
        ("\udcff\udcfe\u7d00\n", "is UTF-16, or no text at all"),
        (f"text,stars\r\nfour\r{SECRET},1\r\n", "a carriage return outside quotes"),
        (f"text,stars\rfour,1\r{SECRET},1\r", "a carriage return outside quotes"),
        (f"text,stars\r\n{SECRET},9\r\n,1\r\n", "no record is left"),
    ],
)
def test_errors_are_one_line_without_private_values(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message) as error:
        load(spec(tmp_path, labels=STARS), "train")
    assert str(tmp_path / "t.csv") in str(error.value) and "\n" not in str(error.value)
    chain = error.value
    while chain is not None:  # nor in what a traceback would show
        assert SECRET not in str(chain)
        chain = None if chain.__suppress_context__ else chain.__context__


def bytes_column(values):
    """A string column that was written without a look at its bytes, as other libraries do."""
    column = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(column), column.buffers())


BROKEN = SECRET.encode() + b" caf\xe9"  # of Latin-1
SURROGATE = b"\xed\xa0\x80"
GOOD = {"text": b"good", "stars": b"1", "author": b"u", "f": b"en", "other": b"x"}
MIXED = [
    (GOOD, None),
    (GOOD | {"text": BROKEN}, "not UTF-8, or no JSON"),
    (GOOD | {"stars": BROKEN}, "not UTF-8, or no JSON"),
    (GOOD | {"author": BROKEN}, "not UTF-8, or no JSON"),
    (GOOD | {"f": BROKEN}, "not UTF-8, or no JSON"),
    (GOOD | {"text": SURROGATE}, "not UTF-8, or no JSON"),
    (GOOD | {"text": BROKEN, "stars": b"9", "author": b""}, "not UTF-8, or no JSON"),
    (GOOD | {"text": BROKEN, "f": b"fr"}, "another language"),
    (GOOD | {"other": BROKEN}, None),  # which nobody reads
    (GOOD | {"text": "a\0b\ufffd".encode()}, None),
    (GOOD | {"text": b""}, "no text"),
]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.pq"])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_a_record_that_is_not_utf8_is_dropped_by_itself(tmp_path, monkeypatch, name, chunk):
    monkeypatch.setattr(csv_records, "BLOCK", chunk)
    monkeypatch.setattr(loading, "ROWS", chunk)
    columns = {column: [row[column] for row, _ in MIXED] for column in GOOD}
    if name == "t.csv":
        lines = [b",".join(GOOD[c] if row is None else row[c] for c in GOOD) for row, _ in MIXED]
        (tmp_path / name).write_bytes(b"\n".join([",".join(GOOD).encode(), *lines]))
    else:
        pq.write_table(pa.table({c: bytes_column(v) for c, v in columns.items()}), tmp_path / name)
    data = spec(
        tmp_path,
        labels=STARS,
        user="author",
        filter={"f": ("en",)},
        splits={"train": Split(name), "a": Split(name, (0, 0.5))},
    )
    corpus = load(data, "train")
    kept = [row["text"].decode() for row, reason in MIXED if reason is None]
    dropped = {i: reason for i, (_, reason) in enumerate(MIXED) if reason in ("not UTF-8, or no JSON", "no text")}
    assert list(corpus.texts) == kept and corpus.num_users == 1
    assert dict(zip(corpus.dropped["row"], corpus.dropped["reason"], strict=True)) == dropped
    assert corpus.dropped_share == len(dropped) / (len(dropped) + len(kept))
    # what makes canaries and pairs takes the same records
    table = rows(data, "train")
    assert (
        len(table) == len(MIXED) and table[spec(tmp_path).text].filter(taken(table, data, "train")).to_pylist() == kept
    )
    texts, others = load_columns(data, "train", ["text", "other"])
    assert texts == kept and others == ["x", "", "x"]


def test_a_latin1_file_loses_the_records_that_have_such_letters(tmp_path):
    """Not the whole file, by which one record would show; how many is in private/."""
    (tmp_path / "t.csv").write_bytes("text\nplain\ncafé\nplain too\n".encode("latin-1"))
    corpus = load(spec(tmp_path), "train")
    assert list(corpus.texts) == ["plain", "plain too"]
    assert corpus.dropped["reason"].tolist() == ["not UTF-8, or no JSON"]


def test_a_split_by_texts_that_are_not_utf8(tmp_path):
    """Each is in one part."""
    (tmp_path / "t.csv").write_bytes(b"text\n" + b"".join(b"good %d\nbad \xff %d\n" % (i, i) for i in range(200)))
    splits = {"a": Split("t.csv", (0.0, 0.5)), "b": Split("t.csv", (0.5, 1.0))}
    a, b = ({*load(spec(tmp_path, splits=splits), name).dropped["row"]} for name in "ab")
    assert not a & b and a | b == set(range(1, 400, 2)) and min(len(a), len(b)) > 50


def test_a_parquet_file_that_one_cannot_read(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), path)
    with pytest.raises(InputError, match="more than one column 'text'"):
        load(spec(tmp_path), "train", file=path)
    pq.write_table(pa.table({"text": ["a"], "stars": [[1]]}), path)
    with pytest.raises(InputError, match="a column cannot be read as text"):
        load(spec(tmp_path, labels=STARS), "train", file=path)
    pq.write_table(pa.table({"text": [f"{SECRET} {i}" for i in range(9999)]}), path, compression="none")
    data = bytearray(path.read_bytes())
    data[20:2000] = bytes(1980)
    path.write_bytes(data)
    with pytest.raises(InputError, match="the file is damaged") as error:
        load(spec(tmp_path), "train", file=path)
    assert SECRET not in str(error.value)
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(InputError, match="is empty"):
        load(spec(tmp_path), "train", file=path)
    assert len(rows(spec(tmp_path), "train", file=path)) == 0


def test_missing_file_and_wrong_parquet(tmp_path):
    with pytest.raises(InputError, match=r"there is no file .*t\.csv"):
        load(spec(tmp_path), "train")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a parquet file"):
        load(spec(tmp_path), "train", file=tmp_path / "t.parquet")
    pq.write_table(pa.table({"text": [1.5, 2.5]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="'text' holds double, not text"):
        load(spec(tmp_path), "train", file=tmp_path / "t.parquet")
    (tmp_path / "t.csv.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match="cannot be decompressed"):
        load(spec(tmp_path), "train", file=tmp_path / "t.csv.gz")
