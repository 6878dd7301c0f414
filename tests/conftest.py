"""A small made-up data set in the project's format, and a run on it with stand-ins for the models."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from apis import engines
from apis.echo import EchoAPI
from dpsda import embedding
from dpsda.attributes.options import RowOptions
from dpsda.augpe.options import AugPEOptions
from dpsda.dry_run import HashEncoder
from dpsda.options import (
    ComparedDataOptions,
    EmbeddingOptions,
    EngineOptions,
    ModelOptions,
    PrivacyOptions,
    RemoteOptions,
    TrackedRunOptions,
)

SPEC = """
text: text
labels:
  - {column: stars, domain: [low, high]}
  - {column: kind, domain: [food, film, book]}
user: author
splits:
  train: {file: train.csv}
  test: {file: train.csv, hash: [0, 0.5]}
  public: [test]
"""
PROMPTS = """
system: You write reviews.
init: "Write a {label.stars} review of a {label.kind}, about {keyword}, in a {tone} voice, in {words} words."
paraphrase: "Rewrite in a {tone} voice: {text}"
blank_fill: "Fill in the blanks: {masked}"
keywords: {kind: {food: [soup, bread], film: [a chase], book: [a plot]}}
tones: [dry, warm]
length: {min_words: 5, max_words: 12}
"""


def number(wanted: str, text: str) -> bool:
    """Whether `text` tells this number, not as a part of a longer one or of a hash or a name."""
    return re.search(rf"(?<![\w.-]){re.escape(wanted)}(?![\w.-])", text) is not None


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "stars", "kind", "author"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def dataset(tmp_path_factory) -> Path:
    return made_up(tmp_path_factory.mktemp("data") / "made_up")


def made_up(folder: Path) -> Path:
    """The folder of a data set: 120 records of 30 users in 6 label cells; the last cell is empty."""
    folder.mkdir()
    (folder / "spec.yaml").write_text(SPEC)
    (folder / "prompts.yaml").write_text(PROMPTS)
    rng = np.random.default_rng(0)
    words = ["cold", "bright", "slow", "fine", "odd", "loud", "plain", "rich", "thin", "warm"]
    write_rows(
        folder / "train.csv",
        [
            {
                "text": f'A {words[rng.integers(10)]}, "{words[rng.integers(10)]}" thing number {i}.',
                "stars": ("low", "high")[i % 2],
                "kind": ("food", "film")[i // 2 % 2] if i % 2 else ("food", "film", "book")[i // 2 % 3],
                "author": f"author {i % 30}",
            }
            for i in range(120)
        ],
    )
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> str:
    """The folder of a tiny random model of this family, as are the next two."""
    return _tiny("llama", tmp_path_factory)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory) -> str:
    return _tiny("gpt2", tmp_path_factory)


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> str:
    return _tiny("bert", tmp_path_factory)


def _tiny(kind: str, tmp_path_factory) -> str:
    from tests.finetune.tiny import saved

    return saved(kind, tmp_path_factory.mktemp(kind))


@pytest.fixture
def stand_ins(monkeypatch):
    """Runs with stand-ins for both models, but on real records."""
    use(monkeypatch)


def use(monkeypatch, api=EchoAPI, encoder=HashEncoder) -> None:
    """From here on every run asks `api()` for texts, and `encoder()` for vectors."""
    monkeypatch.setattr(engines, "engine", lambda *options, **more: api())
    monkeypatch.setattr(embedding, "Encoder", lambda *options, **more: encoder())


def options(dataset: Path, *, data=None, privacy=None, evolution=None, rows=None, engine=None, **run):
    """Options for `augpe.generate(root, *options(dataset))`."""
    return (
        ComparedDataOptions(str(dataset), **{"reference_split": "test", **(data or {})}),
        PrivacyOptions(**(privacy or {"epsilon": 4.0})),
        AugPEOptions(**{"epochs": 3, "num_seed_samples": 24, "L": 3, **(evolution or {})}),
        RowOptions(**(rows or {})),
        ModelOptions(),
        RemoteOptions(),
        EmbeddingOptions(),
        EngineOptions(**(engine or {})),
        TrackedRunOptions(**{"result_folder": "unused", **run}),
    )


@pytest.fixture
def cores():
    """Sets how many threads PyTorch has, for one test."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
