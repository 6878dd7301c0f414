"""What a run of Aug-PE tells while it goes on."""

from __future__ import annotations

import re

import pytest

from apis.api import Prompt
from apis.echo import EchoAPI
from dpsda.augpe import pace
from dpsda.augpe.options import AugPEOptions
from dpsda.augpe.pace import Pace
from dpsda.routes import augpe
from tests.conftest import options, use


class Counting(EchoAPI):
    """Says that each answer has 50 tokens."""

    @property
    def tokens_generated(self):
        return 50 * self.prompts


@pytest.fixture
def slow(monkeypatch):
    """A clock on which each look is ten seconds after the one before."""
    looks = iter(range(10_000))
    monkeypatch.setattr(pace.time, "monotonic", lambda: 10.0 * next(looks))


def test_answers_of_every_call_and_api_are_counted(slow, monkeypatch):
    bars = []

    class Bar:
        def __init__(self, **shown):
            bars.append((shown["desc"], shown["initial"], shown["total"]))

        def __enter__(self):
            return self

        def __exit__(self, *error):
            """Nothing is shown."""

        def update(self):
            """Nothing is shown."""

    monkeypatch.setattr("tqdm.tqdm", Bar)
    own, heard = Pace("start", later=7), []
    prompts = [Prompt("a"), Prompt("b")]
    own.over(Counting()).generate(prompts, 0, lambda *pair: heard.append(pair))
    own.step, own.later = "iteration 1/1", 0
    own.over(EchoAPI()).generate(prompts, 0)
    assert (own.answers, own.tokens, own.seconds) == (4, 100, 20.0) and len(heard) == 2
    assert bars == [("start", 0, 9), ("iteration 1/1", 2, 4)]


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, [10, 0, 20, 20, 0]),
        ({"init_L": 3}, [10, 20, 20, 20, 0]),
        ({"lookahead_degree": 2}, [10, 20, 80, 80, 0]),
        ({"lookahead_degree": 2, "select_syn_mode": "random"}, [10, 0, 20, 20, 0]),
        ({"save_syn_mode": "all", "donnot_keep_last_iter": True}, [10, 0, 30, 30, 30]),
        ({"first_texts": "samples"}, [0, 0, 20, 20, 0]),
    ],
)
def test_what_a_run_will_ask_for(settings, asked):
    chosen = AugPEOptions(epochs=3, num_seed_samples=10, L=3, **settings)
    assert [chosen.asks(t) for t in range(5)] == asked


def told(capsys) -> list[str]:
    return re.findall(r"^(?:start|iteration \d).*", capsys.readouterr().out, re.M)


def test_the_lines_of_the_steps(tmp_path, dataset, monkeypatch, capsys, slow):
    """Speed, time left, and the distances to a public reference; those to a private one where the owner asks."""
    use(monkeypatch, Counting)
    small = {"privacy": {"noise": 5.0}, "evolution": {"epochs": 2, "num_seed_samples": 12, "L": 2}}
    augpe.generate(tmp_path / "public", *options(dataset, **small))
    start, *_, last = told(capsys)
    assert re.search(r"12 texts .* s \(\d+ tokens/s\), about \d+ \w+ left$", start)
    assert re.search(r"epsilon [\d.]+ spent, nn_real [\d.]+ \([\d.]+ at the start\), fid .* s \(\d+ tokens/s\)$", last)
    private = {"data": {"reference_split": "train"}, **small}
    augpe.generate(tmp_path / "private", *options(dataset, **private))
    assert "nn_real" not in "".join(told(capsys))
    augpe.generate(tmp_path / "asked", *options(dataset, **private, log_private=True))
    assert "nn_real" in told(capsys)[-1]
    augpe.generate(tmp_path / "bare", *options(dataset, **{**small, "privacy": {"epsilon": float("inf")}}))
    assert "nn_real" not in "".join(told(capsys))
