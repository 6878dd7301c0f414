"""PMixED, in three steps: train the ensemble, evaluate it, and have it write texts under a budget of queries."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dpsda import release, start, summary
from dpsda.arg_utils import typed
from dpsda.budget import open_histogram
from dpsda.data import DatasetSpec, PrivateCorpus, load
from dpsda.data.layout import layout
from dpsda.errors import InputError
from dpsda.label_counts import LABEL_COUNTS, label_counts
from dpsda.models import identity
from dpsda.options import DataOptions, PrivacyOptions
from dpsda.pmixed import planning
from dpsda.pmixed.options import (
    AnswerOptions,
    EnsembleOptions,
    FolderOptions,
    HardwareOptions,
    MechanismOptions,
    PerplexityOptions,
)
from dpsda.privacy.accounting import round_up, shown
from dpsda.privacy.files import is_private, sha256, write_atomic
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mixture import Mixture, PrivatePrediction, PublishedRenyi
from dpsda.privacy.reservation import Reservation, describe
from dpsda.runs import RunFolder, read_table, whole_json, write_csv
from dpsda.shares import sequence
from dpsda.stages import ENSEMBLE, PREDICT, RESAMPLE
from dpsda.tuning.generator import cell_prefixes, openings

if TYPE_CHECKING:
    from dpsda.pmixed.answers import Writer
    from dpsda.pmixed.ensemble import Ensemble

ANSWERS = "answers"  # the kind of its releases
BASE = "base_model"  # what the adapters were trained on, by its files
CONFIG = (
    *("dataset", "split", "train_data_file", "private_share", "privacy_unit", "shards", "model_type", BASE),
    *("conditional", "block_length", "max_blocks"),
)
NO_COUNTS = "no private label is counted"


def train(data: DataOptions, options: EnsembleOptions, device: HardwareOptions, run: FolderOptions) -> None:
    """Train the adapters of all shards that are not there: RUN/private/ensemble."""
    from tqdm import tqdm

    from dpsda.pmixed.ensemble import Trainer
    from dpsda.pmixed.shards import assign, blocks

    root = Path(run.result_folder)
    spec = DatasetSpec.read(data.dataset)
    corpus = load(spec, data.split, file=data.train_data_file, share=data.private_share)
    start.check_apart(root, spec, data.train_data_file)
    folder = RunFolder(root).make()
    # the ledger's lock: with two keys at a time a unit could come to be in two shards
    with contextlib.closing(Ledger(root)):
        config, free = start.configuration(spec, data, options, device, run)
        config[BASE] = identity(options.model_type)
        folder.earlier_config(ENSEMBLE, config, free)
        shard = assign(corpus, options.privacy_unit, options.shards, folder.secret_key())
        _same_data(folder, corpus)
        folder.keep_config(ENSEMBLE, config)
        places = _adapters(folder, options.shards)
        missing = [number for number, path in enumerate(places) if not path.exists()]
        if missing:
            trainer = Trainer(options, device)
            prefixes = cell_prefixes(spec, conditional=options.conditional and bool(spec.labels))
            for number in tqdm(missing, unit="model", desc="train"):
                rows = np.flatnonzero(shard == number)
                tokens = blocks(corpus, rows, prefixes, trainer.tokenizer, trainer.block, options.max_blocks)
                trainer.train(tokens, number, places[number])
    print(f"ensemble: {options.shards} models, {folder.private / ENSEMBLE}; nothing protects them, so they stay there")


def evaluate(options: PerplexityOptions, device: HardwareOptions, run: FolderOptions) -> Path:
    """The perplexity of the ensemble's answers beside its public model: a table in RUN/private."""
    from dpsda.pmixed.ensemble import Ensemble
    from dpsda.pmixed.evaluation import ask, losses, perplexities
    from dpsda.pmixed.shards import blocks

    folder, config = _trained(Path(run.result_folder))
    spec = DatasetSpec.read(config["dataset"])
    if options.test_split == config["split"]:
        raise InputError(f"--test_split {options.test_split}: the models were trained on it; take another split")
    planned = _planned(options, config["shards"])
    others = [(Path(other).name, *_tuned(Path(other), config)) for other in options.compare or ()]
    ensemble = _load(folder, config, device)
    test = load(spec, options.test_split)
    prefixes = cell_prefixes(spec, conditional=config["conditional"] and bool(spec.labels))
    length = min(config["block_length"], ensemble.positions)
    texts = blocks(test, np.arange(test.num_records), prefixes, ensemble.tokenizer, length, config["max_blocks"])
    asked = ask(texts, options.queries, options.runs, options.seed)
    private = options.test_split not in spec.public and not options.log_private
    found = losses(ensemble, asked, {name: mechanism for name, (_, mechanism) in planned.items()}, private=private)
    rows = []
    for name, (epsilon, mechanism) in planned.items():
        rows.append({"model": name, "epsilon": epsilon, **_figures(perplexities(found[name], asked), mechanism)})
    del ensemble
    for name, base, adapters, epsilon in others:
        other = Ensemble(base, adapters, device)
        loss = losses(other, asked, {"": Mixture(1, 1.0) if other.shards else None}, private=private)[""]
        rows.append({"model": name, "epsilon": epsilon, **_figures(perplexities(loss, asked), None)})
    settings = {name: getattr(options, name) for name in ("inclusion", "queries", "delta", "runs")}
    table = pd.DataFrame(rows).assign(shards=config["shards"], **settings)
    path = folder.private / f"{options.name}.csv"
    write_csv(path, table)
    if options.log_private:
        print(table.to_string(index=False))
    print(f"perplexity: {path}")
    return path


