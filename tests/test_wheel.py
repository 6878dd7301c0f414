"""What is installed without a clone: the wheel has the data sets, and its commands work in any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel installs. It is built from copies, so that no file of this clone is touched."""
    source = tmp_path_factory.mktemp("source")
    for name in ("apis", "dpsda", "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.csv*", "*.parquet"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "data/yelp/train.csv").write_text("text\nprivate\n")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", source / "dist"]
    subprocess.run([*build, source], check=True, capture_output=True)
    [wheel] = (source / "dist").glob("*.whl")
    folder = tmp_path_factory.mktemp("installed")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def dpsda(installed: Path, cwd: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dpsda", *options]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_a_wheel_has_the_data_sets_and_no_data(installed):
    there = {str(path.relative_to(installed / "dpsda/data_sets")) for path in installed.glob("dpsda/data_sets/*/*")}
    assert {"yelp/spec.yaml", "yelp/hf.yaml", "rotten_tomatoes/quickstart.yaml", "pubmed/prompts.yaml"} <= there
    assert not any(name.endswith(".csv") for name in there)


def test_the_quickstart_is_found_in_any_folder(installed, tmp_path):
    done = dpsda(installed, tmp_path, "augpe", "--config", "data/rotten_tomatoes/quickstart.yaml", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "epsilon 4" in done.stdout and list(tmp_path.iterdir()) == []


def test_a_new_data_set_lies_where_the_command_is_given(installed, tmp_path):
    (tmp_path / "notes.csv").write_text("note\nA private note.\n")
    options = ["--data", "notes.csv", "--text", "note", "--describe", "a short note"]
    done = dpsda(installed, tmp_path, "new", "notes", *options)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "data/notes").iterdir()} == {"spec.yaml", "prompts.yaml", "augpe.yaml"}
    unknown = dpsda(
        installed, tmp_path, "augpe", "--dataset", "note", "--epsilon", "4", "--result_folder", "run", "--dry_run"
    )
    assert unknown.returncode == 2 and "notes, " in unknown.stderr and "yelp" in unknown.stderr
