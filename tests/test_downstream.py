"""downstream.py on whole runs: its tables and who may read them, resuming, and what it says of bad input."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from dpsda.arg_utils import parse
from dpsda.commands import COMMANDS
from dpsda.data import DatasetSpec, load
from dpsda.errors import InputError
from dpsda.evaluation.downstream import _Trainer, evaluate
from dpsda.evaluation.options import DownstreamOptions, SubjectOptions
from dpsda.evaluation.subject import Subject
from tests.conftest import write_rows
from tests.evaluation.conftest import bert, encoder, made  # noqa: F401

MARKER = "5d41402abc4b2a76b9719d911017c592"


def run(folder, *flags):
    evaluate(*parse(["--result_folder", str(folder), *flags], "", "", SubjectOptions, DownstreamOptions))


def table(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_rows_and_who_may_read_them(made, dataset, encoder, capsys):  # noqa: F811
    folder = made()
    told = len(encoder.told)
    run(folder)
    everything, shared = table(folder / "private" / "downstream_test.csv"), table(folder / "downstream_test.csv")
    assert list(everything[everything.target == "stars"]["trained_on"]) == [
        *("majority", "0", "1", "2", "real", "real, all")
    ]
    assert set(everything["target"]) == {"stars", "kind"} and set(everything["seeds"]) <= {"1", "3"}
    size = everything[everything.target == "stars"].set_index("trained_on")["texts"]
    assert size["real"] == size["2"] == "24" and size["real, all"] == "120"  # as many as synthetic ones, and all
    test = set(load(DatasetSpec.read(str(dataset)), "test").texts)  # of which all are in the private split, too
    train = set(table(dataset / "train.csv")["text"]) - test
    assert {private for private, text in encoder.told[told:] if text in train} == {True}
    assert {private for private, text in encoder.told[told:] if text in test} == {True, False}
    # what was trained on private texts is not shared, in no file and not on the screen
    assert set(shared["trained_on"]) == {"majority", "0", "1", "2"}
    said = capsys.readouterr().out
    assert "trained on" in said and "real" not in said.split("probe:")[0]
    merged = everything.merge(shared, how="inner")
    assert len(merged) == len(shared)
    majority = everything[everything.trained_on == "majority"].set_index("target")
    assert 0.4 < float(majority.loc["stars", "accuracy"]) < 0.7 and majority.loc["stars", "perplexity"] == "n/a"
    run(folder, "--log_private")
    assert "real, all" in capsys.readouterr().out


def test_a_private_test_split_stays_private(made, dataset, capsys):  # noqa: F811
    folder = made()
    run(folder, "--test_split", "train")
    assert (folder / "private" / "downstream_train.csv").exists() and not list(folder.glob("downstream*"))
    said = capsys.readouterr().out
    assert "trained on" not in said and not any(
        v in said for v in table(folder / "private" / "downstream_train.csv").accuracy
    )


def test_no_training_is_done_twice_or_half(made, monkeypatch):  # noqa: F811
    folder = made()
    run(folder)
    first = (folder / "private" / "downstream_test.csv").read_bytes()
    trained = []
    original = _Trainer.figures

    def figures(self, training, seed):
        trained.append((training.target, training.source.name, seed))
        return original(self, training, seed)

    monkeypatch.setattr(_Trainer, "figures", figures)
    run(folder)
    assert trained == []
    lines = folder / "private" / "downstream_test.jsonl"
    lines.write_bytes(lines.read_bytes()[:-20])  # killed while it wrote its last result
    run(folder)
    assert trained == [("kind", "real, all", 2)]
    assert (folder / "private" / "downstream_test.csv").read_bytes() == first
    run(folder, "--seeds", "0,3")  # of these, seed 0 is there
    assert {seed for _, _, seed in trained[1:]} == {3}


def test_a_failure_leaves_no_row(made, monkeypatch):  # noqa: F811
    folder = made()

    def fails(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(_Trainer, "figures", fails)
    with pytest.raises(RuntimeError):
        run(folder)
    assert not list(folder.rglob("downstream*"))


def test_classify_and_lm_by_a_tiny_model(made, bert, dataset, capsys):  # noqa: F811
    folder = made()
    quick = ("--models", bert, "--epochs", "1", "--seeds", "0")
    run(folder)
    run(folder, "--task", "classify", *quick)
    run(folder, "--task", "lm", *quick)
    found = table(folder / "private" / "downstream_test.csv")
    assert list(dict.fromkeys(found["task"])) == ["probe", "classify", "lm"]  # each task keeps the others' rows
    classified = found[(found.task == "classify") & (found.target == "stars")]
    assert list(classified["trained_on"]) == ["majority", "0", "2", "real"]  # the last iteration, if none is named
    lm = found[found.task == "lm"].set_index("trained_on")
    assert set(lm["target"]) == {"next token"} and float(lm.loc["2", "perplexity"]) > 1
    assert lm.loc["majority", "accuracy"] != "n/a" and lm.loc["majority", "perplexity"] == "n/a"
    assert "real" not in set(table(folder / "downstream_test.csv")["trained_on"])


def test_what_a_run_without_noise_gives_stays_private(made, encoder, capsys):  # noqa: F811
    folder = made(privacy={"epsilon": float("inf")})
    told = len(encoder.told)
    run(folder)
    assert list(folder.iterdir()) == [folder / "private"] and (folder / "private" / "downstream_test.csv").exists()
    assert "trained on" not in capsys.readouterr().out
    synthetic = set(table(folder / "private" / "2" / "samples.csv")["text"])
    assert {private for private, text in encoder.told[told:] if text in synthetic} == {True}


def test_a_damaged_table_is_one_line(made):  # noqa: F811
    folder = made()
    run(folder)
    for content, match in [
        (b"", "not a CSV file"),
        (b"a,b\n1,2\n", "no column 'task'"),
        (b"\xff\xfe", "not a CSV file"),
    ]:
        (folder / "private" / "downstream_test.csv").write_bytes(content)
        with pytest.raises(InputError, match=match):
            run(folder)
    for content, match in [("[]", "not a file of ours"), ("{}", "'dataset' is missing")]:
        (folder / "state" / "augpe.json").write_text(content)
        with pytest.raises(InputError, match=match):
            run(folder)


def test_selection_on_private_texts_is_said_and_kept_private(made, dataset):  # noqa: F811
    folder = made()
    run(folder, "--validation", "private", "--validation_split", "train")
    assert not list(folder.glob("downstream*"))
    assert json.loads((folder / "state" / "evaluation.json").read_text()) == {"selected_on_private": "train"}
    other = made("other")
    run(other, "--validation", "private", "--validation_split", "test")  # which is public
    assert (other / "downstream_test.csv").exists() and not (other / "state" / "evaluation.json").exists()


def test_what_cannot_be_trained_is_a_row_that_says_so(made):  # noqa: F811
    folder = made()
    path = folder / "1" / "samples.csv"
    samples = table(path)
    samples.assign(stars="low").to_csv(path, index=False, lineterminator="\r\n")
    empty = folder / "2" / "samples.csv"
    table(empty)[:0].to_csv(empty, index=False, lineterminator="\r\n")
    run(folder)
    found = table(folder / "downstream_test.csv").set_index(["target", "trained_on"])
    assert found.loc[("stars", "1"), "accuracy"] == "n/a" and found.loc[("stars", "1"), "why"] == "one class only"
    assert found.loc[("stars", "2"), "why"] == "0 texts, fewer than 10"
    assert found.loc[("kind", "1"), "accuracy"] != "n/a"


def test_labels_are_read_however_a_file_spells_them(made, dataset, tmp_path):  # noqa: F811
    """5, 5.0 and " 5 " are one value, in the domain's own spelling; as parquet, numbers are numbers."""
    spec = (dataset / "spec.yaml").read_text().replace("[low, high]", "[1, 2.0]")
    (dataset / "spec.yaml").write_text(spec)
    path = tmp_path / "numbers.parquet"
    pd.DataFrame({"text": ["a"] * 20, "stars": [1.0, 2.0] * 10, "kind": "film"}).to_parquet(path)
    flags = ["--result_folder", str(tmp_path), "--synthetic_file", str(path), "--dataset", str(dataset)]
    subject = Subject.of(parse(flags, "", "", SubjectOptions)[0])
    assert list(subject.read("numbers", labels=True).labels["stars"][:2]) == ["1", "2.0"]


