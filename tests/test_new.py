"""`dpsda new`: a data set from what its owner says, and nothing of what its records say."""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest

from apis.echo import EchoAPI
from apis.prompting import PromptBook
from dpsda.arg_utils import parse
from dpsda.commands import COMMANDS, main
from dpsda.data import DatasetSpec, load
from dpsda.errors import InputError
from tests.conftest import use

SAID = "a message from a customer {to} the support desk of a software company."
ROWS = {
    "id": [f"SECRET-{i}" for i in range(40)],
    "body": [f"SECRET text {i}" for i in range(40)],
    "kind": ["bug", "feature request"] * 20,
    "who": [f"SECRET{i % 9}" for i in range(40)],
    "plan": ["paid", "SECRET plan"] * 20,
}


@pytest.fixture
def table(tmp_path) -> Path:
    pd.DataFrame(ROWS).to_csv(tmp_path / "t.csv", index=False)
    return tmp_path / "t.csv"


def new(*words: object) -> None:
    COMMANDS["new"].route()(*parse([*map(str, words)], "dpsda new", "", *COMMANDS["new"].groups))


def given(folder: Path, table: Path, *more: object) -> list[object]:
    return ["--name", folder, "--data", table, "--text", "body", "--describe", SAID, *more]


ATTRIBUTE = ["--attribute", "plan=free", "paid"]
LABEL, USER, ABOUT = ["--label", "kind=bug,feature request"], ["--user", "who"], ["--about", "an invoice, a refund"]


def test_what_is_written_runs(tmp_path, table, capsys, monkeypatch):
    """From the file to a dry run of the command that the last line names."""
    folder = tmp_path / "tickets"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["dpsda", "new", *map(str, given(folder, table, *LABEL, *ATTRIBUTE, *USER, *ABOUT)[1:])]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr().out
    assert not stop.value.code, printed
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert {*written} == {"spec.yaml", "prompts.yaml", "augpe.yaml", "finetune.yaml"}
    assert "SECRET" not in printed + "".join(written.values())
    assert (
        "columns that are read: describe" not in printed
        and "read: body, kind, who, plan; 1 others are not\n" in printed
    )
    spec = DatasetSpec.read(folder)
    corpus = load(spec, "train")
    assert (corpus.num_records, corpus.num_users, spec.cells) == (40, 9, [("bug",), ("feature request",)])
    book = PromptBook.read(folder / "prompts.yaml")
    assert book.keywords == ["an invoice", "a refund"]
    assert spec.attributes[0].values == ("free", "paid", "")
    asked = [line.strip() for line in printed.split("for example:\n")[1].splitlines()[:3]]
    for line in asked:
        assert "from a customer {to} the support desk of a software company, about a" in line
        assert re.search(r"Its kind: (bug|feature request)\. Its plan: (free|paid|not given)\.", line)
    assert len({*asked}) == 3
    use(monkeypatch)
    tried, walked, ran, trained = (line.split() for line in printed.splitlines() if "/dpsda " in line)
    assert tried[1:3] == ["prompts", str(folder)] and Path(tried[0]).is_file()  # they work as they are printed
    assert walked == [*ran, "--dry_run"] and ran[:4] == [tried[0], "augpe", "--config", "tickets/augpe.yaml"]
    options = parse(walked[2:], "dpsda augpe", "", *COMMANDS["augpe"].groups)
    assert (options[1].privacy_unit, options[-1].result_folder) == ("user", "results/tickets")
    COMMANDS["augpe"].route()(*options)
    assert "9 users vote for" in capsys.readouterr().out and not (tmp_path / "results").exists()
    assert trained[1:] == ["finetune", "--config", "tickets/finetune.yaml", "--epsilon", "4"]
    options = parse([*trained[2:], "--dry_run"], "dpsda finetune", "", *COMMANDS["finetune"].groups)
    with pytest.raises(InputError, match=r"128 is more than there is, 9 users: .* a smaller batch, of 1 as an example"):
        COMMANDS["finetune"].route()(*options)
    small = ["--batch_size", "4", "--dry_run"]
    COMMANDS["finetune"].route()(*parse([*trained[2:], *small], "dpsda finetune", "", *COMMANDS["finetune"].groups))
    assert "training: 40 steps" in capsys.readouterr().out


