"""What is installed without a clone: the wheel has the data sets, and its commands work in any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The source archive. It is made of copies, so that no file of this clone is touched."""
    source = tmp_path_factory.mktemp("source")
    for name in ("apis", "dpsda", "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.csv*", "*.parquet"))
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "data/yelp/train.csv").write_text("text\nprivate\n")
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    [made] = (source / "dist").iterdir()
    return made


@pytest.fixture(scope="module")
def installed(archive, tmp_path_factory) -> Path:
    """A folder with what the wheel installs. The wheel is built from the source archive, as `python -m build` does it:
    one that is built from a clone has more to build from."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*build, archive], check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    return folder / "installed"


def dpsda(installed: Path, cwd: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dpsda", *options]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_a_wheel_has_the_data_sets_and_no_data(archive, installed):
    there = {path.relative_to(installed / "dpsda/data_sets") for path in installed.glob("dpsda/data_sets/**/*.*")}
    kept = {path.relative_to(ROOT / "data") for path in ROOT.glob("data/**/*") if path.suffix in (".yaml", ".md")}
    assert there == kept and Path("rotten_tomatoes/quickstart.yaml") in there
    with tarfile.open(archive) as files:
        assert not any(name.endswith(".csv") for name in files.getnames())


def test_a_wheel_says_for_which_pythons_it_is(installed):
    [path] = installed.glob("*.dist-info/METADATA")
    told = message_from_string(path.read_text())
    assert all(SpecifierSet(told["Requires-Python"]).contains(version) for version in PYTHONS)
    named = {line.rpartition(" ")[2] for line in told.get_all("Classifier") if ":: Python ::" in line}
    assert named == set(PYTHONS)


EVERY_MODULE = """
import importlib, json, pkgutil, sys
sys.modules |= dict.fromkeys(json.loads(sys.argv[1]))  # None: as if it were not installed
from dpsda.errors import InputError
for package in ("apis", "dpsda"):
    for module in pkgutil.walk_packages([f"{sys.argv[2]}/{package}"], f"{package}."):
        try:
            assert importlib.import_module(module.name).__file__.startswith(sys.argv[2])
        except InputError as error:
            print(module.name, error)
"""


def test_every_module_imports_from_a_wheel_without_any_extra(installed, tmp_path):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {Requirement(line).name.replace("-", "_") for lines in extras.values() for line in lines} - {"dpsda"}
    command = [sys.executable, "-c", EVERY_MODULE, json.dumps(sorted(names)), str(installed)]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # the one that says at once what it needs, and how that is installed without a clone
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["dpsda.routes.align"]
    assert "pip install 'dpsda[alignment]'" in done.stdout


def test_the_quickstart_is_found_in_any_folder(installed, tmp_path):
    done = dpsda(installed, tmp_path, "augpe", "--config", "data/rotten_tomatoes/quickstart.yaml", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert "epsilon 4" in done.stdout and list(tmp_path.iterdir()) == []


def test_a_new_data_set_lies_where_the_command_is_given(installed, tmp_path):
    (tmp_path / "notes.csv").write_text("note\nA private note.\n")
    options = ["--data", "notes.csv", "--text", "note", "--describe", "a short note"]
    done = dpsda(installed, tmp_path, "new", "notes", *options)
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "data/notes").iterdir()}
    assert written == {"spec.yaml", "prompts.yaml", "augpe.yaml", "finetune.yaml"}
    unknown = dpsda(
        installed, tmp_path, "augpe", "--dataset", "note", "--epsilon", "4", "--result_folder", "run", "--dry_run"
    )
    assert unknown.returncode == 2 and "notes, " in unknown.stderr and "yelp" in unknown.stderr
