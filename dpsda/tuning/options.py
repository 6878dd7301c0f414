"""What can be set about a model that is fine-tuned, whatever for."""

from __future__ import annotations

from dataclasses import dataclass

from dpsda.arg_utils import Options, option


@dataclass(frozen=True)
class LoraOptions(Options):
    """Model and adapters (LoRA: Hu et al. 2021)."""

    model_type: str = option(
        "embedded:smollm2-135m-instruct", "the public model: hub name, folder, .gguf file or embedded asset"
    )
    lora_r: int = option(8, "rank of the adapters", least=1)
    lora_alpha: float = option(16.0, "the adapters' output is scaled by this over the rank", above=0)
    lora_dropout: float = option(0.05, "dropout before the adapters, in training only", least=0, below=1)
    lora_targets: list[str] | None = option(
        None, "linear modules that get an adapter, by the end of their names; default: those of the attention"
    )
