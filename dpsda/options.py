"""What can be set about any run: data, privacy, model, embedding, run folder; and about a new data set."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass
from typing import Any

from apis.engines import ENGINES
from dpsda.arg_utils import Options, option
from dpsda.errors import InputError


@dataclass(frozen=True)
class DataOptions(Options):
    """Data."""

    dataset: str = option(MISSING, "a folder of data/ by name, or the path of one: it holds spec.yaml and prompts.yaml")
    split: str = option("train", "the private split")
    train_data_file: str | None = option(
        None, "a csv, tsv, JSON lines or parquet file, a folder of text files, or hf:NAME instead of the split's own"
    )
    private_share: float = option(
        1.0, "use this share of the private units, each in or out by a hash of its own", above=0, most=1
    )


@dataclass(frozen=True)
class ComparedDataOptions(DataOptions):
    """Data."""

    reference_split: str | None = option(
        None, "measure each iteration's distance to this split; shown where spec.yaml declares it public", free=True
    )


@dataclass(frozen=True)
class NewDataOptions(Options):
    """New data set. All of it is public. Where --data, --text or --describe is not given, a terminal asks for that and
    for the rest."""

    name: str = option(MISSING, "what it is called, the first word; or the path of a folder to make")
    data: str | None = option(
        None,
        "the file of the records (csv, tsv, JSON lines, parquet), a folder of text files, or hf:NAME; of it, the names "
        "of its columns are read",
    )
    text: str | None = option(None, "the column of the texts")
    describe: str | None = option(None, "what one text is, as in: a message from a customer to a software company")
    label: list[str] | None = option(
        None, "columns with few values, and their values: kind=bug,question stars=1,2,3; from the form, not the file"
    )
    attribute: list[str] | None = option(
        None, "other such columns, whose values the texts are written to: product=notes,mail plan=free,paid"
    )
    user: str | None = option(None, "the column of who wrote a record, if one may have written several")
    about: list[str] | None = option(None, "subjects that texts may have, from what you know: invoices,passwords")
    words: list[int] = option(
        [10, 60], "words that a text is asked to have, at least and at most; an answer may have fewer or more", least=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.words) != 2 or self.words[0] > self.words[1]:
            raise InputError("--words has to be two numbers, of which the second one is not smaller")


@dataclass(frozen=True)
class TrialOptions(Options):
    """Trial."""

    dataset: str = option(MISSING, "a folder of data/ by name, the first word; or the path of one")
    texts: int = option(60, "texts that are asked for", least=1)
    describe: str | None = option(None, "what one text is; default: `describe:` of spec.yaml")
    seed: int = option(0, "steers prompts and text sampling", least=0)


@dataclass(frozen=True)
class PrivacyOptions(Options):
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
    delta: float | None = option(None, "default: 1 / (n ln n) for n private units", above=0, below=1)
    privacy_unit: str = option(
        "record", "who is protected: one record, or all records of one user", choices=("record", "user")
    )
    label_counts: str = option(
        "private", "private: one more noisy release; public: they are known to everybody", choices=("private", "public")
    )

    def __post_init__(self) -> None:
        from dpsda.privacy.accounting import check_budget, check_noise

        super().__post_init__()
        if self.epsilon is None and self.noise is None:
            raise InputError("give --epsilon or --noise: how much privacy the run may spend")
        if self.epsilon is not None and self.noise is not None:
            raise InputError("give --epsilon or --noise, and not both")
        if self.epsilon not in (None, math.inf):
            check_budget(self.epsilon)
        if self.noise is not None:
            check_noise(self.noise)

    @property
    def protected(self) -> bool:
        return self.epsilon != math.inf


@dataclass(frozen=True)
class ModelOptions(Options):
    """Text generation."""

    api: str = option(
        "HFGPT",
        "; ".join(f"{name}: {engine.about}" for name, engine in ENGINES.items()),
        choices=tuple(ENGINES),
    )
    model_type: str = option(
        "gpt2", "hub name, folder, .gguf file, embedded:smollm2-135m-instruct; or what a server calls it"
    )
    length: int = option(64, "new tokens of an answer, at most", least=1)
    temperature: float = option(1.0, "sampling temperature", above=0)
    top_k: int = option(50, "sample from the k likeliest tokens (HFGPT)", least=1)
    top_p: float = option(0.9, "and from the smallest set of them that has this probability; 1 = off", above=0, most=1)
    repetition_penalty: float = option(1.0, "above 1: tokens of the context are less likely (HFGPT)", above=0)
    do_sample: bool = option(True, "sample; otherwise take the likeliest token (HFGPT)")
    use_subcategory: bool = option(True, "initial prompts draw a keyword or persona, if prompts.yaml has such ones")
    dynamic_len: bool | None = option(
        None, "cut each answer by its own target of words instead of at --length; default, as below: prompts.yaml"
    )
    min_target_word: int | None = option(None, "the least target", least=1)
    word_var_scale: float | None = option(
        None,
        "standard deviation of a variation's target around the length of its source, per variation degree",
        least=0,
    )
    max_token_word_scale: float | None = option(None, "with --dynamic_len: tokens for each word of the target", above=0)
    max_token_limit: int | None = option(
        None, "with --dynamic_len: tokens of an answer, at most; otherwise --length", least=1
    )
    batch_size: int | None = option(
        None,
        "rows decoded together (HFGPT); default: chosen for the device",
        "random_sampling_batch_size",
        "variation_batch_size",
        free=True,
    )
    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes the GPU if there is one", free=True)
    dtype: str = option(
        "auto", "number format of the weights", choices=("auto", "bfloat16", "float16", "float32"), free=True
    )

    @property
    def sends(self) -> bool:
        """Whether prompts go to somebody else."""
        return ENGINES[self.api].sends

    @property
    def loads(self) -> bool:
        """Whether `model_type` is a model that can be loaded here."""
        return ENGINES[self.api].loads

    def target(self) -> dict[str, Any]:
        """What is set of a prompt book's `length`, by its names there."""
        given = {
            "dynamic": self.dynamic_len,
            "min_words": self.min_target_word,
            "spread": self.word_var_scale,
            "tokens_per_word": self.max_token_word_scale,
            "limit": self.max_token_limit,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class RemoteOptions(Options):
    """Remote models (--api AzureGPT). Keys come from the environment (OPENAI_API_KEY; AZURE_OPENAI_API_KEY and
    AZURE_OPENAI_ENDPOINT) or from --model_config."""

    api_base: str | None = option(None, "the address of an OpenAI-compatible server, such as vLLM's", free=True)
    model_config: str | None = option(
        None, "a YAML file outside the repository: endpoints, deployments and keys of each model", free=True
    )
    api_batch: bool = option(
        False, "ask in batches, for half the price and within a day; a run may be stopped meanwhile", free=True
    )
    num_procs: int = option(16, "requests in flight", free=True, least=1)
    timeout: float = option(60.0, "seconds to wait for an answer before it is asked for again", free=True, above=0)
    max_requests: int | None = option(None, "stop after so many requests, over the whole run", free=True, least=1)
    max_cost: float | None = option(
        None, "stop before so many dollars are spent, over the whole run", free=True, above=0
    )
    prices: str | None = option(None, "a YAML table of prices; default: apis/prices.yaml", free=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.api_base and ("@" in self.api_base or "?" in self.api_base):  # not quoted: it may hold a key
            raise InputError("--api_base has a user, a password or a query in it, which would be saved with the run")


@dataclass(frozen=True)
class EmbeddingOptions(Options):
    """Embedding."""

    feature_extractor: str = option(
        "embedded:all-minilm-l6-v2", "a sentence-transformers model: hub name, folder or embedded asset", "feat_ext"
    )


@dataclass(frozen=True)
class DeviceOptions(Options):
    """Device."""

    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes the GPU if there is one", free=True)
    log_private: bool = option(False, "show how many texts were embedded, and how fast", free=True)


@dataclass(frozen=True)
class EngineOptions(Options):
    """Scale (docs/scale.md)."""

    engine: str = option(
        "serial",
        "serial: everything in this process; ray: generation, embedding and votes on the workers of a Ray cluster",
        choices=("serial", "ray"),
        free=True,
    )
    ray_address: str | None = option(
        None, "a running cluster, such as auto or HOST:6379; default: one that is started on this machine", free=True
    )
    ray_workers: int | None = option(
        None,
        "worker processes (ray); default: one a GPU, or without GPUs one a machine",
        free=True,
        least=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == "serial" and (self.ray_address or self.ray_workers):
            raise InputError("--ray_address and --ray_workers need --engine ray")


@dataclass(frozen=True)
class RunOptions(Options):
    """Run."""

    result_folder: str = option(MISSING, "where the run lies; the same command continues what is there", free=True)
    seed: int = option(0, "steers prompts and text sampling; privacy noise never has a seed", least=0)
    log_private: bool = option(False, "show figures on private data, which nothing protects", free=True)
    dry_run: bool = option(False, "walk the whole loop without a model call, and keep nothing", free=True)


@dataclass(frozen=True)
class TrackedRunOptions(RunOptions):
    """Run."""

    log_online: bool = option(False, "log to Weights & Biases; the key comes from WANDB_API_KEY", free=True)
    project: str = option("dpsda", "the project there", free=True)