def generate(
    privacy: PrivacyOptions,
    asked: MechanismOptions,
    options: AnswerOptions,
    device: HardwareOptions,
    run: FolderOptions,
) -> None:
    """Texts from answers of the ensemble, until the queries are spent, and their release."""
    from dpsda.pmixed.answers import Text, Writer

    if privacy.epsilon is None or math.isinf(privacy.epsilon):
        raise InputError(
            "--epsilon has to be finite here; `dpsda finetune --epsilon inf` is the reference without a guarantee"
        )
    root = Path(run.result_folder)
    folder, config = _trained(root)
    if privacy.privacy_unit != config["privacy_unit"]:
        raise InputError(f"--privacy_unit {privacy.privacy_unit}: the shards are of whole {config['privacy_unit']}s")
    spec = DatasetSpec.read(config["dataset"])
    corpus = load(spec, config["split"], file=config["train_data_file"], share=config["private_share"])
    _same_data(folder, corpus)
    types = layout(spec, corpus.file)
    labelled = config["conditional"] and bool(spec.labels) and options.prompts is None
    prompts = _prompts(options, spec, config) if options.prompts is not None else None
    prefixes = cell_prefixes(spec, conditional=labelled) if prompts is None else prompts
    guaranteed = asked.projection != "paper" or asked.aggregation == "dclip"
    labels = None if labelled else NO_COUNTS
    with start.open_run(root, corpus, privacy, labels, protected=guaranteed) as (folder, ledger):
        if ledger.reservations(RESAMPLE):
            print(f"{root}: this run is complete, and its texts were resampled; `dpsda resample` goes on from here")
            return
        counted = labelled and privacy.label_counts == "private"
        mechanism = _plan(folder, ledger, privacy, asked, options, config["shards"], counted=counted)
        print(_described(mechanism, asked.queries, ledger))
        ensemble = _load(folder, config, device)
        first = openings(prefixes, ensemble.tokenizer)
        longest = max(map(len, first)) + options.length
        if longest > ensemble.positions:  # before anything is charged
            raise InputError(
                f"a prompt and its text may have {longest} tokens, and the model takes {ensemble.positions}; shorten "
                "the prompts or take a smaller --length"
            )
        most = min(options.num_samples, asked.queries)
        cells = list(range(min(most, len(prefixes)))) if prompts is not None else [0] * most
        if labelled:
            public = privacy.label_counts == "public"
            counts = label_counts(folder, ledger, PREDICT, corpus, options.label_noise, public=public)
            cells = sequence(counts, most).tolist()
        writer = Writer(ensemble, mechanism, options, [Text(number, first[cell]) for number, cell in enumerate(cells)])
        _answer(folder, ledger, writer, asked.queries, options.block_queries)
        answered = sum(len(text.tokens) for text in writer.texts)
        stopped = "the budget of queries is spent" if answered >= asked.queries else "all texts are written"
        print(f"{answered:,} answers, {asked.queries:,} charged: {stopped}")
        about = {
            "method": "private next-token prediction"
            + (" (clipped logits)" if asked.aggregation == "dclip" else " (PMixED)"),
            **spec.told,
            "model": config["model_type"],
            "ensemble": f"{config['shards']} adapters",
            "answers": f"{answered:,}, a token each",
            **({} if prompts is None else {"prompts": "public, on the owner's word"}),
        }
        if release.is_published(folder, ledger, about):
            print(f"{root}: this run is complete; a larger --queries extends it as far as its budget allows")
            return
        frame = _frame(writer, cells, spec, labelled=labelled, continued=prompts is not None)
        facts = release.publish(folder, ledger, frame, about, types)
        summary.end(folder, facts)