def test_the_rest_is_asked_for(tmp_path, table, monkeypatch, capsys):
    """What is wrong is asked for again, and no answer is lost."""
    answers = ["", str(table.with_name("nowhere.csv")), str(table), "text", "body", SAID, "kind=bug", "kinds=a,b"]
    answers += ["kind=bug,feature request", "", "plan=free,paid", "", "author", "who", "an invoice"]
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answers.pop(0))
    new("--name", tmp_path / "asked")
    assert not answers
    said = capsys.readouterr().out
    assert "its columns: id, body, kind, who, plan\n" in said and said.count("; once more\n") == 5
    assert "has no column 'kinds' in its header; once more" in said and "kind has one value" in said
    new(*given(tmp_path / "given", table, *LABEL, *ATTRIBUTE, *USER, "--about", "an invoice"))
    for name in ("spec.yaml", "prompts.yaml"):
        assert (tmp_path / "asked" / name).read_text() == (tmp_path / "given" / name).read_text()


def test_answers_that_end_leave_nothing(tmp_path, table, monkeypatch):
    def ended(question: str) -> str:
        raise EOFError

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ended)
    with pytest.raises(InputError, match="nothing is written"):
        new("--name", tmp_path / "asked")
    assert [*tmp_path.iterdir()] == [table]


@pytest.mark.parametrize(
    "odd", ["no", "01", "null", "~", "a: b", "é", 'quo"te', "x #y", "[z]", "- a", "1.50", " padded "]
)
def test_values_come_back_as_they_were_said(tmp_path, odd):
    column = odd.strip()
    pd.DataFrame({"body": ["x", "y"], column: ["1", "2"]}).to_csv(tmp_path / "t.csv", index=False)
    new(*given(tmp_path / "d", tmp_path / "t.csv", "--label", f"{odd}={odd},other", "--about", odd))
    spec = DatasetSpec.read(tmp_path / "d")
    assert spec.label_columns == [column] and spec.labels[0].domain == (column, "other")
    assert PromptBook.read(tmp_path / "d" / "prompts.yaml").keywords == [column]


