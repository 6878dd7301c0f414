"""A tiny random chat model, a run folder that vouches for its files, and the command line."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dpsda.alignment.options import TrainingOptions
from dpsda.commands import COMMANDS
from dpsda.privacy import certificate
from dpsda.privacy.files import sha256, write_json
from dpsda.privacy.ledger import Ledger

ROOT = Path(__file__).resolve().parents[2]
WORDS = [f"w{i}" for i in range(40)]
MARKS = ["[PAD]", "[UNK]", "<end>", "<system>", "<user>", "<assistant>", "A", "B"]
TEMPLATE = (
    "{% for turn in messages %}<{{ turn.role }}> {{ turn.content }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
PAIRS = [(f"w{i} w{i + 1}", f"w{39 - i} w{i}") for i in range(32)]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    """The folder of a random Llama of two layers whose tokens are words, with a chat template."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*MARKS, *WORDS])}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="<end>", chat_template=TEMPLATE
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(MARKS) + len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
        initializer_range=0.3,  # at the usual .02 the frozen weights let little of an adapter through
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def training(tiny):
    """`training(**settings)` are options that a tiny model learns quickly with."""

    def make(**settings) -> TrainingOptions:
        few = {"epochs": 20, "batch_size": 16, "learning_rate": 2e-2, "lora_r": 8, "save_steps": 10**6}
        few["lora_targets"] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        return TrainingOptions(**{"model_type": tiny, "dtype": "float32", "device": "cpu", **few, **settings})

    return make


@pytest.fixture
def run(tmp_path) -> Path:
    """The folder of a run with a guarantee, as far as its files are concerned: 24 released instructions."""
    folder = tmp_path / "run"
    (folder / "release").mkdir(parents=True)
    rows = "".join(f"{i},,{text}\n" for i, (text, _) in enumerate(PAIRS[:24]))
    (folder / "release" / "synthetic.csv").write_text(f"id,parent_id,text\n{rows}")
    certify(folder)
    return folder


def certify(folder: Path, **ledger) -> None:
    """A ledger without a spend, and a certificate of what lies in the folder's release."""
    with contextlib.closing(Ledger(folder, **ledger)) as book:
        if not book.lines:
            book._append("open", {"unit": "record", "units": 100, "delta": 1e-5, "relation": "add_remove", "facts": {}})
        certificate.publish(book, certificate.build(book), {})


def as_a_step(path: Path) -> Path:
    """`path`, vouched for as the result of a step of the pipeline."""
    write_json(path.parent / "done.json", {"files": {path.name: sha256(path)}})
    return path


def write_pairs(path: Path, pairs=PAIRS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("instruction,answer\n" + "".join(f"{text},{answer}\n" for text, answer in pairs))
    return path


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"} | more


def command(*words: object) -> list[str]:
    return [sys.executable, str(ROOT / "align.py"), *map(str, words)]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def align(monkeypatch, capsys):
    """`align(*words)` is what `python align.py WORDS` does, in this process."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["align.py", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            COMMANDS["align"].main("align.py", "")
        return Done(stop.value.code, *capsys.readouterr())

    return call
