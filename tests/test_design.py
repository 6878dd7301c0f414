"""What the docs show is made of the code and of files of results, and is up to date."""

from __future__ import annotations

import importlib.util
import re

from tests.forks import ROOT


def script(name: str):
    """A module of docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_layers_is_up_to_date():
    picture = (ROOT / "docs" / "layers.svg").read_text()
    assert picture == script("layers").picture(), "python docs/layers.py > docs/layers.svg"


def test_the_page_of_commands_is_that_of_the_parsers():
    assert (ROOT / "docs" / "cli.md").read_text() == script("cli").page(), "python docs/cli.py > docs/cli.md"


def test_figures_are_those_of_the_results():
    """Of every figure in README.md and docs/results.md that stands between marks, and of the picture."""
    made = script("figures").pages()
    assert {path.name for path in made} == {"README.md", "results.md", "quality.svg"}
    for path, text in made.items():
        assert path.read_text() == text, "python docs/figures.py"
    assert "| **the quickstart**" in made[ROOT / "README.md"]


def test_no_link_of_a_page_leads_nowhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert "://" in link or (page.parent / link).exists(), (page.name, link)
