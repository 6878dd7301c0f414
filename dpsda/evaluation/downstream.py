"""The table of downstream.py: models trained on each set, tested on real text, beside three rows to read them by.

`majority` always says the most frequent class of the test texts; `real` was trained on as many private texts as there
are synthetic ones; iteration 0 never saw private data. A tenth of the training texts is kept to choose epochs and
strengths by.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dpsda.errors import InputError
from dpsda.evaluation import results
from dpsda.evaluation.options import DownstreamOptions, SubjectOptions
from dpsda.evaluation.subject import Subject, TextSet, longer, real_set, take
from dpsda.runs import read_csv, read_json, write_json

LEAST = 10  # texts of a set below which nothing is trained
HELD = 10  # one text in so many chooses the epoch or strength
NEXT = "next token"
FIGURES = ("accuracy", "macro_f1", "perplexity")
_DESCRIPTION = ("task", "model", "target", "trained_on", "texts")

Train = Callable[[str, int, str, TextSet, TextSet, TextSet, int], dict[str, float]]


@dataclass(frozen=True)
class _Source:
    """Texts to train on; `private` ones give figures that nothing protects."""

    name: str
    texts: TextSet
    private: bool
    size: int | None = None  # how many are drawn for a seed; None for all


def evaluate(options: SubjectOptions, settings: DownstreamOptions) -> None:
    """Train and test once for each set, model, target and seed; keep every result; print what may be shown."""
    subject = Subject.of(options)
    spec = subject.spec
    wanted = options.synthetic_iteration or ["all" if settings.task == "probe" else "last"]
    names = subject.chosen(wanted) if subject.files else []
    targets = [NEXT] if settings.task == "lm" else spec.label_columns
    if not targets:
        raise InputError(f"{spec.name} has no label columns to predict; --task lm predicts the next token")
    selected_on_private = settings.validation == "private" and not subject.is_public(settings.validation_split)
    public = subject.is_public(settings.test_split) and not selected_on_private
    name = f"downstream_{settings.test_split}"
    if options.synthetic_file:
        name += f"_{Path(options.synthetic_file).stem}"
    private, shared = (subject.results(name, public=p) for p in (False, True))
    if options.dry_run:
        print(
            f"would train {settings.task} models on {', '.join(names) or 'the iterations'} of {options.result_folder} "
            f"and test them on {settings.test_split}, into {shared if public else private}.csv"
        )
        return
    started = time.monotonic()
    subject.private.mkdir(parents=True, exist_ok=True, mode=0o700)
    trainer = _Trainer(subject, options, settings)
    test = trainer.real(settings.test_split)
    validation = trainer.real(settings.validation_split) if settings.validation == "private" else None
    if selected_on_private:
        _note_selection(subject, settings.validation_split)
    labelled = settings.task != "lm"
    sets = [trainer.kept(subject.read(n, labels=labelled)) for n in dict.fromkeys([*_start(subject), *names])]
    sources = [_Source(s.name, s, private=not subject.protected) for s in sets]
    train = trainer.real(settings.split)
    size = settings.real_size or max(len(s.texts) for s in sets)
    sources.append(_Source("real", train, private=True, size=min(size, len(train.texts))))
    if settings.task == "probe" and len(train.texts) > size:
        sources.append(_Source("real, all", train, private=True))

    table = results.Results(private)
    about = {**asdict(settings), "min_tokens": subject.min_tokens, "encoder": subject.feature_extractor}
    for key in ("seeds", "models", "epochs", "real_size"):
        del about[key]  # each has rows of its own
    about["labels"] = {label.column: label.domain for label in spec.labels}
    about |= {"test": _digest(test), "validation": validation and _digest(validation)}
    rows: list[tuple[_Source | None, results.Row]] = []
    for model, epochs in trainer.models():
        for target in targets:
            rows.append((None, _majority(settings.task, model, target, test, trainer)))
            for source in sources:
                done = list(_seeds(table, trainer, about, model, epochs, target, source, test, validation))
                rows.append((source, _summary(done)))
    _write(results.Results(private), [row for _, row in rows], settings.task)
    open_rows = [row for source, row in rows if source is None or not source.private]
    if public and subject.protected:
        _write(results.Results(shared), open_rows, settings.task)
    if options.log_private or (public and subject.protected):
        print(_shown([row for _, row in rows] if options.log_private else open_rows))
    where = [f"{shared}.csv"] if public and subject.protected else []
    where.append(f"{private}.csv" + (" (with the rows trained on real texts)" if where else ""))
    print(f"{settings.task}: {time.monotonic() - started:.0f} s, {', '.join(where)}")


class _Trainer:
    """What trains and tests a model of the task."""

    def __init__(self, subject: Subject, options: SubjectOptions, settings: DownstreamOptions) -> None:
        import torch

        from dpsda.embedding import Encoder, multiplies_bfloat16

        self.subject, self.settings = subject, settings
        self.device = options.device if options.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        self.bfloat16 = multiplies_bfloat16(self.device)
        needed = settings.task == "probe" or subject.min_tokens
        self.encoder = Encoder(subject.feature_extractor, device=self.device) if needed else None

    def models(self) -> Iterator[tuple[str, int]]:
        """Each model with its number of epochs."""
        if self.settings.task == "probe":
            yield self.subject.feature_extractor, 0
            return
        epochs = self.settings.epochs
        yield from zip(self.settings.models, epochs * (len(self.settings.models) // len(epochs)), strict=True)

    def kept(self, texts: TextSet) -> TextSet:
        """Those of a set that are long enough."""
        return longer(texts, self.encoder.tokenizer, self.subject.min_tokens)[0] if self.subject.min_tokens else texts

    def real(self, split: str) -> TextSet:
        return self.kept(real_set(self.subject.real(split), split))

    def figures(
        self,
        model: str,
        epochs: int,
        target: str,
        source: _Source,
        test: TextSet,
        validation: TextSet | None,
        seed: int,
    ) -> dict[str, float]:
        """One training. Raises NotAvailable where the texts do not allow it."""
        texts = source.texts
        order = np.random.default_rng(seed).permutation(len(texts.texts))[: source.size]
        if len(order) < LEAST:
            raise results.NotAvailable(f"{len(order)} texts, fewer than {LEAST}")
        held = max(1, len(order) // HELD) if validation is None else 0
        train = take(texts, order[held:])
        validation = take(texts, order[:held]) if validation is None else validation
        if target != NEXT and len(set(train.labels[target])) < 2:
            raise results.NotAvailable("one class only")
        desc = f"{source.name}, {target}, seed {seed}"
        if self.settings.task == "probe":
            guessed = self._probe(target, source, train, validation, test)
            return _scores(test.labels[target], guessed)
        from dpsda.evaluation.training import Recipe

        s = self.settings
        recipe = Recipe(
            epochs, s.learning_rate, s.weight_decay, s.batch_size, self.device, self.bfloat16, source.private
        )
        common: dict[str, Any] = {"max_length": s.max_length, "recipe": recipe, "seed": seed, "desc": desc}
        if self.settings.task == "lm":
            from dpsda.evaluation.language_model import next_token

            accuracy, perplexity = next_token(model, train.texts, validation.texts, test.texts, **common)
            return {"accuracy": accuracy, "perplexity": perplexity}
        from dpsda.evaluation.classifier import classify

        domain = next(label.domain for label in self.subject.spec.labels if label.column == target)
        number = {value: i for i, value in enumerate(domain)}
        coded = [
            (s.texts, np.array([number[value] for value in s.labels[target]], dtype=np.int64))
            for s in (train, validation)
        ]
        found = classify(model, *coded, test.texts, classes=len(domain), **common)
        return _scores(test.labels[target], np.array(domain, dtype=object)[found])

    def _probe(self, target: str, source: _Source, train: TextSet, validation: TextSet, test: TextSet) -> np.ndarray:
        from dpsda.evaluation.probe import probe

        settings = self.settings
        embed = self._embed
        x = embed(train, source.private)
        chosen_on = (
            source.private
            if settings.validation == "synthetic"
            else not self.subject.is_public(settings.validation_split)
        )
        v = embed(validation, chosen_on)
        tested = embed(test, not self.subject.is_public(settings.test_split))
        return probe((x, train.labels[target].astype(str)), (v, validation.labels[target].astype(str)), tested)

    def _embed(self, texts: TextSet, private: bool) -> np.ndarray:
        assert self.encoder is not None
        vectors = self.encoder.embed(texts.texts, private=private)
        if not np.isfinite(vectors).all():
            raise InputError(f"{texts.name}: an embedding holds NaN or infinity; take another model")
        return vectors


def _seeds(
    table: results.Results,
    trainer: _Trainer,
    about: dict[str, Any],
    model: str,
    epochs: int,
    target: str,
    source: _Source,
    test: TextSet,
    validation: TextSet | None,
) -> Iterator[results.Row]:
    """The row of every seed, trained unless it is there."""
    count = len(source.texts.texts) if source.size is None else source.size
    digest = _digest(source.texts)
    for seed in trainer.settings.seeds:
        decides = {**about, "model": model, "epochs": epochs, "target": target, "size": source.size, "seed": seed}
        key = results.key(decides, digest)
        row = table.get(key)
        if row is None:
            description = (trainer.settings.task, model, target, source.name, count)
            row = {**dict(zip(_DESCRIPTION, description, strict=True)), "seed": seed, "why": ""}
            try:
                row |= trainer.figures(model, epochs, target, source, test, validation, seed)
            except results.NotAvailable as error:
                row["why"] = str(error)
            row = table.add(key, row)
        yield {**row, "trained_on": source.name}


def _start(subject: Subject) -> list[str]:
    return ["0"] if "0" in subject.files else []


def _digest(texts: TextSet) -> str:
    return results.digest(texts.texts, *texts.labels.values())


def _scores(truth: np.ndarray, guessed: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import f1_score

    truth, guessed = truth.astype(str), guessed.astype(str)
    return {
        "accuracy": float((truth == guessed).mean()),
        "macro_f1": float(f1_score(truth, guessed, labels=np.unique(truth), average="macro", zero_division=0)),
    }


def _majority(task: str, model: str, target: str, test: TextSet, trainer: _Trainer) -> results.Row:
    """What a model gets that has one answer for everything."""
    if target == NEXT:
        from dpsda.evaluation.models import load_tokenizer

        tokenizer, most = load_tokenizer(model), trainer.settings.max_length
        rows = tokenizer(list(test.texts), truncation=True, max_length=most)["input_ids"]
        counts = Counter(token for row in rows for token in row[1:])
        figures = {"accuracy": max(counts.values()) / counts.total()} if counts else {}
    else:
        values, counts = np.unique(test.labels[target].astype(str), return_counts=True)
        figures = _scores(test.labels[target], np.full(len(test.texts), values[counts.argmax()], dtype=object))
    row = dict(zip(_DESCRIPTION, (task, model, target, "majority", 0), strict=True))
    return _summary([{**row, "seed": 0, "why": "", **figures}])


def _summary(rows: list[results.Row]) -> results.Row:
    """Mean and standard deviation over the seeds."""
    out = {name: rows[0][name] for name in _DESCRIPTION} | {"seeds": len(rows)}
    for name in FIGURES:
        values = [row[name] for row in rows if name in row]
        whole = len(values) == len(rows)
        out[name] = float(np.mean(values)) if whole else None
        out[f"{name}_std"] = (float(np.std(values, ddof=1)) if len(values) > 1 else 0.0) if whole else None
    return {**out, "why": "; ".join(dict.fromkeys(row["why"] for row in rows if row["why"]))}


def _write(table: results.Results, rows: list[results.Row], task: str) -> None:
    """Make `rows` the table's, and keep those of other tasks."""
    others = read_csv(table.csv).to_dict("records") if table.csv.exists() else []
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
    known = read_json(path) if path.exists() else {}
    write_json(path, {**known, "selected_on_private": split})
