"""Tiny models, and a run whose evaluation takes seconds, on stand-ins for the encoder and the model of the texts."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from dpsda.dry_run import HashEncoder
from dpsda.routes import augpe
from tests.conftest import options

WORDS = [f"w{i}" for i in range(40)]


def words_tokenizer() -> PreTrainedTokenizerFast:
    """Every word is a token; unknown ones are [UNK]."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


def tiny_model(kind: str, folder: Path) -> str:
    """A saved random model of two layers whose words are w0, w1, ..."""
    torch.manual_seed(0)
    size = len(WORDS) + 2
    if kind == "bert":
        config = BertConfig(
            vocab_size=size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=128,
        )
        model = BertForMaskedLM(config)
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=128))
    model.save_pretrained(folder)
    words_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session", params=["bert", "gpt2"])
def tiny(request, tmp_path_factory) -> str:
    return tiny_model(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> str:
    return tiny_model("bert", tmp_path_factory.mktemp("bert"))


class StandInEncoder(HashEncoder):
    """As much of an encoder as an evaluation needs, and a note of what it was told is private."""

    dim, identity, device, language_model = 16, "stand-in", "cpu", False
    told: ClassVar[list[tuple[bool, str]]] = []

    def __init__(self, name: str, *, device: str = "auto") -> None:
        self.name, self.tokenizer = name, words_tokenizer()

    def embed(self, texts, *, private, desc=""):
        StandInEncoder.told += [(private, text) for text in texts]
        return super().embed(list(texts), private=private, desc=desc)


@pytest.fixture
def encoder(monkeypatch) -> type[StandInEncoder]:
    monkeypatch.setattr("dpsda.embedding.Encoder", StandInEncoder)
    StandInEncoder.told = []
    return StandInEncoder


@pytest.fixture
def made(tmp_path, dataset, stand_ins, encoder, capsys):
    """`made(**settings)` is the folder of a run of two iterations of 24 texts."""

    def make(name: str = "run", **settings) -> Path:
        settings = {"privacy": {"noise": 3.0}, "evolution": {"epochs": 2, "L": 2}, **settings}
        augpe.generate(tmp_path / name, *options(dataset, **settings))
        capsys.readouterr()
        return tmp_path / name

    return make
