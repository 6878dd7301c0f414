"""What can be set about an evaluation. Names of metric.py are those of the paper's public code."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from dpsda.arg_utils import Options, option
from dpsda.errors import InputError


@dataclass(frozen=True)
class SubjectOptions(Options):
    """What is evaluated."""

    result_folder: str = option(
        MISSING, "the folder of a run, whose iterations are evaluated; results go there", "synthetic_folder"
    )
    synthetic_file: str | None = option(None, "evaluate this csv or parquet file instead of the run's iterations")
    synthetic_iteration: list[str] | None = option(
        None, "these iterations: numbers, `before` and `release` of a resampled run, `last` or `all`"
    )
    dataset: str | None = option(None, "a folder of data/ by name, or the path of one; default: the run's own")
    min_token_threshold: int = option(0, "leave out texts of at most so many tokens, real and synthetic", least=0)
    feature_extractor: str | None = option(
        None, "a sentence-transformers model; default: the run's own", "feat_ext", "model_name_or_path"
    )
    device: str = option("auto", "cpu, cuda, cuda:1, ...; auto takes the GPU if there is one")
    log_private: bool = option(False, "show figures on private data, which nothing protects")
    dry_run: bool = option(False, "say what would be evaluated, and do nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.synthetic_iteration or []:
            if not (name.isdigit() or name in ("before", "release", "last", "all")):
                raise InputError(f"--synthetic_iteration takes numbers, before, release, last or all, not {name!r}")


@dataclass(frozen=True)
class MetricOptions(Options):
    """Distances."""

    reference_split: str = option("train", "the split of the data set that the texts are compared with")
    original_file: str | None = option(None, "a csv or parquet file instead of that split's own")
    metric_encoder: str | None = option(
        None,
        "measure by this encoder, too, which no vote saw; of a language model (embedded:smollm2-135m-instruct) by its "
        "hidden states, and by its perplexity of the texts",
    )
    train_data_embeddings_file: str | None = option(
        None, "a .npy file of its embeddings (N, D), in the order of its records; default: made, or found by the texts"
    )
    reference_public: bool = option(
        False, "the reference is public (so is a split that spec.yaml declares public): results may be shared"
    )
    private_data_size: int = option(
        5000, "texts of a side, at most; all sets are compared at the size of the smallest", least=2
    )
    run: int = option(5, "subsamples of the reference; the table has mean and standard deviation over them", least=1)
    k: int = option(3, "nearest neighbours of precision, recall, density and coverage", least=1)
    buckets: int | None = option(
        None, "clusters of MAUVE, KL, total variation and Wasserstein; default: a tenth of n", least=2
    )
    seed: int = option(0, "steers which texts are drawn, and the clusters", least=0)


@dataclass(frozen=True)
class DownstreamOptions(Options):
    """Downstream task."""

    task: str = option(
        "probe",
        "probe: logistic regression on embeddings, seconds; classify: fine-tune a classifier for each label column; "
        "lm: fine-tune a causal language model and predict the next token",
        choices=("probe", "classify", "lm"),
    )
    split: str = option("train", "the private split, for the row that is trained on real text")
    test_split: str = option("test", "the real texts that the models are tested on")
    validation: str = option(
        "synthetic",
        "what chooses among epochs and strengths of regularisation: a tenth of the training texts, or a private split",
        choices=("synthetic", "private"),
    )
    validation_split: str = option("val", "with --validation private: which split")
    models: list[str] = option(
        ["embedded:all-minilm-l6-v2"], "classify, lm: encoders by hub name, folder or embedded asset"
    )
    epochs: list[int] = option([5], "classify, lm: passes over the texts, one number or one for each model", least=1)
    learning_rate: float = option(5e-5, "classify, lm", above=0)
    weight_decay: float = option(0.01, "classify, lm", least=0)
    batch_size: int = option(32, "classify, lm", least=1)
    max_length: int = option(512, "classify, lm: tokens of a text; what is beyond is cut off", least=1)
    real_size: int | None = option(
        None, "texts of the row that is trained on real text; default: as many as synthetic", least=1
    )
    seeds: list[int] = option([0, 1, 2], "one training each; the table has mean and standard deviation", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.epochs) not in (1, len(self.models)):
            raise InputError("--epochs has to be one number, or one for each of --models")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError("--seeds has to be different numbers, at least one")
