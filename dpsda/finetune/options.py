"""What can be set about fine-tuning and about sampling from the model that comes of it."""

from __future__ import annotations

from dataclasses import dataclass

from dpsda.arg_utils import Options, option
from dpsda.errors import InputError
from dpsda.tuning.options import LoraOptions


@dataclass(frozen=True)
class TuningOptions(LoraOptions):
    """Model and task."""

    task: str = option(
        "generator",
        "generator: a causal language model, to sample texts from; classifier: an encoder that learns to "
        "predict a label column",
        choices=("generator", "classifier"),
    )
    full: bool = option(False, "train all weights; otherwise LoRA")
    conditional: bool = option(True, "generator: write the labels before each text, if the data set has labels")
    target: str | None = option(None, "classifier: the label column; default: the first one")
    test_split: str = option("test", "classifier: the split that it is tested on")
    max_length: int = option(512, "tokens of a text, its labels included; what is beyond is cut off", least=2)
    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes the GPU if there is one", free=True)
    dtype: str = option(
        "auto",
        "number format of the generator that is sampled, and without noise of its frozen weights in training; "
        "under DP, training is in float32, as records move each other's gradients in bfloat16",
        choices=("auto", "bfloat16", "float32"),
        free=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype == "bfloat16" and (self.full or self.task == "classifier"):
            raise InputError("--dtype bfloat16 is for the adapters of a generator; all other training is in float32")


@dataclass(frozen=True)
class TrainingOptions(Options):
    """Training."""

    optimizer: str = option("adam", "DP-Adam, DP-AdamW or DP-SGD", choices=("adam", "adamw", "sgd"))
    learning_rate: float = option(1e-3, "constant after the warm-up", above=0)
    warmup_steps: int = option(30, "steps in which the learning rate rises", least=0)
    weight_decay: float = option(0.0, "of the optimizer", least=0)
    clip_norm: float = option(0.5, "L2 norm to which the gradient of each record is clipped", "max_grad_norm", above=0)
    batch_size: int = option(
        1024, "records (or users) of a step, expected: each is in it by a draw of its own", least=1
    )
    epochs: float = option(10.0, "passes over the data, expected", free=True, instead_of="steps", above=0)
    steps: int | None = option(None, "steps instead", free=True, instead_of="epochs", least=1)
    checkpoint_steps: int = option(
        50, "a checkpoint after so many steps; a kill costs at most these", free=True, least=1
    )
    physical_batch_size: int = option(64, "records computed at once, at most: memory, not privacy", free=True, least=1)
    physical_tokens: int = option(2048, "and tokens computed at once, padding included", free=True, least=1)
    examples_per_user: int = option(1, "with --privacy_unit user: records of a user in a step, at most", least=1)
    label_noise: float = option(10.0, "noise multiplier of the label counts, which decide the labels of the samples")
    marginals_noise: float = option(
        5.0, "of the marginals of the attributes, which decide the rows of the samples, and their labels"
    )
    histogram_noise: float | None = option(
        None, "leave budget for one later histogram (resample.py) at this noise multiplier", free=True
    )

    def __post_init__(self) -> None:
        from dpsda.privacy.accounting import check_noise

        super().__post_init__()
        for name in ("label_noise", "marginals_noise", "histogram_noise"):
            if getattr(self, name) is not None:
                check_noise(getattr(self, name), f"--{name}")


@dataclass(frozen=True)
class SamplingOptions(Options):
    """Sampling from the trained generator. It costs no privacy."""

    num_samples: int = option(
        10000,
        "texts to draw; empty ones and exact repeats are dropped. A larger number goes on from a smaller",
        free=True,
        least=1,
    )
    length: int = option(64, "tokens of a text, at most", least=1)
    temperature: float = option(1.0, "sampling temperature", above=0)
    top_k: int = option(
        1000, "sample from the k likeliest tokens; 0 = off, which sorts the vocabulary at every token", least=0
    )
    top_p: float = option(0.95, "and from the smallest set of them that has this probability; 1 = off", above=0, most=1)
    shard_size: int = option(2048, "texts of a shard; a kill costs at most one", least=1)
    sampling_batch_size: int | None = option(
        None, "texts decoded together; default: chosen for the device", free=True, least=1
    )
    skip_sampling: bool = option(False, "train only", free=True)
