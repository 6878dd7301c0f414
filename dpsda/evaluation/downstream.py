"""The table of downstream.py: models trained on each set, tested on real text, beside three rows to read them by.

`majority` always says the most frequent class of the test texts; `real` was trained on as many private texts as there
are synthetic ones; iteration 0 never saw private data. A tenth of the training texts is kept to choose epochs and
strengths by.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dpsda.devices import multiplies_bfloat16, pick_device
from dpsda.errors import InputError
from dpsda.evaluation import results
from dpsda.evaluation.options import DownstreamOptions, SubjectOptions
from dpsda.evaluation.subject import Subject, TextSet, longer, real_set, take
from dpsda.label_scores import label_scores
from dpsda.neighbors import require_usable, usable
from dpsda.privacy.files import private_folder
from dpsda.runs import whole_csv, whole_json, write_json

LEAST = 10  # texts of a set below which nothing is trained
HELD = 10  # one text in so many chooses the epoch or strength
NEXT = "next token"
FIGURES = ("accuracy", "macro_f1", "perplexity")
_DESCRIPTION = ("task", "model", "target", "trained_on", "texts")


@dataclass(frozen=True)
class _Source:
    """Texts to train on; `private` ones give figures that nothing protects."""

    name: str
    texts: TextSet
    private: bool
    size: int | None = None  # how many are drawn for a seed; None for all


@dataclass(frozen=True)
class _Training:
    """What is trained, but for the seed."""

    model: str
    epochs: int
    target: str  # a label column, or NEXT
    source: _Source


def evaluate(options: SubjectOptions, settings: DownstreamOptions) -> None:
    """Train and test once for each set, model, target and seed; keep every result; print what may be shown."""
    subject = Subject.of(options)
    spec = subject.spec
    names = subject.chosen(options.synthetic_iteration or ["all" if settings.task == "probe" else "last"])
    targets = [NEXT] if settings.task == "lm" else spec.label_columns
    if not targets:
        raise InputError(f"{spec.name} has no label columns to predict; --task lm predicts the next token")
    selected_on_private = settings.validation == "private" and not subject.is_public(settings.validation_split)
    public = subject.protected and subject.is_public(settings.test_split) and not selected_on_private
    private, shared = (subject.results(f"downstream_{settings.test_split}", public=p) for p in (False, public))
    if options.dry_run:
        print(
            f"would train {settings.task} models on {', '.join(names) or 'the iterations'} of {options.result_folder} "
            f"and test them on {settings.test_split}, into {shared}.csv"
        )
        return
    started = time.monotonic()
    private_folder(subject.private)
    trainer = _Trainer(subject, options, settings)
    if selected_on_private:
        _note_selection(subject, settings.validation_split)
    sets = [trainer.kept(subject.read(name, labels=settings.task != "lm")) for name in names]
    sources = [_Source(s.name, s, private=not subject.protected) for s in sets]
    train = trainer.real(settings.split)
    size = settings.real_size or max(len(s.texts) for s in sets)
    sources.append(_Source("real", train, private=True, size=min(size, len(train.texts))))
    if settings.task == "probe" and len(train.texts) > size:
        sources.append(_Source("real, all", train, private=True))

    table = results.Results(private)
    rows: list[tuple[_Source | None, results.Row]] = []
    for model, epochs in trainer.models():
        for target in targets:
            rows.append((None, trainer.majority(model, target)))
            for source in sources:
                rows.append((source, _summary(trainer.seeds(table, _Training(model, epochs, target, source)))))
    everything = [row for _, row in rows]
    unprivate = [row for source, row in rows if source is None or not source.private]
    _write(table, everything, settings.task)
    if public:
        _write(results.Results(shared), unprivate, settings.task)
    if options.log_private or public:
        print(_shown(everything if options.log_private else unprivate))
    where = f"{shared}.csv, {private}.csv (with the rows trained on real texts)" if public else f"{private}.csv"
    print(f"{settings.task}: {time.monotonic() - started:.0f} s, {where}")


class _Trainer:
    """What trains and tests models of the task, on the test texts and, if there are any, on validation texts apart."""

    def __init__(self, subject: Subject, options: SubjectOptions, settings: DownstreamOptions) -> None:
        from dpsda.embedding import Encoder

        self.subject, self.settings = subject, settings
        self.device = pick_device(options.device)
        self.bfloat16 = multiplies_bfloat16(self.device)
        needed = settings.task == "probe" or subject.min_tokens
        self.encoder = Encoder(subject.feature_extractor, device=self.device) if needed else None
        self.test = self.real(settings.test_split)
        self.validation = self.real(settings.validation_split) if settings.validation == "private" else None
        self._weights: dict[str, str] = {}
        if settings.task != "probe":
            from dpsda.models import identity

            self._weights = {model: identity(model) for model in settings.models}
        self._vectors: dict[tuple[TextSet, bool], np.ndarray] = {}

    def models(self) -> Iterator[tuple[str, int]]:
        """Each model with its number of epochs."""
        if self.settings.task == "probe":
            yield self.subject.feature_extractor, 0
            return
        epochs = self.settings.epochs
        yield from zip(self.settings.models, epochs * (len(self.settings.models) // len(epochs)), strict=True)

    def kept(self, texts: TextSet) -> TextSet:
        """Those of a set that are long enough."""
        if not self.subject.min_tokens:
            return texts
        assert self.encoder is not None
        return longer(texts, self.encoder.tokenizer, self.subject.min_tokens)[0]

    def real(self, split: str) -> TextSet:
        return self.kept(real_set(self.subject.real(split), split))

    def seeds(self, table: results.Results, training: _Training) -> list[results.Row]:
        """The row of every seed, trained unless it is there."""
        source, rows = training.source, []
        about = {**asdict(self.settings), "min_tokens": self.subject.min_tokens}
        for name in ("seeds", "models", "epochs", "real_size"):
            del about[name]  # each has rows of its own
        about |= {
            "encoder": self.encoder and self.encoder.identity,
            "weights": self._weights.get(training.model),
            "bfloat16": self.bfloat16,
            "labels": {label.column: label.domain for label in self.subject.spec.labels},
            "test": self.test.digest,
            "validation": self.validation and self.validation.digest,
            "model": training.model,
            "epochs": training.epochs,
            "target": training.target,
            "size": source.size,
        }
        for seed in self.settings.seeds:
            key = results.key({**about, "seed": seed}, source.texts.digest)
            row = table.get(key)
            if row is None:
                count = len(source.texts.texts) if source.size is None else source.size
                description = (self.settings.task, training.model, training.target, source.name, count)
                row = {**dict(zip(_DESCRIPTION, description, strict=True)), "seed": seed, "why": ""}
                try:
                    row |= self.figures(training, seed)
                except results.NotAvailable as error:
                    row["why"] = str(error)
                row = table.add(key, row)
            rows.append({**row, "trained_on": source.name})
        return rows

    def figures(self, training: _Training, seed: int) -> dict[str, float]:
        """One training. Raises NotAvailable where the texts do not allow it."""
        source, target, settings = training.source, training.target, self.settings
        order = np.random.default_rng(seed).permutation(len(source.texts.texts))[: source.size]
        if len(order) < LEAST:
            raise results.NotAvailable(f"{len(order)} texts, fewer than {LEAST}")
        held = max(1, len(order) // HELD) if self.validation is None else 0
        if target != NEXT and len(set(source.texts.labels[target][order[held:]])) < 2:
            raise results.NotAvailable("one class only")
        if settings.task == "probe":
            return label_scores(self.test.labels[target], self._probe(target, source, order[held:], order[:held]))
        from dpsda.evaluation.training import Recipe

        train = take(source.texts, order[held:])
        validation = take(source.texts, order[:held]) if self.validation is None else self.validation
        recipe = Recipe(
            training.epochs,
            settings.learning_rate,
            settings.weight_decay,
            settings.batch_size,
            self.device,
            self.bfloat16,
            source.private,
        )
        common: dict[str, Any] = {"max_length": settings.max_length, "recipe": recipe, "seed": seed}
        common["desc"] = f"{source.name}, {target}, seed {seed}"
        if settings.task == "lm":
            from dpsda.evaluation.language_model import next_token

            texts = (train.texts, validation.texts, self.test.texts)
            accuracy, perplexity = next_token(training.model, *texts, **common)
            return {"accuracy": accuracy, "perplexity": perplexity}
        from dpsda.evaluation.classifier import classify

        domain = next(label.domain for label in self.subject.spec.labels if label.column == target)
        number = {value: i for i, value in enumerate(domain)}
        learned, chosen = (
            (s.texts, np.array([number[value] for value in s.labels[target]], dtype=np.int64))
            for s in (train, validation)
        )
        found = classify(training.model, learned, chosen, self.test.texts, classes=len(domain), **common)
        return label_scores(self.test.labels[target], np.array(domain, dtype=object)[found])

    def majority(self, model: str, target: str) -> results.Row:
        """What a model gets that has one answer for everything."""
        test = self.test
        if target == NEXT:
            from dpsda.models import load_tokenizer

            tokenizer, most = load_tokenizer(model), self.settings.max_length
            rows = tokenizer(list(test.texts), truncation=True, max_length=most)["input_ids"]
            counts = Counter(token for row in rows for token in row[1:])
            figures = {"accuracy": max(counts.values()) / counts.total()} if counts else {}
        else:
            values, often = np.unique(test.labels[target].astype(str), return_counts=True)
            figures = label_scores(test.labels[target], np.full(len(test.texts), values[often.argmax()], dtype=object))
        row = dict(zip(_DESCRIPTION, (self.settings.task, model, target, "majority", 0), strict=True))
        return _summary([{**row, "seed": 0, "why": "", **figures}])

    def _probe(self, target: str, source: _Source, train: np.ndarray, held: np.ndarray) -> np.ndarray:
        """The labels predicted for the test texts, by rows `train` of the source, chosen on its rows `held`."""
        from dpsda.evaluation.probe import probe

        x, y = self._embed(source.texts, source.private), source.texts.labels[target].astype(str)
        if self.validation is None:
            chosen_on = x[held], y[held]
        else:
            hidden = not self.subject.is_public(self.settings.validation_split)
            chosen_on = self._embed(self.validation, hidden), self.validation.labels[target].astype(str)
        tested = self._embed(self.test, not self.subject.is_public(self.settings.test_split))
        return probe((x[train], y[train]), chosen_on, tested)

    def _embed(self, texts: TextSet, private: bool) -> np.ndarray:
        """(N, D) the texts of a set, embedded once for all targets and seeds."""
        assert self.encoder is not None
        if (texts, private) not in self._vectors:
            rows = self.encoder.embed(texts.texts, private=private)
            if texts.name in self.subject.files:
                require_usable(rows, texts.name)
            else:  # a real text without a vector: to stop because of one would tell that it is there
                rows = np.where(usable(rows)[:, None], rows, 0)
            self._vectors[texts, private] = rows
        return self._vectors[texts, private]


def _summary(rows: list[results.Row]) -> results.Row:
    """Mean and standard deviation over the seeds."""
    out = {name: rows[0][name] for name in _DESCRIPTION} | {"seeds": len(rows)}
    for name in FIGURES:
        out[name], out[f"{name}_std"] = results.spread([row.get(name) for row in rows]) or (None, None)
    return {**out, "why": "; ".join(dict.fromkeys(row["why"] for row in rows if row["why"]))}


def _write(table: results.Results, rows: list[results.Row], task: str) -> None:
    """Make `rows` the table's, and keep those of other tasks."""
    others = whole_csv(table.csv, _DESCRIPTION).to_dict("records") if table.csv.exists() else []
    table.write([*(row for row in others if row["task"] != task), *rows])


def _shown(rows: list[results.Row]) -> str:
    figures = [name for name in FIGURES if any(row[name] is not None for row in rows)]
    lines = [f"{'target':16}{'trained on':12}{'texts':>8}" + "".join(f"{name:>18}" for name in figures)]
    for row in rows:
        cells = "".join(f"{_figure(row[n], row[f'{n}_std']):>18}" for n in figures)
        why = f"  {row['why']}" if row["why"] else ""
        lines.append(f"{row['target'][:15]:16}{row['trained_on']:12}{row['texts']:>8,}{cells}{why}")
    return "\n".join(lines)


def _figure(mean: float | None, std: float | None) -> str:
    return results.shown(mean, 4) + (f" +- {std:.4f}" if std else "")


def _note_selection(subject: Subject, split: str) -> None:
    """Leave a note for the page of the release, before private texts choose anything."""
    path = subject.shared / "state" / "evaluation.json"
    known = whole_json(path) if path.exists() else {}
    write_json(path, {**known, "selected_on_private": split})
