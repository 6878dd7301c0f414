"""Finished runs to make pages of: real ones on stand-ins for the models, and measurements as metric.py leaves them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from apis.echo import EchoAPI
from dpsda.dry_run import HashEncoder
from dpsda.report import owner
from dpsda.report.__main__ import report
from dpsda.report.compare import compare
from dpsda.routes import augpe
from tests.conftest import options, use

# what a language model may write into a page, none of it over the length that the prompts ask for
HOSTILE = (
    "</script><script>alert('ran')</script>",
    "<img src=x onerror=alert('ran')>",
    "<!--<script>alert('ran')",
    "&lt;b&gt; &amp;quot; ' \" ` ${alert('ran')}",
    "line\u2028separator\u2029and \u202eturned",
    "\U0001f980 crab e\u0301 \u4e2d\u6587",
    "null \x00 and \x1b escape",
    "]]></style><svg onload=alert('ran')>",
)


class HostileAPI(EchoAPI):
    """Answers with text that is markup to a browser, each with a number and of a length of its own."""

    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        first = self.prompts
        self.prompts += len(prompts)
        answers = [
            f"{HOSTILE[n % len(HOSTILE)]} number {n}{' word' * (n % 7)}" for n in range(first, first + len(prompts))
        ]
        for i, answer in enumerate(answers):
            on_answer(i, answer)
        return answers


@pytest.fixture
def make_run(tmp_path: Path, dataset: Path, monkeypatch) -> Callable[..., Path]:
    """`make_run(name, **options)` is the folder of a finished run."""
    use(monkeypatch, HostileAPI)
    monkeypatch.setattr(owner, "_load", lambda name: HashEncoder())

    def make(name: str = "run", **settings) -> Path:
        settings = {"privacy": {"noise": 3.0}, **settings}  # which takes no calibration
        settings["evolution"] = {"epochs": 2, "num_seed_samples": 60, "L": 2, **settings.get("evolution", {})}
        augpe.generate(tmp_path / name, *options(dataset, **settings))
        return tmp_path / name

    return make


@pytest.fixture
def pages(capsys) -> Callable[..., list[Path]]:
    """`pages(run, ...)` are the pages of these runs, and last that of several; with `output` it is the only one."""

    def make(*runs: Path, output: Path | None = None) -> list[Path]:
        capsys.readouterr()
        if output is None:
            report(list(runs))
        made = [Path(line) for line in capsys.readouterr().out.splitlines()]
        return [*made, Path(compare(list(runs), output)[-1])] if output or len(runs) > 1 else made

    return make


def write_metrics(path: Path, nn_real: str, **more: str) -> None:
    """A file as metric.py writes it, for the two iterations of `make_run`; `nn_real` is that of the last one."""
    rows = [
        {"set": name, "texts": "60", "runs": "1", "nn_real": value, "nn_real_std": "0.01", "mauve": "n/a"}
        | {"mauve_std": "n/a", "copies_exact": "0.125", "copies_exact_std": "0", "new_one": "0.5", "new_one_std": "0"}
        | more
        | {"why": "mauve: too few texts"}
        for name, value in (("floor", "0.2"), ("0", "0.9"), ("1", "0.8"), ("2", nn_real))
    ]
    _write(path, rows)


def write_downstream(path: Path, accuracy: str, trained_on: tuple[str, ...]) -> None:
    """A file as downstream.py writes it; `accuracy` is that of the last iteration."""
    rows = [
        {"task": task, "model": "tiny", "target": target, "trained_on": name, "texts": "60", "seeds": "2"}
        | {"accuracy": accuracy if name == "2" else "0.5", "accuracy_std": "0.01", "macro_f1": "n/a"}
        | {"macro_f1_std": "", "perplexity": "50.5" if task == "lm" else "", "perplexity_std": "", "why": ""}
        for task, target in (("probe", "stars"), ("lm", "next token"))
        for name in trained_on
    ]
    _write(path, rows)


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
