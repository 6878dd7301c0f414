"""DP fine-tuning: from its options to a trained model, and from there to texts or to a test.

Whatever is there already is not made again.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apis import engines
from dpsda import release, start, summary
from dpsda.attributes.marginals import MARGINALS
from dpsda.attributes.options import RowOptions
from dpsda.attributes.read_off import codes_of
from dpsda.attributes.release import Rows, marginals_of
from dpsda.data import DatasetSpec, load
from dpsda.data.layout import layout
from dpsda.devices import check_room, is_bfloat16, pick_device
from dpsda.errors import InputError
from dpsda.finetune import planning
from dpsda.finetune.options import SamplingOptions, TrainingOptions, TuningOptions
from dpsda.finetune.planning import Counts, Plan, charged_steps, describe_plan, keep, plan
from dpsda.label_counts import LABEL_COUNTS
from dpsda.label_scores import label_scores
from dpsda.options import DataOptions, EmbeddingOptions, EngineOptions, PrivacyOptions, RunOptions
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder, write_csv
from dpsda.stages import FINETUNE, SAMPLES, went_on

if TYPE_CHECKING:
    import numpy as np

    from apis.api import TextAPI
    from dpsda.data import PrivateCorpus
    from dpsda.finetune.sampling import Shards
    from dpsda.finetune.training import Trainer


NO_COUNTS = {
    "classifier": "no label is counted; they are learnt as part of their records",
    "generator": "no private label is read",
}


def generate(
    root: Path,
    data: DataOptions,
    privacy: PrivacyOptions,
    tuning: TuningOptions,
    training: TrainingOptions,
    sampling: SamplingOptions,
    rows: RowOptions,
    embedding: EmbeddingOptions,
    engine: EngineOptions,
    run: RunOptions,
) -> None:
    """One run of fine-tuning in folder `root`, to its release or its test."""
    spec = DatasetSpec.read(data.dataset)
    classify = tuning.task == "classifier"
    marginals = marginals_of(spec, rows) if tuning.conditional and not classify else None
    columns = marginals is not None
    corpus = load(spec, data.split, file=data.train_data_file, share=data.private_share, attributes=columns)
    types = layout(spec, corpus.file)
    test = load(spec, tuning.test_split) if classify and not run.dry_run else None
    labelled = not classify and tuning.conditional and bool(spec.labels)
    labels = None if labelled or not spec.labels else NO_COUNTS[tuning.task]
    counts = None
    if marginals:
        noise = training.marginals_noise if privacy.protected else 0.0
        about = f"{len(marginals.sets)} marginals of the attributes"
        counts = Counts(MARGINALS, about, noise, len(marginals.sets))
    elif labelled and privacy.label_counts == "private":
        counts = Counts(LABEL_COUNTS, "the label counts", training.label_noise if privacy.protected else 0.0)
    with start.open_run(root, corpus, privacy, labels) as (folder, ledger):
        config, free = start.configuration(spec, data, privacy, tuning, training, rows, run)
        config["attributes"] = "rows" if marginals else "none"
        config["rows"] = start.row_config(folder, corpus) if marginals else None
        config["row_encoder"] = embedding.feature_extractor if marginals else None
        made = plan(folder, ledger, privacy, training, config, free, counts)
        print(describe_plan(ledger, privacy, made, training))
        if marginals and counts and not ledger.charged(MARGINALS):
            print(marginals.signal(ledger, counts.mechanism(ledger)))
        if run.dry_run:
            return
        if not (classify or sampling.skip_sampling or ledger.charges()):  # before anything is spent
            engines.check_decodable(tuning.model_type)
        own = Rows(spec.attributes, marginals, folder, ledger, FINETUNE) if marginals else None
        route = Tuning(folder, ledger, corpus, tuning, training, made, run.seed, own, embedding)
        route.train(lambda: keep(folder, ledger, privacy, config, made))
        print(f"trained: {route.trained}, epsilon {release.spent(ledger)} spent")
        if went_on(ledger, FINETUNE):
            print(f"{root}: this run is complete, and a later stage went on with its texts; that one's command goes on")
            return
        card = {
            "method": ("DP fine-tuning" if privacy.protected else "fine-tuning without noise")
            + (" of a classifier" if classify else ""),
            **spec.told,
            "model": tuning.model_type,
            "trained": "all weights" if tuning.full else f"LoRA of rank {tuning.lora_r}",
            "training": f"{charged_steps(ledger):,} steps of {training.optimizer}, batch {training.batch_size:,}",
        }
        if marginals:
            card["attributes"] = marginals.told
        if test is not None:
            public = tuning.test_split in spec.public
            path, row = route.test(test, public=public)
            if run.log_private or (public and folder.protected):
                print(f"{row['target']}: accuracy {row['accuracy']}, macro F1 {row['macro_f1']} on {tuning.test_split}")
            print(f"test: {path}")
        texts = None
        if not classify and not sampling.skip_sampling:
            shards = route.shards(sampling, public_counts=privacy.label_counts == "public")
            card["samples"] = f"{sampling.num_samples:,} drawn, temperature {sampling.temperature:g}"
            if not release.is_published(folder, ledger, card):
                route.sample(shards, lambda model: _writer(model, tuning, sampling, engine))
            texts = shards.frames()
        if release.is_published(folder, ledger, card):
            more = "" if texts is None else ", a larger --num_samples its texts"
            print(f"{root}: this run is complete; a larger --epochs or --epsilon extends it{more}")
            return
        facts = release.publish(folder, ledger, texts, card, types)
        summary.end(folder, facts)


run = start.in_its_folder(generate, "that was a dry run: no model was trained, nothing is kept")


def _writer(model: Path, tuning: TuningOptions, sampling: SamplingOptions, engine: EngineOptions) -> TextAPI:
    """The trained model as an engine, here or on Ray workers."""
    settings = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p")}
    load = engines.loads(
        str(model), device=tuning.device, dtype=tuning.dtype, batch_size=sampling.sampling_batch_size, **settings
    )
    if engine.engine == "serial":
        return load()
    from dpsda import cluster

    return cluster.writer(engine, load)


@dataclass(frozen=True, eq=False)
class Tuning:
    """One run of fine-tuning on `corpus`."""

    folder: RunFolder
    ledger: Ledger
    corpus: PrivateCorpus
    tuning: TuningOptions
    training: TrainingOptions
    plan: Plan
    seed: int
    rows: Rows | None = None  # that the texts belong to
    embedding: EmbeddingOptions = EmbeddingOptions()

    @property
    def trained(self) -> Path:
        """What a training leaves: an adapter, or a whole model."""
        return self.folder.state / ("model" if self.tuning.full else "adapter")

    @property
    def labelled(self) -> bool:
        return self.tuning.task == "generator" and self.tuning.conditional and bool(self.corpus.spec.labels)

    def train(self, begin: Callable[[], None]) -> None:
        """Take the steps that are left and write what was trained; `begin` is called when nothing refuses the command
        any more."""
        left = next(planning.open_intervals(self.ledger, self.plan, self.training), None)
        if left is None and self.ledger.holds(self.trained, noted=True):
            begin()
            return
        trainer, tokenizer = self._trainer()
        trained = 4 * sum(weight.numel() for _, weight in trainer.named)  # bytes, and twice as much for the optimizer
        whole = 4 * sum(weight.numel() for weight in trainer.model.parameters())
        check_room(self.folder.state, 2 * 3 * trained + whole, "checkpoints and a copy of the trained model")
        begin()
        if left is not None:  # what was made of an earlier state of the model goes
            for old in (self.trained, self._merged, self._samples):
                shutil.rmtree(old, ignore_errors=True)
        trainer.run(self.folder, self.ledger)
        from dpsda.tuning.adapter import export_adapter, export_model

        if self.tuning.full:
            export_model(trainer.model, tokenizer, self.trained)
        else:
            export_adapter(trainer.model, self.tuning.model_type, self.trained)
        self.ledger.note(FINETUNE, self.trained, of=self._released)

    def shards(self, sampling: SamplingOptions, *, public_counts: bool) -> Shards:
        """The samples, drawn or not; it releases the label counts, or the marginals. InputError for samples of other
        settings."""
        from dataclasses import asdict, fields

        import numpy as np

        from dpsda.finetune.sampling import Shards
        from dpsda.label_counts import label_counts

        shares, draws, planned = np.ones(1), None, self.plan.counts
        if self.rows:
            assert planned is not None
            tables = self.rows.tables(self.corpus, lambda: self._codes, planned.mechanism(self.ledger))
            draws = self.rows.model(tables, print)
            shares = tables[0,] if self.labelled else shares
        if self.labelled and (public_counts or not self.rows):
            noise = planned.noise_multiplier if planned else 0.0
            shares = label_counts(self.folder, self.ledger, FINETUNE, self.corpus, noise, public=public_counts)
        free = {f.name for f in fields(sampling) if f.metadata["free"]}
        config = {**asdict(sampling), "seed": self.seed}
        if any(self._samples.glob("*.parquet")):
            drawn = self.folder.earlier_config(SAMPLES, config, free).get("num_samples", 0)
            if sampling.num_samples < drawn:
                raise InputError(f"--num_samples {sampling.num_samples}: {drawn} are drawn here; ask for no fewer")
        self.folder.keep_config(SAMPLES, config)
        made_of = self._released
        return Shards(
            self._samples, sampling, self.seed, self.corpus.spec, shares, self.ledger, made_of, self.labelled, draws
        )

    def sample(self, shards: Shards, writer: Callable[[Path], TextAPI]) -> None:
        """Draw the shards that are not there; `writer` gives an API from the folder of a model."""
        if shards.complete():
            return
        model = self.trained if self.tuning.full else self._merged
        if not self.tuning.full:  # whatever a process that was killed may have left there
            from dpsda.tuning.adapter import merge

            base, tokenizer = self._load_model("AutoModelForCausalLM")
            merge(base, tokenizer, self.trained, self._merged)
        shards.draw(lambda: writer(model))
        shutil.rmtree(self._merged, ignore_errors=True)

    def test(self, test: PrivateCorpus, *, public: bool) -> tuple[Path, dict[str, Any]]:
        """Accuracy of the classifier on a split, in a csv that lies in private/ unless the split is public."""
        import pandas as pd

        from dpsda.finetune import classifier
        from dpsda.models import most_tokens

        split = self.tuning.test_split
        path = (self.folder.shared if public else self.folder.private) / f"downstream_{split}.csv"
        trainer, tokenizer = self._trainer()
        trainer.run(self.folder, self.ledger)  # no step is left: it reads the last checkpoint
        column, _ = classifier.target_column(self.corpus, self.tuning.target)
        truth = classifier.classes(test, column)
        most = most_tokens(trainer.model, self.tuning.max_length)
        tokens = classifier.encode(test.texts, truth, tokenizer, most, tokenizer.pad_token_id)
        sizes = self.training.physical_batch_size, self.training.physical_tokens
        loss = trainer.sums.loss
        assert isinstance(loss, classifier.Classification)
        guessed = classifier.predict(loss, tokens, trainer.device, *sizes)
        row = {
            "task": "classify",
            "model": self.tuning.model_type,
            "target": column,
            "trained_on": "private, DP" if self.folder.protected else "private",
            "texts": int(self.ledger.header["units"]),
            "seeds": 1,
            **{name: f"{value:.5f}" for name, value in label_scores(truth, guessed).items()},
        }
        write_csv(path, pd.DataFrame([row]))
        return path, row

    @property
    def _released(self) -> list[str]:
        """The releases that the model and its samples are made of."""
        steps = [interval.name for interval in planning.intervals(self.ledger)]
        names = [*steps, *([self.plan.counts.name] if self.plan.counts else [])]
        there = [name for name in names if self.ledger.result(name) is not None]
        return there[len([name for name in there if name in steps]) - 1 :]

    def _trainer(self) -> tuple[Trainer, Any]:
        import torch

        from dpsda.finetune import classifier
        from dpsda.finetune.gradients import GradientSums, check_per_sample
        from dpsda.finetune.membership import Records, Users
        from dpsda.finetune.training import Trainer
        from dpsda.models import most_tokens
        from dpsda.tuning import generator
        from dpsda.tuning.adapter import add_lora

        tuning, corpus, protected = self.tuning, self.corpus, self.folder.protected
        torch.manual_seed(self.seed)  # no secret: the first weights of adapters and heads
        device = pick_device(self.tuning.device)
        task = "CAUSAL_LM" if tuning.task == "generator" else "SEQ_CLS"
        if tuning.task == "generator":
            model, tokenizer = self._load_model("AutoModelForCausalLM")
        else:
            column, domain = classifier.target_column(corpus, tuning.target)
            kind = "AutoModelForSequenceClassification"
            model, tokenizer = self._load_model(kind, num_labels=len(domain))
        vocabulary, most = model.config.vocab_size, most_tokens(model, tuning.max_length)
        model = (model if tuning.full else add_lora(model, tuning, task_type=task)).to(device)
        loss: generator.NextToken | classifier.Classification
        if tuning.task == "generator":
            prefixes, which = generator.cell_prefixes(corpus.spec, conditional=self.labelled), corpus.cells
            longest = [generator.longest_prefix(corpus.spec, tokenizer)] if self.rows else prefixes
            generator.check_room(longest, tokenizer, most)
            if self.rows:
                prefixes, which = generator.row_prefixes(corpus.spec, corpus.cells, self._codes)
            tokens = generator.encode(corpus.texts, which, prefixes, tokenizer, most, tokenizer.pad_token_id)
            loss, count = generator.NextToken(model), 1
        else:
            truth = classifier.classes(corpus, column)
            tokens = classifier.encode(corpus.texts, truth, tokenizer, most, tokenizer.pad_token_id)
            loss, count = classifier.Classification(model), len(domain)
        sums = GradientSums(model, loss, self.training.clip_norm if protected else None)
        if protected:
            check_per_sample(sums, generator.made_up(vocabulary, device, count))
        members: Users | Records
        if self.ledger.header["unit"] == "user":
            assert corpus.users is not None
            members = Users(corpus.users, self.training.examples_per_user)
        else:
            members = Records(corpus.num_records)
        if members.units != self.ledger.header["units"]:
            raise InputError(f"{self.folder.root}: the run was planned for another number of units")
        return Trainer(model, sums, tokens, members, self.training, self.plan, device), tokenizer

    @functools.cached_property
    def _codes(self) -> np.ndarray:
        """(n, K) what the attributes of each record are; private."""
        from dpsda.embedding import Encoder

        name, device = self.embedding.feature_extractor, self.tuning.device
        return codes_of(self.corpus, self.corpus.spec.attributes, lambda: Encoder(name, device=device))

    def _load_model(self, kind: str, **config: Any) -> tuple[Any, Any]:
        """The pretrained model and its tokenizer; frozen weights may be in bfloat16."""
        from dpsda.models import load_model

        tuning = self.tuning
        plain = tuning.full or tuning.task == "classifier"
        # a record's gradient moves with its batch-mates by what the arithmetic rounds: percents of the clipping norm in
        # bfloat16, which no ledger accounts for, and nothing to speak of in float32
        low = is_bfloat16(tuning.dtype, pick_device(tuning.device)) and not self.folder.protected
        bfloat16 = low and not plain
        return load_model(kind, tuning.model_type, bfloat16=bfloat16, **config)

    @property
    def _merged(self) -> Path:
        return self.folder.state / "merged"

    @property
    def _samples(self) -> Path:
        return self.folder.state / "samples"
