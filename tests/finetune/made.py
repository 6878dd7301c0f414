"""Options for whole runs of finetune.py on the made-up data set."""

from __future__ import annotations

from pathlib import Path

from dpsda.attributes.options import RowOptions
from dpsda.finetune.options import SamplingOptions, TrainingOptions, TuningOptions
from dpsda.options import DataOptions, EmbeddingOptions, EngineOptions, PrivacyOptions, RunOptions


def options(
    dataset: Path | str,
    model: str,
    *,
    data=None,
    privacy=None,
    tuning=None,
    training=None,
    sampling=None,
    rows=None,
    engine=None,
    **run,
):
    """Options for `finetune.generate(root, *options(dataset, model))`: 6 steps of 30 of 120 records, 3 checkpoints. The
    noise is large because its accounting is quick."""
    small = {"batch_size": 30, "steps": 6, "checkpoint_steps": 2, "learning_rate": 0.02, "warmup_steps": 2}
    drawn = {"num_samples": 40, "shard_size": 15, "length": 8}
    return (
        DataOptions(str(dataset), **(data or {})),
        PrivacyOptions(**(privacy or {"noise": 5.0})),
        TuningOptions(model_type=str(model), device="cpu", **(tuning or {})),
        TrainingOptions(**{**small, **(training or {})}),
        SamplingOptions(**{**drawn, **(sampling or {})}),
        RowOptions(**(rows or {})),
        EmbeddingOptions(),
        EngineOptions(**(engine or {})),
        RunOptions(**{"result_folder": "unused", **run}),
    )
