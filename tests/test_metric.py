"""metric.py on whole runs: what it leaves where, that it computes nothing twice, and what it says of bad input."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from dpsda.arg_utils import parse
from dpsda.commands import COMMANDS
from dpsda.errors import InputError
from dpsda.evaluation import metrics
from dpsda.evaluation.distances import measure
from dpsda.evaluation.options import MetricOptions, SubjectOptions
from tests.conftest import number, write_rows
from tests.evaluation.conftest import encoder, made  # noqa: F401
from tests.finetune.tiny import saved

MARKER = "5d41402abc4b2a76b9719d911017c592"


def run(folder, *flags, run=2, **settings):
    subject, options = parse(
        ["--result_folder", str(folder), "--run", str(run), *flags], "", "", SubjectOptions, MetricOptions
    )
    measure(subject, options)


def table(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_a_private_reference_stays_private(made, dataset, encoder, capsys):  # noqa: F811
    folder = made()
    told = len(encoder.told)
    before = {path for path in folder.rglob("*") if "private" not in path.relative_to(folder).parts}
    run(folder)
    found = table(folder / "private" / "metrics_train.csv")
    assert list(found["set"]) == ["floor", "0", "1", "2"]
    assert list(found["texts"]) == ["24"] * 4 and set(found["runs"]) == {"2"}
    columns = [c for name in metrics.NAMES for c in (name, f"{name}_std")]
    assert list(found.columns) == ["set", "texts", "runs", *columns, "why"]
    assert (found[columns] != "n/a").all(axis=None) and (found["why"] == "").all()
    lines = (folder / "private" / "metrics_train.jsonl").read_text().splitlines()
    assert [json.loads(line)["set"] for line in lines] == ["floor", "0", "1", "2"]
    said = capsys.readouterr().out
    assert "nn_real" not in said and not number("24", said) and "metrics_train.csv" in said
    real, synthetic = set(pd.read_csv(dataset / "train.csv")["text"]), set(table(folder / "2" / "samples.csv")["text"])
    assert {private for private, text in encoder.told[told:] if text in real} == {True}
    assert {private for private, text in encoder.told[told:] if text in synthetic} == {False}
    after = {path for path in folder.rglob("*") if "private" not in path.relative_to(folder).parts}
    assert before == after
    run(folder, "--log_private")
    assert f"{float(found['fid'][0]):.4f}" in capsys.readouterr().out


def test_a_public_reference_may_be_shared(made, capsys):  # noqa: F811
    folder = made()
    run(folder, "--reference_split", "test")
    assert "nn_real" in capsys.readouterr().out
    assert len(table(folder / "metrics_test.csv")) == 4 and not list((folder / "private").glob("metrics*"))
    run(folder, "--reference_public")  # on the owner's word
    assert (folder / "metrics_train.csv").exists()


def test_texts_of_a_run_without_noise_stay_private(made, encoder, capsys):  # noqa: F811
    folder = made(privacy={"epsilon": float("inf")})
    encoder.told = []
    run(folder, "--reference_split", "test")
    assert (folder / "private" / "metrics_test.csv").exists() and not list(folder.glob("metrics*"))
    assert "nn_real" not in capsys.readouterr().out
    synthetic = set(table(folder / "private" / "2" / "samples.csv")["text"])
    assert all(private for private, text in encoder.told if text in synthetic)  # and so do their embeddings


def test_nothing_is_computed_twice(made, monkeypatch):  # noqa: F811
    folder = made()
    run(folder)
    first = (folder / "private" / "metrics_train.csv").read_bytes()
    lines = folder / "private" / "metrics_train.jsonl"
    lines.write_bytes(lines.read_bytes()[:-50])  # killed while it wrote the last row
    measured = []
    original = metrics.Yardstick.measure
    monkeypatch.setattr(
        metrics.Yardstick, "measure", lambda self, texts: measured.append(texts.name) or original(self, texts)
    )
    run(folder)
    assert measured == ["2"] and (folder / "private" / "metrics_train.csv").read_bytes() == first
    run(folder)
    assert measured == ["2"]
    run(folder, "--k", "2")  # another setting is another row
    assert measured == ["2", "0", "1", "2"]


def test_a_file_of_ones_own_and_chosen_iterations(made, tmp_path, dataset, encoder):  # noqa: F811
    folder = made()
    run(folder, "--synthetic_iteration", "last")
    assert list(table(folder / "private" / "metrics_train.csv")["set"]) == ["floor", "0", "2"]
    other = tmp_path / "other" / "mine.csv"
    other.parent.mkdir()
    pd.DataFrame({"text": [f"my text {i}" for i in range(30)]}).to_csv(other, index=False)
    given = tmp_path / "vectors.npy"
    np.save(given, np.random.default_rng(0).normal(size=(120, 16)).astype(np.float32))
    before = len(encoder.told)
    run(
        tmp_path / "elsewhere",
        *("--synthetic_file", str(other), "--dataset", str(dataset), "--original_file", str(dataset / "train.csv")),
        *("--train_data_embeddings_file", str(given)),
    )
    assert list(table(tmp_path / "elsewhere" / "private" / "mine_metrics_file.csv")["set"]) == ["floor", "mine"]
    assert not any("number 7." in text for _, text in encoder.told[before:])  # real vectors were given
    assert all(private for private, _ in encoder.told[before:])  # no run vouches for the file
    with pytest.raises(InputError, match="not one row of 16 numbers for each record"):
        np.save(given, np.zeros((119, 16), np.float32))
        run(folder, "--train_data_embeddings_file", str(given))
    with pytest.raises(InputError, match="train: too few texts"):
        np.save(given, np.full((120, 16), np.nan, np.float32))
        run(folder, "--train_data_embeddings_file", str(given))


def test_a_record_without_a_vector_stops_nothing(made, tmp_path, dataset):  # noqa: F811
    """A run that stopped because of it would tell that it is there."""
    folder, given = made(), tmp_path / "vectors.npy"
    vectors = np.random.default_rng(0).normal(size=(120, 16)).astype(np.float32)
    vectors[7], vectors[8] = np.nan, 1e30
    np.save(given, vectors)
    run(folder, "--train_data_embeddings_file", str(given))
    found = table(folder / "private" / "metrics_train.csv")
    assert list(found["set"]) == ["floor", "0", "1", "2"] and (found["fid"] != "n/a").all()


def test_an_empty_iteration_is_a_row_that_says_so(made):  # noqa: F811
    folder = made()
    samples = folder / "1" / "samples.csv"
    samples.write_text(samples.read_text().splitlines()[0] + "\r\n")
    run(folder)
    found = table(folder / "private" / "metrics_train.csv").set_index("set")
    assert found.loc["1", "fid"] == "n/a" and found.loc["1", "why"] == "0 texts"
    assert found.loc["2", "fid"] != "n/a" and found.loc["2", "texts"] == "24"


def test_a_small_set_that_decides_the_size_is_named(made, capsys):  # noqa: F811
    folder = made()
    run(folder)
    assert "texts a side in every row" not in capsys.readouterr().out
    samples = folder / "1" / "samples.csv"
    samples.write_text("\r\n".join(samples.read_text().splitlines()[:6]) + "\r\n")
    run(folder)
    assert "5 texts a side in every row: set 1 has no more" in capsys.readouterr().out
    run(folder, "--synthetic_iteration", "2")
    assert "in every row" not in capsys.readouterr().out


def test_other_weights_under_the_same_name_are_measured_again(made, encoder, monkeypatch):  # noqa: F811
    folder = made()
    run(folder)
    lines = folder / "private" / "metrics_train.jsonl"
    monkeypatch.setattr(encoder, "identity", "other weights")
    run(folder)
    assert len(lines.read_text().splitlines()) == 8


def test_short_texts_are_left_out(made, dataset):  # noqa: F811
    folder = made()
    rows = [
        {"text": f"w1 w2 w3 {i}", "stars": "low", "kind": "food", "author": "a"} for i in range(40)
    ]  # four tokens each
    write_rows(dataset / "short.csv", [*rows, *({**row, "text": f"w{i}"} for i, row in enumerate(rows))])
    run(folder, "--original_file", str(dataset / "short.csv"), "--min_token_threshold", "3")
    assert set(table(folder / "private" / "metrics_file.csv")["texts"]) == {"20"}  # half of the longer ones
    with pytest.raises(InputError, match="too few"):
        run(folder, "--original_file", str(dataset / "short.csv"), "--min_token_threshold", "4")


def test_errors_are_one_line(made, tmp_path, dataset, monkeypatch, capsys):  # noqa: F811
    folder = made()
    bad = tmp_path / "bad.csv"
    bad.write_text("words\r\nhello\r\n")
    for flags, expected in [
        (["--result_folder", tmp_path / "nowhere", "--dataset", dataset], "no iteration of a run is here"),
        (["--result_folder", tmp_path / "nowhere", "--synthetic_file", bad], "--dataset is needed"),
        (["--result_folder", folder, "--synthetic_file", bad], "has no column 'text'"),
        (["--result_folder", folder, "--synthetic_file", tmp_path / "none.csv"], "no such file"),
        (["--result_folder", folder, "--synthetic_iteration", "9"], "there are: 0, 1, 2"),
        (["--result_folder", folder, "--synthetic_iteration", "first"], "takes numbers"),
        (["--result_folder", folder, "--reference_split", "dev"], "has no split 'dev'"),
        (["--result_folder", folder, "--run", "0"], "--run has to be at least 1"),
        (["--result_folder", folder, "--train_data_embeddings_file", bad], "not a .npy file"),
    ]:
        monkeypatch.setattr("sys.argv", ["metric.py", *map(str, flags)])
        with pytest.raises(InputError) as error:
            COMMANDS["metric"]("metric.py", "")
        assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_private_text_is_never_said(made, dataset, capsys):  # noqa: F811
    rows = [{"text": f"{MARKER} {i}", "stars": "low", "kind": "food", "author": "a"} for i in range(40)]
    write_rows(dataset / "marked.csv", rows)
    folder = made()
    run(folder, "--original_file", str(dataset / "marked.csv"), "--log_private")
    said = capsys.readouterr()
    assert MARKER not in said.out + said.err
    assert not any(MARKER.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_file_that_no_run_vouches_for_is_private(made, dataset, encoder, capsys):  # noqa: F811
    """Real texts given as a synthetic file, which is a baseline that somebody will try."""
    folder = made()
    encoder.told = []
    run(folder, "--synthetic_file", str(dataset / "train.csv"), "--reference_split", "test")
    assert "nn_real" not in capsys.readouterr().out and not list(folder.glob("metrics*"))
    assert (folder / "private" / "train_metrics_test.csv").exists()
    assert len(encoder.told) > 120 and all(private for private, _ in encoder.told[-120:])


def test_another_file_under_a_public_name_is_private(made, dataset, encoder):  # noqa: F811
    """The spec declares its own file public, and not the one that the run was given in its place."""
    spec = dataset / "spec.yaml"
    spec.write_text(spec.read_text().replace("public: [test]", "public: [train, test]"))
    (dataset / "mine.csv").write_bytes((dataset / "train.csv").read_bytes())
    folder = made(data={"train_data_file": str(dataset / "mine.csv")})
    encoder.told = []
    run(folder)
    assert (folder / "private" / "metrics_train.csv").exists() and not list(folder.glob("metrics*"))
    run(folder, "--original_file", str(dataset / "mine.csv"))
    assert not list(folder.glob("metrics*"))
    assert any(private for private, _ in encoder.told)


def test_the_private_part_of_a_run_is_no_run(made):  # noqa: F811
    folder = made(privacy={"epsilon": float("inf")})
    with pytest.raises(InputError, match="give the run's own folder"):
        run(folder / "private")


def test_a_new_metric_is_in_the_rows_that_were_there(made, monkeypatch):  # noqa: F811
    folder = made()
    run(folder, "--synthetic_iteration", "last")
    path = folder / "private" / "metrics_train.csv"
    assert "words" not in table(path)
    monkeypatch.setattr(metrics, "NAMES", (*metrics.NAMES[:-3], "words", *metrics.NAMES[-3:]))
    compare = metrics._compare
    monkeypatch.setattr(metrics, "_compare", lambda *args: compare(*args) | {"words": 3.0})
    run(folder, "--synthetic_iteration", "last")
    assert (table(path)["words"] == "3.00000").all()


def test_a_language_model_as_second_encoder_tells_perplexities_too(made, encoder, monkeypatch, tmp_path, capsys):  # noqa: F811
    folder = made()
    run(folder, "--reference_split", "test", "--metric_encoder", "another")
    path = folder / "metrics_test.csv"
    assert metrics.PERPLEXITY not in table(path)
    monkeypatch.setattr(encoder, "language_model", True)
    monkeypatch.setattr(encoder, "identity", "a language model")
    run(folder, "--reference_split", "test", "--metric_encoder", saved("llama", tmp_path / "model"))
    found = table(path)[metrics.PERPLEXITY].astype(float)
    assert len(found) == 4 and (found > 1).all() and found.nunique() > 1
    assert "other_perplexity" in capsys.readouterr().out


def test_a_second_encoder_has_its_columns_beside_the_first(made, encoder, monkeypatch):  # noqa: F811
    folder = made()
    run(folder, "--synthetic_iteration", "last")
    path = folder / "private" / "metrics_train.csv"
    alone = table(path)
    monkeypatch.setattr(encoder, "told", [])
    run(folder, "--synthetic_iteration", "last", "--metric_encoder", "another")
    both = table(path)
    columns = [f"other_{name}" for name in metrics.BY_OTHER]
    assert (both[list(alone.columns)] == alone).all(axis=None) and (both[columns] != "n/a").all(axis=None)
    assert not set(columns) & set(alone.columns)
    assert (both["other_fid"] != both["fid"]).all()  # whitened
