"""LoRA on a model (Hu et al. 2021), and what is left of a training, in the format of the library that reads it."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from dpsda.errors import InputError
from dpsda.libraries import loading
from dpsda.models import linear_modules
from dpsda.tuning.options import LoraOptions

if TYPE_CHECKING:
    from peft import LoraConfig

# the linear modules of attention, as families of models call them
ATTENTION = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("query", "key", "value"),
    ("c_attn",),
    ("query_key_value",),
    ("q_lin", "k_lin", "v_lin"),
)


def lora_config(
    model: nn.Module, options: LoraOptions, task_type: str, without: Sequence[str] = (), **more: Any
) -> LoraConfig:
    """The adapters that a training adds to `model`, to none of the modules `without`. InputError where it lacks the
    target modules, with those that it has."""
    from peft import LoraConfig

    there = linear_modules(model) - set(without)
    wanted = options.lora_targets or next((list(names) for names in ATTENTION if set(names) <= there), [])
    missing = [module for module in wanted if module.rpartition(".")[2] in without or not _found(model, module)]
    if missing or not wanted:
        what = f"no linear module {', '.join(missing)}" if missing else "none of the attention modules that are known"
        raise InputError(f"{options.model_type} has {what}; --lora_targets takes of: {', '.join(sorted(there))}")
    return LoraConfig(
        r=options.lora_r,
        lora_alpha=options.lora_alpha,  # type: ignore[arg-type]  # only divided by the rank
        lora_dropout=options.lora_dropout,
        target_modules=wanted,
        task_type=task_type,
        **more,
    )


def add_lora(model: nn.Module, options: LoraOptions, *, task_type: str = "CAUSAL_LM") -> nn.Module:
    """`model` with adapters in float32 and all its own weights frozen, but for a classifier's head (SEQ_CLS)."""
    from peft import get_peft_model

    config = lora_config(model, options, task_type)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that GPT-2's linear modules are transposed
        return get_peft_model(model, config)


def _found(model: nn.Module, target: str) -> bool:
    from transformers.pytorch_utils import Conv1D

    return any(
        isinstance(module, nn.Linear | Conv1D) and (name == target or name.endswith(f".{target}"))
        for name, module in model.named_modules()
    )


def export_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write all weights and the tokenizer to `folder`, which appears when it is complete. No path of this machine."""

    def write(scratch: Path) -> None:
        model.config._name_or_path = ""
        model.save_pretrained(scratch)
        plain(tokenizer).save_pretrained(scratch)

    settle(write, folder)


def export_adapter(model: Any, name: str, folder: Path) -> None:
    """Write the adapter as peft reads it to `folder`, which appears when it is complete. Nothing in it but weights, the
    name of the model, without the path of a local one, and settings."""

    def write(scratch: Path) -> None:
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        tensors = get_peft_model_state_dict(model)
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, scratch / "adapter_model.safetensors"
        )
        config = model.peft_config["default"]
        before = config.base_model_name_or_path, config.inference_mode
        config.base_model_name_or_path, config.inference_mode = public_name(name), True
        config.save_pretrained(scratch)
        config.base_model_name_or_path, config.inference_mode = before

    settle(write, folder)


def load_adapter(model: nn.Module, adapter: Path, *, trainable: bool = False) -> Any:
    """`model` with the adapter in a folder on top. InputError where that is damaged, or of another model."""
    from peft import PeftModel

    with loading(f"the adapter {adapter}", "it has to be whole, and one of this model"), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")  # which would be as if untrained
        return PeftModel.from_pretrained(model, str(adapter), is_trainable=trainable)


def merge(base: nn.Module, tokenizer: Any, adapter: Path, folder: Path) -> None:
    """Write `base` with the adapter's products added to its weights, a model like any other."""

    def write(scratch: Path) -> None:
        whole = load_adapter(base, adapter).merge_and_unload()
        whole.save_pretrained(scratch)
        plain(tokenizer).save_pretrained(scratch)

    settle(write, folder)


def plain(tokenizer: Any) -> Any:
    """Without its chat template: the model has learned texts, not a conversation."""
    tokenizer.chat_template = None
    return tokenizer


def public_name(model: str) -> str:
    """A model as others know it: of a local path its last part."""
    return Path(model).name if Path(model).exists() or Path(model).is_absolute() else model


def settle(write: Callable[[Path], None], folder: Path) -> None:
    """Have a folder written under another name and take its own when it is complete."""
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        write(scratch)
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
