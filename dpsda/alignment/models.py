"""Causal models and adapters for the trainers, and one folder of both for the engine that decodes."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from dpsda import models
from dpsda.alignment.step import check_adapter
from dpsda.errors import InputError, first_line

EMBEDDED = "embedded:smollm2-135m-instruct"


def quiet() -> None:
    """No message of the libraries: some of trl's quote tokens of the texts, which may be private."""
    import datasets

    warnings.filterwarnings("ignore", module=r"(transformers|peft|trl|torch|accelerate)\.")
    for name in ("trl", "transformers", "datasets", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
    disable_progress_bar()
    datasets.disable_progress_bars()


def pick_device(name: str) -> torch.device:
    return torch.device(models.pick_device(name))


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, by default."""
    if name != "auto":
        return getattr(torch, name)
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def load(source: str, name: str, dtype: torch.dtype, *, reward: bool = False) -> tuple[Any, Any]:
    """(model, tokenizer) from a folder or the hub; with `reward`, a model of one figure a text. `name` is what the user
    called it."""
    quiet()
    kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = kind.from_pretrained(source, dtype=dtype, **({"num_labels": 1} if reward else {}))
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot load the model {name!r} ({first_line(error)}); give a folder or hub name, or {EMBEDDED}, which "
            "needs no model hub"
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise InputError(f"{name}: its tokenizer has neither a padding nor an end token; take another --model_type")
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def with_adapter(model: Any, adapter: Path, *, trainable: bool = False) -> Any:
    """`model` with the adapter in a folder on top; InputError where the two do not fit."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, str(check_adapter(adapter)), is_trainable=trainable)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise InputError(f"{adapter}: this adapter does not fit --model_type ({first_line(error)})") from None


def write_merged(source: str, name: str, adapter: Path, folder: Path, dtype: torch.dtype) -> Path:
    """Write the model with its adapter merged into the weights to `folder`, with its tokenizer: for a decoder that
    knows no adapters. bfloat16 weights are rounded once more by the merge."""
    model, tokenizer = load(source, name, dtype)
    merged = with_adapter(model, adapter).merge_and_unload()
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def check_targets(model: Any, name: str, targets: list[str]) -> None:
    """InputError if the model lacks one of the layers that get an adapter; it names those that there are."""
    layers = models.linear_modules(model) - {"lm_head", "score"}
    missing = [target for target in targets if target not in layers]
    if missing:
        raise InputError(
            f"{name} has no linear layer {missing[0]!r}; --lora_targets can be: {', '.join(sorted(layers))}"
        )