@pytest.mark.parametrize("name", ["t.tsv", "t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_every_form_of_a_file(tmp_path, name):
    frame = pd.DataFrame(ROWS)
    if name == "t.tsv":
        frame.to_csv(tmp_path / name, index=False, sep="\t")
    elif name == "t.parquet":
        frame.to_parquet(tmp_path / name)
    else:
        data = frame.to_json(orient="records", lines=True).encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    new(*given(tmp_path / "d", tmp_path / name, *LABEL, *USER))
    assert [*load(DatasetSpec.read(tmp_path / "d"), "train").texts] == ROWS["body"]


@pytest.mark.parametrize(
    "more, said",
    [
        (["--text", "bdy"], "t.csv: has no column 'bdy' in its header"),
        (["--label", "knd=a,b"], "has no column 'knd'"),
        (["--user", "nobody"], "has no column 'nobody'"),
        (["--label", "kind=bug"], "--label: kind has one value"),
        (["--label", "kind"], "--label: 'kind' is no column with its values; write COLUMN=VALUE,VALUE"),
        (["--label", "kind=bug,Bug,bug"], "names one value twice"),
        (["--label", "kind=a,b", "kind=c,d"], "kind is given twice"),
        (["--attribute", "plan=a"], "--attribute: plan has one value"),
        ([*LABEL, "--attribute", "kind=a,b"], "has two roles"),
        (["--label", "body=a,b"], "has two roles"),
        (["--label", "id=a,b"], "rename the column 'id' in the file"),
        (["--words", "9", "3"], "--words has to be two numbers"),
        (["--data", "nowhere.csv"], "there is no such file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, table, more, said):
    with pytest.raises(InputError) as error:
        new(*given(tmp_path / "d", table, *more))
    assert said in str(error.value) and "SECRET" not in str(error.value) and [*tmp_path.iterdir()] == [table]


def test_nothing_but_a_header_is_read_and_one_that_is_a_record_is_not_quoted(tmp_path, table):
    whole = table.read_text()
    table.write_text(whole + 'more fields, than, the, header, has\n"a quote that is never closed')
    new(*given(tmp_path / "d", table, *LABEL))
    for name, data in (("n.csv", "SECRET text,SECRET\nx,y\n"), ("n.parquet", "SECRET"), ("n.jsonl", '"SECRET"\n')):
        (tmp_path / name).write_text(data)
        with pytest.raises(InputError) as error:
            new(*given(tmp_path / "e", tmp_path / name))
        assert "SECRET" not in str(error.value)


def test_a_folder_that_is_there_is_left_alone(tmp_path, table):
    new(*given(tmp_path / "d", table))
    before = {path: path.read_bytes() for path in (tmp_path / "d").iterdir()}
    with pytest.raises(InputError, match="is there already"):
        new(*given(tmp_path / "d", table, *LABEL))
    assert {path: path.read_bytes() for path in (tmp_path / "d").iterdir()} == before
    with pytest.raises(InputError, match="chat: is there already"):
        new("--name", "chat", "--data", table)
    with pytest.raises(InputError, match="--describe is needed"):
        new("--name", tmp_path / "e", "--data", table, "--text", "body")


class Lister(EchoAPI):
    """Answers lists with a list, as models do, and everything else with a sentence or with nothing."""

    asked: ClassVar[list[str]] = []

    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        self.asked.extend(prompt.text for prompt in prompts)
        listed = "Here are some:\n1. **Invoices**: about money\n2. invoices.\n- A lost password\n3) 3D prints\n"
        listed += "* # of seats\n,000\n" + "word " * 30
        return [
            listed if prompt.text.startswith("List ") else None if "0 " in answer else f"{answer} It is quite fine."
            for prompt, answer in zip(prompts, super().generate(prompts, seed), strict=True)
        ]


def try_prompts(*words: object) -> None:
    COMMANDS["prompts"].route()(*parse([*map(str, words)], "dpsda prompts", "", *COMMANDS["prompts"].groups))


def test_prompts_are_tried_without_a_record(tmp_path, table, monkeypatch, capsys):
    new(*given(tmp_path / "d", table, *LABEL, *ABOUT))
    use(monkeypatch, Lister)
    table.unlink()  # nothing is read of it
    capsys.readouterr()
    try_prompts("--dataset", tmp_path / "d", "--texts", 30)
    printed = capsys.readouterr().out
    assert "from nothing: 30 of 30 texts" in printed and "varied: 30 of 30 texts" in printed
    assert re.search(r"answers that were no text: \d+% \(\d+ refused or filtered\)", printed)
    assert "asked for: 10 to 60 words" in printed and "[feature request] Text" in printed
    assert (
        'keywords:\n  - Invoices\n  - A lost password\n  - 3D prints\n  - "# of seats"\npersonas:' in printed
        and "tones:\n  - Invoices" in printed
    )
    assert sum(text.startswith("List ") and SAID.rstrip(".") in text for text in Lister.asked) == 9


def test_prompts_without_a_description_or_an_answer(dataset, monkeypatch, capsys):
    use(monkeypatch)
    try_prompts("--dataset", dataset, "--texts", 1)
    assert "no lists are asked for: say what a text is" in capsys.readouterr().out
    monkeypatch.setattr(EchoAPI, "generate", lambda self, prompts, seed: [None] * len(prompts))
    with pytest.raises(InputError, match=r"answered no initial prompt with a text \(1 refused or filtered\)"):
        try_prompts("--dataset", dataset, "--texts", 1)