def _answer(folder: RunFolder, ledger: Ledger, writer: Writer, queries: int, block: int) -> None:
    """Give the answers that are left, block by block.

    All `queries` are charged before the first of them, and stay charged where fewer are needed: when the texts end is
    told by their tokens, and an epsilon that follows from what was drawn is exceeded with more than delta.
    """
    from tqdm import tqdm

    mechanism, done = writer.mechanism, 0
    charged = _charged(ledger)
    if queries > charged:
        rest = queries - charged
        ledger.charge(PREDICT, f"{ANSWERS}/{charged}-{queries}", mechanism, mechanism.event(rest))
    charges = _charges(ledger)
    blocks = {block.start: block for block in ledger.reservations(PREDICT) if block.kind == ANSWERS}
    with tqdm(total=queries, unit="answer", desc="answers") as bar:
        while done < queries and (writer.unfinished or done in blocks):
            charge = next(x for x in charges if x.start <= done < x.stop)
            known = blocks.get(done)
            stop = known.stop if known else min(done + block, charge.stop, done + writer.unfinished)
            number, file = stop - done, folder.answers / f"{done:09d}-{stop:09d}.json"
            own = known is not None and known.event is not None  # of an earlier version: it charged block by block
            stored = ledger.release(
                PREDICT,
                f"{ANSWERS}/{done}-{stop}",
                folder.relative(file),
                mechanism if own else None,
                mechanism.event(number) if own else None,
                functools.partial(writer.answer, number),
                within=None if own else charge.name,
            )
            writer.take(stored)
            bar.update(number)
            done = stop


def _charges(ledger: Ledger) -> list[Reservation]:
    """What is charged for answers."""
    return [charge for charge in ledger.charges(PREDICT) if charge.kind == ANSWERS]


def _charged(ledger: Ledger) -> int:
    """How many answers are charged."""
    return max((charge.stop for charge in _charges(ledger)), default=0)


