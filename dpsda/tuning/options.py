"""What can be set about a model that is fine-tuned, whatever for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpsda.arg_utils import option
from dpsda.errors import InputError


@dataclass(frozen=True)
class LoraOptions:
    """Model and adapters (LoRA: Hu et al. 2021)."""

    model_type: str = option(
        "embedded:smollm2-135m-instruct", "the public model: hub name, folder, .gguf file or embedded asset"
    )
    lora_r: int = option(8, "rank of the adapters")
    lora_alpha: float = option(16.0, "the adapters' output is scaled by this over the rank")
    lora_dropout: float = option(0.05, "dropout before the adapters, in training only")
    lora_targets: list[str] | None = option(
        None, "linear modules that get an adapter, by the end of their names; default: those of the attention"
    )

    def __post_init__(self) -> None:
        if self.lora_r < 1 or not 0 < self.lora_alpha < math.inf or not 0 <= self.lora_dropout < 1:
            raise InputError("--lora_r has to be at least 1, --lora_alpha above 0 and finite, --lora_dropout in [0, 1)")
