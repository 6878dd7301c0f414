"""Weights & Biases: what is logged, where it lies, and what it must not hold. No network is needed."""

from __future__ import annotations

import struct

import pytest

from dpsda import tracking
from dpsda.errors import InputError
from tests.test_main import run

KEY = "5eed" * 10


@pytest.fixture(autouse=True)
def offline(monkeypatch, stand_ins):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)


def logged(folder) -> list[dict[str, str]]:
    """The rows of the one run that lies below `folder`, and its configuration as the first."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, at, rows = path.read_bytes(), 7, []
    assert len(data) < 2**15  # one block of the file's format (LevelDB's log), so that no record is cut in two
    while at < len(data):
        size = struct.unpack("<H", data[at + 4 : at + 6])[0]
        record = Record.FromString(data[at + 7 : at + 7 + size])
        at += 7 + size
        if record.HasField("run"):
            rows.insert(0, {item.key: item.value_json for item in record.run.config.update})
        if record.HasField("history"):
            rows.append({item.key or ".".join(item.nested_key): item.value_json for item in record.history.item})
    return rows


def test_a_run_logs_what_may_be_shared(tmp_path, dataset, capsys):
    run(tmp_path / "run", dataset, log_online=True, project="reviews")
    config, *rows = logged(tmp_path / "run")
    assert config["epsilon"] == "4.0" and config["model_type"] == '"gpt2"' and "train_data_file" not in config
    assert [row["iteration"] for row in rows] == ["0", "1", "2", "3"] and {row["texts"] for row in rows} == {"24"}
    assert 3.99 < float(rows[-1]["epsilon"]) <= 4 and float(rows[0]["epsilon"]) < 2
    assert all({"fid", "nn_real"} <= set(row) for row in rows)  # spec.yaml declares the reference public
    found = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert not found and KEY not in "".join(capsys.readouterr())


def test_distances_to_private_records_are_not_logged(tmp_path, dataset):
    spec = dataset / "spec.yaml"
    spec.write_text(spec.read_text().replace("public: [test]", "public: []"))
    run(tmp_path / "run", dataset, log_online=True)
    assert not any({"fid", "nn_real"} & set(row) for row in logged(tmp_path / "run"))
    run(tmp_path / "shown", dataset, log_online=True, log_private=True)
    assert all("fid" in row for row in logged(tmp_path / "shown" / "private")[1:])
    assert not (tmp_path / "shown" / "wandb").exists()


def test_a_continued_run_logs_no_iteration_twice(tmp_path, dataset):
    run(tmp_path / "run", dataset, log_online=True)
    (first,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    first.rename(tmp_path / "first")
    run(tmp_path / "run", dataset, log_online=True, evolution={"epochs": 5}, privacy={"epsilon": 6.0})
    assert [row["iteration"] for row in logged(tmp_path / "run")[1:]] == ["4", "5"]


@pytest.mark.parametrize(
    ("mode", "project", "match"), [("onlin", "p", "WANDB_MODE"), ("offline", "a/b", "wandb does not start")]
)
def test_bad_settings_are_one_line(tmp_path, dataset, monkeypatch, mode, project, match):
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(InputError, match=match):
        run(tmp_path / "run", dataset, log_online=True, project=project)


def test_without_a_network_the_run_is_logged_offline(tmp_path, dataset, monkeypatch, capsys):
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setattr(tracking, "PATIENCE", 3)
    run(tmp_path / "run", dataset, log_online=True)
    assert "wandb: cannot be reached" in capsys.readouterr().out
    assert len(logged(tmp_path / "run")) == 5
    assert not any(KEY.encode() in path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())


def test_a_run_without_noise_logs_nothing(tmp_path, dataset, capsys):
    run_options = {"privacy": {"epsilon": float("inf")}, "log_online": True}
    with pytest.raises(FileNotFoundError):  # its release lies in private/
        run(tmp_path / "run", dataset, **run_options)
    assert "nothing is logged" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.wandb"))
