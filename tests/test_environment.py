"""environment.yml and scripts/setup.sh install what pyproject.toml says."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

import main

ROOT = Path(main.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())
PIP = next(item["pip"] for item in CONDA["dependencies"] if isinstance(item, dict))


def extras(line: str) -> set[str]:
    """The extras with which a line installs this project, editable."""
    return set(re.fullmatch(r"-e '?\.\[(.+)\]'?", line)[1].split(","))


def test_the_environment_has_the_name_and_the_python_that_the_readme_promises():
    assert CONDA["name"] == "augpe" and "pip" in CONDA["dependencies"]
    python = next(item for item in CONDA["dependencies"] if str(item).startswith("python="))
    requires = Requirement(f"python{PROJECT['requires-python']}")
    assert requires.specifier.contains(python.removeprefix("python="))


def test_every_pin_of_the_environment_is_that_of_the_project():
    pins = {Requirement(line).name: Requirement(line) for line in PROJECT["dependencies"]}
    others = [Requirement(line) for line in PIP if not line.startswith("-e ")]
    assert [other.name for other in others] == ["torch"]
    assert all(str(other) == str(pins[other.name]) for other in others)
    assert re.fullmatch(r"==[\d.]+", str(pins["torch"].specifier))


def test_the_environment_and_setup_install_the_same_extras_and_they_exist():
    installed = [extras(line) for line in PIP if line.startswith("-e ")]
    setup = re.findall(r"-e '\.\[.+\]'", (ROOT / "scripts" / "setup.sh").read_text())
    assert installed == [extras(line) for line in setup]
    (names,) = installed
    known = PROJECT["optional-dependencies"]
    assert names <= set(known)
    # the tests run the notebooks, so what they install has to bring the notebooks' extra along
    assert f"{PROJECT['name']}[notebook]" in known["test"] and "notebook" in known