def _plan(
    folder: RunFolder,
    ledger: Ledger,
    privacy: PrivacyOptions,
    asked: MechanismOptions,
    options: AnswerOptions,
    shards: int,
    *,
    counted: bool,
) -> PrivatePrediction:
    """The mechanism of the run: calibrated once, and the same for all answers after that."""
    assert privacy.epsilon is not None
    delta = float(ledger.header["delta"])
    groups = (privacy, asked, options)
    config = {name: value for group in groups for name, value in dataclasses.asdict(group).items()}
    config["prompts_sha256"] = sha256(Path(options.prompts)) if options.prompts is not None else None
    free = {f.name for group in groups for f in dataclasses.fields(group) if f.metadata["free"]}
    earlier = _charges(ledger)
    before = folder.earlier_config(PREDICT, config, free) if earlier else {}
    others = open_histogram(ledger, LABEL_COUNTS, options.label_noise if counted else None)
    if earlier:
        mechanism = earlier[0].mechanism
        assert isinstance(mechanism, PrivatePrediction)
        done = _charged(ledger)
        for name, least in (("queries", done), ("num_samples", before.get("num_samples", 0))):
            if config[name] < least:
                raise InputError(f"--{name} {config[name]}: this run was begun with {least}; ask for no fewer")
        most = done + planning.largest(
            mechanism, max(asked.queries - done, 0), privacy.epsilon, delta, [*ledger.events(), *others]
        )
        if asked.queries > most:
            raise InputError(
                f"--queries {asked.queries}: within epsilon {privacy.epsilon:g} the mechanism of this run may give "
                f"{most:,} answers in all; ask for no more, or for a larger --epsilon"
            )
    else:
        mixture = Mixture(shards, asked.inclusion)
        mechanism = planning.plan(
            asked.method,
            mixture,
            asked.queries,
            privacy.epsilon,
            delta,
            [*ledger.events(), *others],
            order=asked.order,
            temperature=options.temperature,
        )
    ledger.set_budget(privacy.epsilon)
    folder.keep_config(PREDICT, {**before, **config})
    return mechanism


def _described(mechanism: PrivatePrediction, queries: int, ledger: Ledger) -> str:
    """The plan, for the user."""
    settings = ", ".join(f"{name} {value:.4g}" for name, value in describe(mechanism)["settings"].items())
    delta = float(ledger.header["delta"])
    line = f"answers: {queries:,} by {type(mechanism).__name__} ({settings})"
    if isinstance(mechanism, PublishedRenyi):
        return f"{line}; its published accounting does not hold, so this is no verified guarantee"
    share = planning.kept(mechanism) / planning.GAIN
    return f"{line}, delta {shown(delta)}; it keeps {share:.0%} of what a reference pair of models differs by"


def _prompts(options: AnswerOptions, spec: DatasetSpec, config: dict[str, Any]) -> list[str]:
    """The public texts that are to be continued; InputError for a file that cannot be public."""
    assert options.prompts is not None
    path = Path(options.prompts)
    if not path.exists():
        raise InputError(f"{path}: there is no such file")
    private = {spec.path(spec.split(config["split"]).file), Path(config["train_data_file"] or os.devnull)}
    if is_private(path) or any(other.exists() and path.samefile(other) for other in private):
        raise InputError(f"{path}: is private, and a prompt is released with the text that goes on with it")
    frame = read_table(path)
    column = next((name for name in ("prompt", "text") if name in frame), None)
    if column is None or frame.empty:
        raise InputError(f"{path}: has no column 'prompt' or 'text', or no row")
    found: list[str] = frame[column].tolist()
    return found


def _frame(writer: Writer, cells: list[int], spec: DatasetSpec, *, labelled: bool, continued: bool) -> pd.DataFrame:
    """id, parent_id (empty), text, then the label columns. A text that goes on with a prompt begins with it."""
    rows = []
    for text, cell in zip(writer.texts, cells, strict=True):
        tokens = text.context if continued else text.tokens
        words = writer.ensemble.tokenizer.decode(tokens, skip_special_tokens=True).strip()
        if text.tokens and words:
            rows.append((f"p-{text.number}", "", words, *(spec.cells[cell] if labelled else ())))
    columns = ["id", "parent_id", "text", *(spec.label_columns if labelled else ())]
    return pd.DataFrame(rows, columns=columns, dtype=str)


def _planned(options: PerplexityOptions, shards: int) -> dict[str, tuple[float | None, Mixture | None]]:
    """The rows of the table: the budget and the mechanism of each."""
    mixture = Mixture(shards, options.inclusion)
    rows: dict[str, tuple[float | None, Mixture | None]] = {"public": (0.0, None)}
    for epsilon in options.epsilons or [8.0]:
        for method in options.methods or ("max", "renyi", "paper", "dclip"):
            order = options.order
            if method == "paper":
                some = (o for o in (order, *planning.ORDERS) if planning.leaves(o, epsilon, options.delta))
                order = next(some, order)
            mechanism = planning.plan(method, mixture, options.queries, epsilon, options.delta, order=order)
            rows[f"{method} {epsilon:g}"] = epsilon, mechanism
    return {**rows, "unprotected": (math.inf, mixture)}


