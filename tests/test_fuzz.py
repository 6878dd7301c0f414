"""A small part of `python -m tests.fuzz`, and that it sees what is wrong."""

from __future__ import annotations

import sys

import pytest

from tests import fuzz


@pytest.mark.parametrize("first", [0, 60])
def test_what_is_made_up_ends_in_a_line(tmp_path, first):
    for number, argv, code, printed, what in fuzz.fuzz(range(first, first + 60), 0, tmp_path):
        assert what is None, f"case {number} ({code}): {what}\n{argv}\n{printed[-2000:]}"


def said(printed: str, root) -> str | None:
    def command():
        print(printed, file=sys.stderr)
        sys.exit(2)

    return fuzz.complaint(*fuzz.outcome(command, ["x"], root), root)


def test_what_is_wrong_is_seen(tmp_path, monkeypatch):
    monkeypatch.setenv("DPSDA_HOME", str(tmp_path / "private"))
    assert said("error: one line", tmp_path) is None
    assert said(f"error: a record is {fuzz.MARKER}1", tmp_path) == "a private value in the output"
    assert said("Traceback (most recent call last)\nerror: x", tmp_path) == "a traceback"
    assert said("oh", tmp_path) == "the last line is no error"
    code, printed = fuzz.outcome(lambda: {}["x"], ["x"], tmp_path)
    assert fuzz.complaint(code, printed, tmp_path) == "exit code 1"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "left").write_text(f"{fuzz.MARKER}1")
    assert said("error: one line", tmp_path) == "a private value in run/left"
