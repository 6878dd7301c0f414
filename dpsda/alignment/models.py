"""Causal models and adapters for the trainers, and one folder of both for the engine that decodes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Protocol

from transformers.utils.logging import disable_progress_bar

from dpsda import models
from dpsda.alignment.step import check_adapter
from dpsda.devices import is_bfloat16, pick_device
from dpsda.tuning.adapter import load_adapter


class Precision(Protocol):
    """The part of some options that says in which number format weights are."""

    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...


def quiet() -> None:
    """No message of the libraries: some of trl's quote tokens of the texts, which may be private."""
    import datasets

    warnings.filterwarnings("ignore", module=r"(transformers|peft|trl|torch|accelerate)\.")
    for name in ("trl", "transformers", "datasets", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bar()
    datasets.disable_progress_bars()


def load(name: str, options: Precision, *, reward: bool = False) -> tuple[Any, Any]:
    """(model, tokenizer); with `reward`, a model of one figure a text."""
    quiet()
    kind, config = ("AutoModelForSequenceClassification", {"num_labels": 1}) if reward else ("AutoModelForCausalLM", {})
    bfloat16 = is_bfloat16(options.dtype, pick_device(options.device))
    model, tokenizer = models.load_model(kind, name, bfloat16=bfloat16, **config)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def with_adapter(model: Any, adapter: Path, *, trainable: bool = False) -> Any:
    """`model` with the adapter in a folder on top; InputError where the two do not fit."""
    return load_adapter(model, check_adapter(adapter), trainable=trainable)


def write_merged(name: str, adapter: Path, folder: Path, options: Precision) -> Path:
    """Write the model with its adapter merged into the weights to `folder`, with its tokenizer: for a decoder that
    knows no adapters. bfloat16 weights are rounded once more by the merge."""
    model, tokenizer = load(name, options)
    merged = with_adapter(model, adapter).merge_and_unload()
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
