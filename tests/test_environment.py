"""environment.yml and scripts/setup.sh install what pyproject.toml says."""

import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
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


def test_the_lock_pins_every_dependency_within_its_range_and_both_use_it():
    pins = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), line
            pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    wanted = [*PROJECT["dependencies"], *(x for extra in PROJECT["optional-dependencies"].values() for x in extra)]
    for needed in map(Requirement, wanted):
        if needed.name != PROJECT["name"]:
            assert needed.specifier.contains(pins[canonicalize_name(needed.name)]), needed
            assert ">=" in str(needed.specifier) or not needed.specifier, f"{needed}: a range, and no pin"
    assert "--constraint requirements.lock" in (ROOT / "scripts" / "setup.sh").read_text()
    assert PIP[:2] == ["--constraint requirements.lock", "torch"]


def test_the_environment_and_setup_install_the_same_extras_and_they_exist():
    installed = [extras(line) for line in PIP if line.startswith("-e ")]
    setup = re.findall(r"-e '\.\[.+\]'", (ROOT / "scripts" / "setup.sh").read_text())
    assert installed == [extras(line) for line in setup]
    (names,) = installed
    known = PROJECT["optional-dependencies"]
    assert names <= set(known)
    # the tests run the notebooks, so what they install has to bring the notebooks' extra along
    assert f"{PROJECT['name']}[notebook]" in known["test"] and "notebook" in known
