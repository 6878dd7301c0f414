"""What can be set about any run: data, privacy, model, embedding, run folder."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass

from dpsda.arg_utils import option
from dpsda.errors import InputError


@dataclass(frozen=True)
class DataOptions:
    """Data."""

    dataset: str = option(MISSING, "a folder of data/ by name, or the path of one: it holds spec.yaml and prompts.yaml")
    split: str = option("train", "the private split")
    train_data_file: str | None = option(None, "a csv or parquet file instead of the split's own")
    reference_split: str | None = option(
        None, "measure each iteration's distance to this split; shown where spec.yaml declares it public", free=True
    )


@dataclass(frozen=True)
class PrivacyOptions:
    """Privacy."""

    epsilon: float | None = option(
        None, "the budget of the whole run; inf runs without noise and protects nothing", free=True, instead_of="noise"
    )
    noise: float | None = option(
        None,
        "the noise multiplier instead; the run reports its epsilon",
        "noise_multiplier",
        free=True,
        instead_of="epsilon",
    )
    delta: float | None = option(None, "default: 1 / (n ln n) for n private units")
    privacy_unit: str = option(
        "record", "who is protected: one record, or all records of one user", choices=("record", "user")
    )
    label_counts: str = option(
        "private", "private: one more noisy release; public: they are known to everybody", choices=("private", "public")
    )

    def __post_init__(self) -> None:
        if (self.epsilon is None) == (self.noise is None):
            raise InputError("give --epsilon or --noise, and not both")
        if self.epsilon is not None and not self.epsilon > 0:
            raise InputError(f"--epsilon has to be above 0, not {self.epsilon:g}; inf means no noise")
        if self.noise is not None and not 0 < self.noise < math.inf:
            raise InputError(f"--noise has to be above 0, not {self.noise:g}; --epsilon inf runs without noise")
        if self.delta is not None and not 0 < self.delta < 1:
            raise InputError(f"--delta has to lie between 0 and 1, not at {self.delta:g}")

    @property
    def protected(self) -> bool:
        return self.epsilon != math.inf


@dataclass(frozen=True)
class ModelOptions:
    """Text generation."""

    model_type: str = option("gpt2", "a hub name, a folder, a .gguf file, or embedded:smollm2-135m-instruct")
    length: int = option(64, "new tokens of an answer, at most")
    temperature: float = option(1.0, "sampling temperature")
    top_k: int = option(50, "sample from the k likeliest tokens")
    top_p: float = option(0.9, "and from the smallest set of them that has this probability; 1 = off")
    repetition_penalty: float = option(1.0, "above 1: tokens of the context are less likely")
    do_sample: bool = option(True, "sample; otherwise take the likeliest token")
    batch_size: int | None = option(None, "rows decoded together; default: chosen for the device", free=True)
    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes the GPU if there is one", free=True)
    dtype: str = option(
        "auto", "number format of the weights", choices=("auto", "bfloat16", "float16", "float32"), free=True
    )

    def __post_init__(self) -> None:
        if self.length < 1 or self.top_k < 1:
            raise InputError("--length and --top_k have to be at least 1")
        if self.temperature <= 0 or self.repetition_penalty <= 0 or not 0 < self.top_p <= 1:
            raise InputError("--temperature and --repetition_penalty have to be above 0, --top_p in (0, 1]")


@dataclass(frozen=True)
class EmbeddingOptions:
    """Embedding."""

    feature_extractor: str = option(
        "embedded:all-minilm-l6-v2", "a sentence-transformers model: hub name, folder or embedded asset", "feat_ext"
    )


@dataclass(frozen=True)
class RunOptions:
    """Run."""

    result_folder: str = option(MISSING, "where the run lies; the same command continues what is there", free=True)
    seed: int = option(0, "steers prompts and text sampling; privacy noise never has a seed")
    log_private: bool = option(False, "show figures on private data, which nothing protects", free=True)
    dry_run: bool = option(False, "walk the whole loop without a model call, and keep nothing", free=True)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"--seed has to be at least 0, not {self.seed}")
