"""The worked example of docs/own_data.md: what the page tells a user to paste works, and prints what the page shows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apis.prompting import PromptBook
from dpsda.data import DatasetSpec, load

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def block() -> list[str]:
    """The lines of the one bash block."""
    (code,) = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return code.splitlines()


@pytest.fixture(scope="module")
def pasted(block, tmp_path_factory) -> tuple[Path, str]:
    """A copy of the repository in which the block was run up to its dry run, and what that printed.

    A copy, not links: Python follows the link of main.py and would take `data/` from where that leads.
    """
    here = tmp_path_factory.mktemp("clone")
    shutil.copy(ROOT / "main.py", here)
    for name in ("apis", "dpsda", "docs"):
        shutil.copytree(ROOT / name, here / name, ignore=shutil.ignore_patterns("__pycache__"))
    (here / ".venv").symlink_to(sys.prefix)
    last = next(i for i, line in enumerate(block) if line.endswith("--dry_run"))
    done = subprocess.run(
        ["bash", "-euc", "\n".join(block[: last + 1])], cwd=here, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return here, done.stdout


def test_the_block_is_short_and_ends_in_a_verified_run(block):
    assert len(block) < 5
    assert sum("dpsda augpe" in line for line in block) == 1  # the dry run and the run are the same command
    assert block[-1] == "$run && .venv/bin/dpsda verify results/tickets"


def test_every_ticket_is_loaded(pasted):
    corpus = load(DatasetSpec.read(pasted[0] / "docs" / "example"), "train")
    assert (corpus.num_records, corpus.num_users, len(corpus.dropped)) == (2000, 400, 0)
    assert set(corpus.cells) == set(range(4))
    assert any("\n" in text for text in corpus.texts) and any('"' in text for text in corpus.texts)


def test_the_prompts_check(pasted):
    folder = pasted[0] / "docs" / "example"
    PromptBook.read(folder / "prompts.yaml").check("paraphrase", DatasetSpec.read(folder).rows())


def test_the_dry_run_prints_the_signal_line_of_the_page_and_keeps_nothing(pasted):
    here, printed = pasted
    (signal,) = re.findall(r"^    (signal: .*)$", PAGE, re.MULTILINE)
    assert signal in printed.splitlines() and "warning" not in printed
    assert not (here / "results").exists()
