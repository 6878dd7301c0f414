"""What can be set about an ensemble, its answers and its evaluation."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass
from pathlib import Path

from dpsda.arg_utils import another_default, option
from dpsda.errors import InputError
from dpsda.tuning.options import LoraOptions

PROJECTIONS = ("auto", "max", "renyi", "paper")


@dataclass(frozen=True)
class EnsembleOptions(LoraOptions):
    """Ensemble: one adapter a shard on one base model. The defaults are those of Flemings et al. 2024."""

    privacy_unit: str = option(
        "record", "who is protected: one record, or all records of one user", choices=("record", "user")
    )
    shards: int = option(80, "models; a private unit is in one shard, by a hash under a secret key", "num_ensemble")
    lora_r: int = another_default(LoraOptions, "lora_r", 4)
    lora_alpha: float = another_default(LoraOptions, "lora_alpha", 32.0)
    lora_dropout: float = another_default(LoraOptions, "lora_dropout", 0.1)
    conditional: bool = option(True, "write the labels before each text, if the data set has labels")
    block_length: int = option(512, "tokens of a block; a longer text becomes several")
    max_blocks: int | None = option(None, "blocks of a text, at most; default: all of it")
    epochs: int = option(15, "passes of each model over its shard")
    learning_rate: float = option(2e-4, "at the end of the warm-up; falls to zero by the end")
    warmup_steps: int = option(500, "steps in which the learning rate rises, and at most a tenth of all")
    weight_decay: float = option(0.01, "of AdamW")
    batch_size: int = option(8, "blocks of a step")
    seed: int = option(0, "steers first weights, dropout and the order of blocks; shards and answers never have a seed")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("shards", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} has to be at least 1, not {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf or self.warmup_steps < 0 or not 0 <= self.weight_decay < math.inf:
            raise InputError("--learning_rate has to be above 0, --warmup_steps and --weight_decay at least 0")
        if self.seed < 0:
            raise InputError(f"--seed has to be at least 0, not {self.seed}")
        if self.block_length < 8 or (self.max_blocks or 1) < 1:
            raise InputError("--block_length has to be at least 8, and --max_blocks at least 1")


@dataclass(frozen=True)
class FolderOptions:
    """Run."""

    result_folder: str = option(MISSING, "where the run lies; the same command continues what is there", free=True)


@dataclass(frozen=True)
class HardwareOptions:
    """Device."""

    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes the GPU if there is one", free=True)
    dtype: str = option("auto", "number format of the base model", choices=("auto", "bfloat16", "float32"), free=True)


@dataclass(frozen=True)
class MechanismOptions:
    """Mechanism of an answer."""

    inclusion: float = option(0.03, "probability with which a shard has a part in a query's answer", "p")
    projection: str = option(
        "auto",
        "how a shard's law is kept near the public one: max (max-divergence), renyi, auto (the one of these two that "
        "keeps more of what was learned), or paper, as published, which is no verified guarantee",
        choices=PROJECTIONS,
    )
    aggregation: str = option(
        "pmixed", "pmixed; or dclip: the mean of all shards' clipped logits", choices=("pmixed", "dclip")
    )
    order: int = option(3, "of the Renyi divergence in --projection paper", "alpha")
    queries: int = option(1024, "answers, a token each, that the budget is for", "query_budget", free=True)

    def __post_init__(self) -> None:
        _check(self.inclusion, self.order, self.queries)

    @property
    def method(self) -> str:
        """What dpsda.pmixed.planning calls it."""
        return "dclip" if self.aggregation == "dclip" else self.projection


@dataclass(frozen=True)
class AnswerOptions:
    """Texts from answers, until the queries are spent."""

    num_samples: int = option(10000, "texts, at most", free=True)
    length: int = option(64, "tokens of a text, at most")
    prompts: str | None = option(None, "a csv or parquet file of public texts (column prompt or text) to be continued")
    temperature: float = option(1.0, "of the laws, before they are projected")
    top_k: int = option(
        0,
        "draw from the public model's k likeliest tokens, with dclip extended as in InvisibleInk; 0 = all",
    )
    label_noise: float = option(10.0, "noise multiplier of the label counts, which decide the labels of the texts")
    together: int = option(8, "texts written side by side")
    block_queries: int = option(256, "answers stored at a time; a kill costs these to redo")

    def __post_init__(self) -> None:
        from dpsda.privacy.accounting import check_noise

        for name in ("num_samples", "length", "together", "block_queries"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} has to be at least 1, not {getattr(self, name)}")
        if self.top_k < 0 or not 0 < self.temperature < math.inf:
            raise InputError("--top_k has to be at least 0, and --temperature above 0")
        check_noise(self.label_noise, "--label_noise")


@dataclass(frozen=True)
class PerplexityOptions:
    """Evaluation: the perplexity of texts that no model was trained on. It spends no query, and is a private figure."""

    name: str = option("perplexity", "the table's name: private/NAME.csv")
    test_split: str = option("test", "the split")
    epsilons: list[float] | None = option(None, "budgets; default: 8")
    delta: float = option(1e-5, "of every budget")
    methods: list[str] | None = option(None, "of max, renyi, paper and dclip; default: all of them")
    order: int = option(3, "of the paper's projection, or the next that leaves something of the budget", "alpha")
    queries: int = option(1024, "tokens that are predicted in a run, and that the budget is for")
    runs: int = option(8, "runs, each over other texts")
    inclusion: float = option(0.03, "probability with which a shard has a part in a query's answer", "p")
    compare: list[str] | None = option(
        None, "runs of finetune.py, or of train --shards 1, on the same model: measured beside it"
    )
    seed: int = option(0, "steers which texts are asked for; samples of shards never have a seed")
    log_private: bool = option(False, "show the table")

    def __post_init__(self) -> None:
        from dpsda.privacy.accounting import check_budget

        known = ("max", "renyi", "paper", "dclip")
        for method in self.methods or ():
            if method not in known:
                raise InputError(f"--methods {method}: there are {', '.join(known)}")
        for epsilon in self.epsilons or ():
            check_budget(epsilon, "--epsilons")
        if not 0 < self.delta < 1:
            raise InputError(f"--delta has to lie between 0 and 1, not at {self.delta:g}")
        if self.runs < 1 or self.seed < 0:
            raise InputError("--runs has to be at least 1, and --seed at least 0")
        if not self.name or Path(self.name).name != self.name:
            raise InputError(f"--name {self.name}: is the name of a file in private/, without a folder")
        _check(self.inclusion, self.order, self.queries)


def _check(inclusion: float, order: int, queries: int) -> None:
    if not 0 < inclusion <= 1:
        raise InputError(f"--inclusion has to be above 0 and at most 1, not {inclusion:g}")
    if order < 2:
        raise InputError(f"--order has to be an integer above 1, not {order}")
    if queries < 1:
        raise InputError(f"--queries has to be at least 1, not {queries}")
