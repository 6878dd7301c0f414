"""Pretrained models that are fine-tuned, by hub name, folder or embedded asset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpsda.assets import resolve
from dpsda.errors import InputError
from dpsda.gguf import unpacked
from dpsda.libraries import check_no_adapter, check_whole, fit_vocabulary, loading
from dpsda.privacy.files import sha256

FILES = ("*.json", "*.safetensors", "*.bin")  # what a model's folder is told by
REMEDY = (
    "give the folder of a whole model or a hub name, or embedded:all-minilm-l6-v2 (an encoder) or "
    "embedded:smollm2-135m-instruct, which need no model hub"
)


def identity(name: str) -> str:
    """A hash of the files of a model that lie here, wherever that is, or of the name of one from the hub. A GGUF file
    counts itself: its dense copy may differ from one machine to the next."""
    path = Path(resolve(name)).expanduser()
    files = [path] if path.is_file() else [file for kind in FILES for file in sorted(path.glob(kind))]
    parts = [f"{file.name} {sha256(file)}" for file in files] or [name]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def linear_modules(model: Any) -> set[str]:
    """The last parts of the names of the model's linear modules."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def load_tokenizer(name: str):
    """The tokenizer of a model, with a token for padding. InputError where it has none that could be one."""
    from transformers import AutoTokenizer

    return _with_padding(_loaded(name, lambda path: AutoTokenizer.from_pretrained(path, trust_remote_code=False)), name)


def load_model(kind: str, name: str, *, bfloat16: bool = False, **config: Any):
    """(model, tokenizer) of transformers' class `kind`, in float32 or bfloat16, with `config` in place before it is
    built. `name` is that of a hub, a folder, a GGUF file or an embedded asset.

    Its weights are those of its files, but for the head of one that is to classify, or of an encoder that is to
    predict: that is new where they have none.
    """
    import torch
    import transformers

    dtype = torch.bfloat16 if bfloat16 else torch.float32
    tokenizer = load_tokenizer(name)

    def load(path: str):
        settings = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False, **config)
        model, missing = getattr(transformers, kind).from_pretrained(
            path,
            config=settings,
            dtype=dtype,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        encoder = "is_decoder" in config and type(model).__name__ not in (settings.architectures or [])
        new_head = kind != "AutoModelForCausalLM" or encoder
        check_whole(name, missing, f"{model.base_model_prefix}." if new_head else "")
        fit_vocabulary(name, tokenizer, model.get_input_embeddings().weight.shape[0])
        with torch.no_grad():  # what fails in the first forward pass alone, fails here
            model(input_ids=torch.tensor([tokenizer("a b")["input_ids"] or [0]]))
        return model

    model = _loaded(name, load)
    _with_padding(tokenizer, name)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def most_tokens(model: Any, wanted: int) -> int:
    """`wanted` tokens of a text, or what the model has positions for, in whole eights as batches are."""
    positions = getattr(model.config, "max_position_embeddings", None) or wanted
    return wanted if wanted <= positions - positions % 8 else positions - positions % 8


def _loaded(name: str, load: Callable[[str], Any]) -> Any:
    with loading(f"the model {name!r}", REMEDY):
        path = unpacked(name)
        check_no_adapter(name, path)
        return load(path)


def _with_padding(tokenizer: Any, name: str) -> Any:
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise InputError(f"{name}: its tokenizer has neither a padding nor an end token; take another model")
    return tokenizer