def _figures(perplexities: np.ndarray, mechanism: Mixture | None) -> dict[str, Any]:
    settings = describe(mechanism)["settings"] if isinstance(mechanism, PrivatePrediction) else {}
    kept = ""
    if isinstance(mechanism, PrivatePrediction) and not isinstance(mechanism, PublishedRenyi):
        kept = f"{planning.kept(mechanism) / planning.GAIN:.3f}"
    return {
        "perplexity": f"{perplexities.mean():.4f}",
        "std": f"{perplexities.std(ddof=1):.4f}" if len(perplexities) > 1 else "",
        "kept": kept,
        "order": mechanism.order if isinstance(mechanism, PublishedRenyi) else "",
        "mechanism": " ".join(f"{name}={value:.6g}" for name, value in settings.items()),
    }


def _trained(root: Path) -> tuple[RunFolder, dict[str, Any]]:
    """The run of an ensemble and its settings; InputError where there is none, or not all of it."""
    path = root / "state" / f"{ENSEMBLE}.json"
    if not path.is_file():
        train = typed(f"predict train --result_folder {shlex.quote(str(root))}")
        raise InputError(f"{root}: no ensemble is here; train one by `{train}`")
    folder, config = RunFolder(root).make(), whole_json(path, CONFIG)
    missing = [path for path in _adapters(folder, config["shards"]) if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]}: this model is missing; run `{typed('predict train')}` to its end")
    return folder, config


def _adapters(folder: RunFolder, shards: int) -> list[Path]:
    return [folder.private / ENSEMBLE / f"shard-{number:05d}" for number in range(shards)]


def _same_data(folder: RunFolder, corpus: PrivateCorpus) -> None:
    """InputError if the ensemble is of other private records than these."""
    path, now = folder.private / ENSEMBLE / "fingerprint", corpus.fingerprint(folder.secret_key())
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, now.encode())
    elif path.read_text() != now:
        raise InputError(f"{folder.root}: its ensemble was trained on other private data; use another --result_folder")


def _load(folder: RunFolder, config: dict[str, Any], device: HardwareOptions) -> Ensemble:
    from dpsda.pmixed.ensemble import Ensemble

    name = config["model_type"]
    if identity(name) != config[BASE]:
        raise InputError(f"{name}: is not the model that the adapters were trained on; restore it")
    return Ensemble(name, _adapters(folder, config["shards"]), device)


def _tuned(root: Path, config: dict[str, Any]) -> tuple[str, list[Path], float]:
    """What a run of finetune.py or of predict.py train --shards 1 left: the model, the adapter on it if there is one,
    and its epsilon. InputError for another base model than that of the ensemble with settings `config`, as their tokens
    would not compare."""
    single = (root / "state" / f"{ENSEMBLE}.json").is_file()
    folder, own = _trained(root) if single else (RunFolder.existing(root), {})
    if not single:
        own = whole_json(folder.state / "finetune.json", ("model_type",))
    if own["model_type"] != config["model_type"]:
        raise InputError(f"{root}: its base model is {own['model_type']}, and here it is {config['model_type']}")
    if own.get("shards", 1) > 1:
        raise InputError(f"{root}: --compare takes a model, and here are {own['shards']}")
    base = config["model_type"]
    if single:
        return base, _adapters(folder, 1), math.inf
    epsilon = round_up(Ledger(root, read_only=True).epsilon())
    if (folder.state / "adapter").exists():
        return base, [folder.state / "adapter"], epsilon
    if (folder.state / "model").exists():
        return str(folder.state / "model"), [], epsilon
    raise InputError(f"{root}: no fine-tuned model is here; run `{typed('finetune')}` to its end")
