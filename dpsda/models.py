"""Pretrained models that are fine-tuned, by hub name, folder or embedded asset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dpsda.assets import resolve
from dpsda.errors import InputError, first_line
from dpsda.privacy.files import sha256

FILES = ("*.json", "*.safetensors", "*.bin")  # what a model's folder is told by


def identity(name: str) -> str:
    """A hash of the files of a model that lie here, wherever that is, or of the name of one from the hub. A GGUF file
    counts itself: its dense copy may differ from one machine to the next."""
    path = Path(resolve(name)).expanduser()
    files = [path] if path.is_file() else [file for kind in FILES for file in sorted(path.glob(kind))]
    told = [f"{file.name} {sha256(file)}" for file in files] or [name]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def linear_modules(model: Any) -> set[str]:
    """The last parts of the names of the model's linear modules."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}


def load_tokenizer(name: str, called: str | None = None):
    """The tokenizer of a model, with a token for padding."""
    import transformers

    tokenizer = _loaded(name, lambda path: transformers.AutoTokenizer.from_pretrained(path), called)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(kind: str, name: str, *, called: str | None = None, bfloat16: bool = False, **config: Any):
    """(model, tokenizer) of transformers' class `kind`, in float32 or bfloat16, with `config` in place before it is
    built. `called` is what the user calls it, where that is another name."""
    import torch
    import transformers

    dtype = torch.bfloat16 if bfloat16 else torch.float32

    def load(path: str):
        settings = transformers.AutoConfig.from_pretrained(path, **config)
        return getattr(transformers, kind).from_pretrained(path, config=settings, dtype=dtype)

    tokenizer, model = load_tokenizer(name, called), _loaded(name, load, called)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def most_tokens(model: Any, wanted: int) -> int:
    """`wanted` tokens of a text, or what the model has positions for, in whole eights as batches are."""
    positions = getattr(model.config, "max_position_embeddings", None) or wanted
    return wanted if wanted <= positions - positions % 8 else positions - positions % 8


def _loaded(name: str, load: Callable[[str], Any], called: str | None) -> Any:
    from transformers.utils.logging import disable_progress_bar, get_verbosity, set_verbosity, set_verbosity_error

    disable_progress_bar()
    before = get_verbosity()
    set_verbosity_error()  # that a new head has new weights is the point
    try:
        return load(resolve(name))
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot load the model {called or name!r} ({first_line(error)}); give a folder or hub name, or "
            "embedded:all-minilm-l6-v2 (an encoder) or embedded:smollm2-135m-instruct, which need no model hub"
        ) from None
    finally:
        set_verbosity(before)