def test_errors_are_one_line(made, tmp_path, dataset, monkeypatch):  # noqa: F811
    folder = made()
    bare, odd = tmp_path / "bare.csv", tmp_path / "odd.csv"
    pd.DataFrame({"text": ["a"] * 20, "stars": "low"}).to_csv(bare, index=False)
    pd.DataFrame({"text": ["a"] * 20, "stars": "low", "kind": ["food", "prose"] * 10}).to_csv(odd, index=False)
    for flags, expected in [
        (["--synthetic_file", bare], "has no label column 'kind'"),
        (["--synthetic_file", odd], "'kind' has a value outside its domain"),
        (["--test_split", "dev"], "has no split 'dev'"),
        (["--epochs", "1", "2"], "one for each of --models"),
        (["--seeds", "1,1"], "different numbers"),
        (["--task", "lm", "--models", "nobody/none"], "cannot load the model"),
        (["--learning_rate", "nan"], "--learning_rate has to be above 0 and finite"),
        (["--validation", "private"], "has no split 'val'"),
    ]:
        monkeypatch.setattr("sys.argv", ["downstream.py", "--result_folder", str(folder), *map(str, flags)])
        with pytest.raises(InputError) as error:
            COMMANDS["downstream"]("downstream.py", "")
        assert expected in str(error.value) and "\n" not in str(error.value)


def test_no_private_text_is_written_or_said(made, dataset, capsys):  # noqa: F811
    rows = [
        {"text": f"{MARKER} {i}", "stars": ("low", "high")[i % 2], "kind": "food", "author": "a"} for i in range(120)
    ]
    folder = made()
    write_rows(dataset / "train.csv", rows)
    run(folder, "--log_private", "--test_split", "train")
    said = capsys.readouterr()
    assert MARKER not in said.out + said.err
    assert not any(MARKER.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())
