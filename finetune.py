"""DP fine-tuning: train a language model on private texts by DP-SGD or DP-Adam, and sample texts from it.

    python finetune.py --config data/rotten_tomatoes/finetune.yaml
    python finetune.py --dataset my_data --epsilon 4 --result_folder runs/tuned --dry_run
    python finetune.py --dataset my_data --epsilon 4 --histogram_noise 10 --result_folder runs/tuned
    python finetune.py --dataset my_data --dp none --result_folder runs/reference
    python finetune.py --dataset my_data --epsilon 4 --task classifier --model_type embedded:all-minilm-l6-v2 \\
        --learning_rate 5e-4 --result_folder runs/classifier

The same command continues a run that was stopped; a larger --epochs or --epsilon extends one that is complete, and a
larger --num_samples, which costs no privacy, its texts.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dpsda.arg_utils import parse, run
from dpsda.errors import InputError
from dpsda.finetune.options import SamplingOptions, TrainingOptions, TuningOptions
from dpsda.options import DataOptions, EngineOptions, PrivacyOptions, RunOptions

if TYPE_CHECKING:
    from apis.api import TextAPI

NO_COUNTS = {
    "classifier": "no label is counted; they are learnt as part of their records",
    "generator": "no private label is read",
}
GROUPS = (DataOptions, PrivacyOptions, TuningOptions, TrainingOptions, SamplingOptions, EngineOptions, RunOptions)


def main() -> None:
    options = parse(None, "python finetune.py", __doc__ or "", *GROUPS)
    if not options[-1].dry_run:
        finetune(Path(options[-1].result_folder), *options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        finetune(Path(scratch), *options)
    print("that was a dry run: no model was trained, nothing is kept")


def finetune(
    root: Path,
    data: DataOptions,
    privacy: PrivacyOptions,
    tuning: TuningOptions,
    training: TrainingOptions,
    sampling: SamplingOptions,
    engine: EngineOptions,
    run: RunOptions,
) -> None:
    """One run of fine-tuning in folder `root`, from its options to its release or its test."""
    from apis.gguf import unpacked
    from apis.hf_api import check_decodable
    from dpsda import release, start
    from dpsda.data import DatasetSpec, load
    from dpsda.finetune.planning import LATER, charged_steps, describe_plan, keep, plan
    from dpsda.finetune.route import Route

    if data.reference_split or run.log_online:
        raise InputError(
            "--reference_split and --log_online have nothing to show here: losses on private texts are private"
        )
    spec = DatasetSpec.read(data.dataset)
    corpus = load(spec, data.split, file=data.train_data_file, share=data.private_share)
    classify = tuning.task == "classifier"
    test = load(spec, tuning.test_split) if classify and not run.dry_run else None
    labelled = not classify and tuning.conditional and bool(spec.labels)
    labels = None if labelled or not spec.labels else NO_COUNTS[tuning.task]
    counted = labelled and privacy.label_counts == "private"
    with start.open_run(root, corpus, privacy, labels) as (folder, ledger):
        config, free = start.configuration(spec, data, privacy, tuning, training, run)
        del config[start.PROMPTS]
        made = plan(folder, ledger, privacy, training, config, free, label_counts=counted)
        print(describe_plan(ledger, privacy, made, training, label_counts=counted))
        if run.dry_run:
            return
        if not (classify or sampling.skip_sampling or ledger.charges()):  # before anything is spent
            check_decodable(tuning.model_type)
        weights = unpacked(tuning.model_type)
        route = Route(folder, ledger, corpus, tuning, training, made, weights, run.seed)
        route.train(lambda: keep(folder, ledger, privacy, config, made))
        print(f"trained: {route.trained}, epsilon {release.spent(ledger)} spent")
        if ledger.reservations(LATER):
            print(f"{root}: this run is complete, and its texts were resampled; resample.py goes on from here")
            return
        about = {
            "method": ("DP fine-tuning" if privacy.protected else "fine-tuning without noise")
            + (" of a classifier" if classify else ""),
            "data set": spec.name,
            "model": tuning.model_type,
            "trained": "all weights" if tuning.full else f"LoRA of rank {tuning.lora_r}",
            "training": f"{charged_steps(ledger):,} steps of {training.optimizer}, batch {training.batch_size:,}",
        }
        if test is not None:
            public = tuning.test_split in spec.public
            path, row = route.test(test, public=public)
            if run.log_private or (public and folder.protected):
                print(f"{row['target']}: accuracy {row['accuracy']}, macro F1 {row['macro_f1']} on {tuning.test_split}")
            print(f"test: {path}")
        texts = None
        if not classify and not sampling.skip_sampling:
            shards = route.shards(sampling, public_counts=privacy.label_counts == "public")
            about["samples"] = f"{sampling.num_samples:,} drawn, temperature {sampling.temperature:g}"
            if not release.is_published(folder, ledger, about):
                route.sample(shards, lambda model: _writer(model, tuning, sampling, engine))
            texts = shards.frames()
        if release.is_published(folder, ledger, about):
            more = "" if texts is None else ", a larger --num_samples its texts"
            print(f"{root}: this run is complete; a larger --epochs or --epsilon extends it{more}")
            return
        facts = release.publish(folder, ledger, texts, about)
        print(f"{facts['statement']}\nrelease: {folder.release}")


def _writer(model: Path, tuning: TuningOptions, sampling: SamplingOptions, engine: EngineOptions) -> TextAPI:
    from apis.hf_api import HFAPI

    load = functools.partial(
        HFAPI,
        str(model),
        device=tuning.device,
        dtype=tuning.dtype,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        batch_size=sampling.sampling_batch_size,
    )
    if engine.engine == "serial":
        return load()
    from dpsda import cluster

    return cluster.writer(engine, load)


if __name__ == "__main__":
    run(main)
