"""What can be set about an ensemble, its answers and its evaluation."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from dpsda.arg_utils import Options, another_default, option
from dpsda.errors import InputError
from dpsda.tuning.options import LoraOptions

PROJECTIONS = ("auto", "max", "renyi", "paper")


@dataclass(frozen=True)
class EnsembleOptions(LoraOptions):
    """Ensemble: one adapter a shard on one base model. The defaults are those of Flemings et al. 2024."""

    privacy_unit: str = option(
        "record", "who is protected: one record, or all records of one user", choices=("record", "user")
    )
    shards: int = option(
        80, "models; a private unit is in one shard, by a hash under a secret key", "num_ensemble", least=1
    )
    lora_r: int = another_default(LoraOptions, "lora_r", 4)
    lora_alpha: float = another_default(LoraOptions, "lora_alpha", 32.0)
    lora_dropout: float = another_default(LoraOptions, "lora_dropout", 0.1)
    conditional: bool = option(True, "write the labels before each text, if the data set has labels")
    block_length: int = option(512, "tokens of a block; a longer text becomes several", least=8)
    max_blocks: int | None = option(None, "blocks of a text, at most; default: all of it", least=1)
    epochs: int = option(15, "passes of each model over its shard", least=1)
    learning_rate: float = option(2e-4, "at the end of the warm-up; falls to zero by the end", above=0)
    warmup_steps: int = option(500, "steps in which the learning rate rises, and at most a tenth of all", least=0)
    weight_decay: float = option(0.01, "of AdamW", least=0)
    batch_size: int = option(8, "blocks of a step", least=1)
    seed: int = option(
        0, "steers first weights, dropout and the order of blocks; shards and answers never have a seed", least=0
    )


@dataclass(frozen=True)
class FolderOptions(Options):
    """Run."""

    result_folder: str = option(MISSING, "where the run lies; the same command continues what is there", free=True)


@dataclass(frozen=True)
class HardwareOptions(Options):
    """Device."""

    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes the GPU if there is one", free=True)
    dtype: str = option("auto", "number format of the base model", choices=("auto", "bfloat16", "float32"), free=True)


@dataclass(frozen=True)
class MechanismOptions(Options):
    """Mechanism of an answer."""

    inclusion: float = option(
        0.03, "probability with which a shard has a part in a query's answer", "p", above=0, most=1
    )
    projection: str = option(
        "auto",
        "how a shard's law is kept near the public one: max (max-divergence), renyi, auto (the one of these two that "
        "keeps more of what was learned), or paper, as published, which is no verified guarantee",
        choices=PROJECTIONS,
    )
    aggregation: str = option(
        "pmixed", "pmixed; or dclip: the mean of all shards' clipped logits", choices=("pmixed", "dclip")
    )
    order: int = option(3, "of the Renyi divergence in --projection paper", "alpha", least=2)
    queries: int = option(1024, "answers, a token each, that the budget is for", "query_budget", free=True, least=1)

    @property
    def method(self) -> str:
        """What dpsda.pmixed.planning calls it."""
        return "dclip" if self.aggregation == "dclip" else self.projection


@dataclass(frozen=True)
class AnswerOptions(Options):
    """Texts from answers, until the queries are spent."""

    num_samples: int = option(10000, "texts, at most", free=True, least=1)
    length: int = option(64, "tokens of a text, at most", least=1)
    prompts: str | None = option(None, "a csv or parquet file of public texts (column prompt or text) to be continued")
    temperature: float = option(1.0, "of the laws, before they are projected", above=0)
    top_k: int = option(
        0,
        "draw from the public model's k likeliest tokens, with dclip extended as in InvisibleInk; 0 = all",
        least=0,
    )
    label_noise: float = option(10.0, "noise multiplier of the label counts, which decide the labels of the texts")
    together: int = option(8, "texts written side by side", least=1)
    block_queries: int = option(256, "answers stored at a time; a kill costs these to redo", least=1)

    def __post_init__(self) -> None:
        from dpsda.privacy.accounting import check_noise

        super().__post_init__()
        check_noise(self.label_noise, "--label_noise")


@dataclass(frozen=True)
class PerplexityOptions(Options):
    """Evaluation: the perplexity of texts that no model was trained on. It spends no query, and is a private figure."""

    name: str = option("perplexity", "the table's name: private/NAME.csv")
    test_split: str = option("test", "the split")
    epsilons: list[float] | None = option(None, "budgets; default: 8")
    delta: float = option(1e-5, "of every budget", above=0, below=1)
    methods: list[str] | None = option(None, "of max, renyi, paper and dclip; default: all of them")
    order: int = option(
        3, "of the paper's projection, or the next that leaves something of the budget", "alpha", least=2
    )
    queries: int = option(1024, "tokens that are predicted in a run, and that the budget is for", least=1)
    runs: int = option(8, "runs, each over other texts", least=1)
    inclusion: float = option(
        0.03, "probability with which a shard has a part in a query's answer", "p", above=0, most=1
    )
    compare: list[str] | None = option(
        None, "runs of finetune.py, or of train --shards 1, on the same model: measured beside it"
    )
    seed: int = option(0, "steers which texts are asked for; samples of shards never have a seed", least=0)
    log_private: bool = option(False, "show the table")

    def __post_init__(self) -> None:
        from dpsda.privacy.accounting import check_budget

        super().__post_init__()
        known = ("max", "renyi", "paper", "dclip")
        for method in self.methods or ():
            if method not in known:
                raise InputError(f"--methods {method}: there are {', '.join(known)}")
        for epsilon in self.epsilons or ():
            check_budget(epsilon, "--epsilons")
        if not self.name or Path(self.name).name != self.name:
            raise InputError(f"--name {self.name}: is the name of a file in private/, without a folder")
