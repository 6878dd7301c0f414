"""The format of LMSYS-Chat-1M: what passes, and that every record is judged by itself."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsda.data import DatasetSpec, load
from dpsda.data.lmsys import _table, convert, judge
from dpsda.errors import InputError


def turns(*contents, first="user"):
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


def record(**changes):
    return {
        "conversation_id": "x",
        "model": "m",
        "conversation": turns("hi there", "hello", "more", "sure"),
        "turn": 2,
        "language": "English",
        "openai_moderation": [{"categories": {"hate": False}, "flagged": False}] * 4,
        "redacted": False,
        **changes,
    }


FLAGGED = [{"flagged": False}, {"flagged": True}]
REJECTED = [
    record(language="German"),
    record(language=None),
    record(redacted=True),
    record(redacted=None),
    record(openai_moderation=FLAGGED),
    record(openai_moderation=[]),
    record(openai_moderation=None),
    record(openai_moderation=[{"flagged": None}]),
    record(conversation=[]),
    record(conversation=None),
    record(conversation=turns("  \n")),
    record(conversation=turns("hello", "hi", first="assistant")),
    record(conversation=[{"role": "user", "content": None}]),
    record(conversation="text"),
    record(language=3),
    {"other": 1},
    "no record",
]
ACCEPTED = [
    (record(), ("hi there", "hello")),
    (record(conversation=turns("only this")), ("only this", "")),
    (record(conversation=[*turns("one"), *turns("two")]), ("one", "")),  # two user turns: no answer in between
    (record(conversation=turns("Mixed Case, kept", "Yes")), ("Mixed Case, kept", "Yes")),
]


def passed(rows):
    return [(row["text"], row["answer"]) for row in judge(_table(rows)).to_pylist()]


@pytest.mark.parametrize("number", range(len(REJECTED)))
def test_what_does_not_pass(number):
    assert passed([REJECTED[number]]) == []
    assert passed([record(), REJECTED[number], record()]) == [("hi there", "hello")] * 2


def test_what_passes_with_its_answer():
    for row, expected in ACCEPTED:
        assert passed([row]) == [expected]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(REJECTED) + len(ACCEPTED) - 1), max_size=12), st.integers(0, 12))
def test_a_record_more_changes_no_other(numbers, place):
    """Repeated records, too: nothing looks for duplicates."""
    rows = [(REJECTED + [row for row, _ in ACCEPTED])[i] for i in numbers]
    alone = [pair for row in rows for pair in passed([row])]
    assert passed(rows) == alone
    place = min(place, len(rows))
    before = sum(len(passed([row])) for row in rows[:place])
    assert passed([*rows[:place], record(), *rows[place:]]) == [*alone[:before], ("hi there", "hello"), *alone[before:]]


def test_json_lines_and_parquet_become_the_data_set(tmp_path):
    lines, parquet = tmp_path / "chats.jsonl", tmp_path / "chats.parquet"
    rows = [row for row, _ in ACCEPTED]
    lines.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *REJECTED]) + "{cut off")
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    expected = [text for _, (text, _) in ACCEPTED]
    for source in (lines, parquet):
        folder = tmp_path / source.suffix[1:]
        convert([str(source)], folder / "conversations.parquet")
        assert [path.name for path in folder.iterdir()] == ["conversations.parquet"]
        spec = DatasetSpec.read("lmsys")
        found = [
            text for split in ("train", "val", "test") for text in _texts(spec, split, folder / "conversations.parquet")
        ]
        assert sorted(found) == sorted(expected)


def _texts(spec, split, file):
    try:
        return list(load(spec, split, file=file).texts)
    except InputError:  # no record of so few falls into this split
        return []


def test_what_is_not_utf8_is_left_out_by_itself(tmp_path):
    """In json lines, in parquet, and as an escape of half a letter."""
    bad = record(conversation=turns("caf\udce9", "yes"))
    lines = [json.dumps(row, ensure_ascii=False).encode(errors="surrogateescape") for row in (record(), bad, record())]
    lines.insert(1, json.dumps(record(conversation=turns("\ud800"))).encode())
    (tmp_path / "chats.jsonl").write_bytes(b"\n".join(lines))
    table = pa.Table.from_pylist([record(), record(conversation=turns("cafx", "yes")), record()])
    pq.write_table(table, tmp_path / "chats.PQ", compression="none", use_dictionary=False, write_statistics=False)
    data = (tmp_path / "chats.PQ").read_bytes()
    (tmp_path / "chats.PQ").write_bytes(data.replace(b"cafx", b"caf\xe9"))
    for name in ("chats.jsonl", "chats.PQ"):
        output = tmp_path / f"{name}.parquet"
        convert([str(tmp_path / name)], output)
        assert pq.read_table(output)["text"].to_pylist() == ["hi there"] * 2


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (None, "gone.jsonl", "no such file"),
        ("", "empty.jsonl", "no conversation passes"),
        ("text\nsecret\n", "other.jsonl", "no conversation passes"),
        ("secret", "no.parquet", "not a parquet file"),
    ],
)
def test_files_that_are_none(tmp_path, content, name, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    output = tmp_path / "out" / "conversations.parquet"
    with pytest.raises(InputError, match=message) as error:
        convert([str(tmp_path / name)], output)
    assert "secret" not in str(error.value) and "\n" not in str(error.value)
    assert not output.exists() and not list(output.parent.glob("*.part"))


def test_a_parquet_file_without_a_column(tmp_path):
    pq.write_table(pa.table({"conversation": ["x"], "language": ["English"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="openai_moderation"):
        convert([str(tmp_path / "a.parquet")], tmp_path / "out.parquet")
