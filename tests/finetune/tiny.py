"""Tiny random models of several families, whose words are w0, w1, ... and the fields of the made-up data set."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

WORDS = [
    "A",
    "thing",
    "number",
    "stars:",
    "low",
    "high",
    "kind:",
    "food",
    "film",
    "book",
    "|",
    *(f"w{i}" for i in range(35)),
]
SIZE = len(WORDS) + 2
# of every family that `tiny` has no settings of its own for; the names are those of many
SMALL = {
    "vocab_size": SIZE,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "num_local_experts": 2,
    "num_experts_per_tok": 1,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def words_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<end>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")
    wrapped.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return wrapped


def tiny(kind: str, tied: bool = True) -> torch.nn.Module:
    """A random model of two layers."""
    torch.manual_seed(0)
    common = {"vocab_size": SIZE, "tie_word_embeddings": tied, "bos_token_id": 0, "eos_token_id": 0}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **common))
    if kind == "bert":
        small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        return BertForMaskedLM(BertConfig(vocab_size=SIZE, max_position_embeddings=64, **small))
    if kind != "llama":
        named = {**AutoConfig.for_model(kind).to_dict(), **AutoConfig.for_model(kind).attribute_map}
        config = AutoConfig.for_model(kind, **{name: value for name, value in SMALL.items() if name in named})
        return AutoModelForCausalLM.from_config(config)
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            **common,
        )
    )


def saved(kind: str, folder: Path) -> str:
    tiny(kind).save_pretrained(folder)
    words_tokenizer().save_pretrained(folder)
    return str(folder)
