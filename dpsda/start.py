"""How every run starts: folder, configuration, ledger and budget, in the order that loses nothing."""

from __future__ import annotations

import contextlib
import functools
import math
import shlex
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsda import hub_datasets, yaml_files
from dpsda.arg_utils import typed
from dpsda.data.spec import SAID
from dpsda.errors import InputError
from dpsda.options import PrivacyOptions
from dpsda.privacy.accounting import default_delta
from dpsda.privacy.files import is_private, sha256
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder, is_released, run_of, write_csv

if TYPE_CHECKING:
    from dpsda.data import DatasetSpec, PrivateCorpus

PROMPTS = "prompts.yaml"
NOTICEABLE = 0.02  # the share of records that are left out from which on it is said


def num_units(corpus: PrivateCorpus, unit: str) -> int:
    """How many records or users there are; InputError for users without a user column."""
    units = corpus.num_users if unit == "user" else corpus.num_records
    if units is None:
        raise InputError(f"--privacy_unit user needs a `user:` column in {corpus.spec.folder / 'spec.yaml'}")
    return units


def check_apart(root: Path, spec: DatasetSpec, file: str | Path | None = None) -> None:
    """InputError where a run folder is, holds or lies in the folder of the data set, or holds a file of it, whatever
    links lead there: what lies in a run folder looks as if the run had made it."""
    run, data = root.expanduser().resolve(), spec.folder.resolve()
    named = [split.file for split in spec.splits.values()] + ([str(file)] if file else [])
    files = [spec.folder / hub_datasets.local(name) for name in named]
    held = [f for f in files if f.exists() and f.resolve().is_relative_to(run) and not is_private(f)]
    held += [f for f in files if f.is_dir() and run.is_relative_to(f.resolve())]
    if run == data or run in data.parents or data in run.parents or held:
        raise InputError(
            f"{root}: the data set's files ({held[0] if held else spec.folder}) and a run's may not lie in one folder, "
            "or one inside the other; give a folder apart from the data"
        )


def in_its_folder(generate: Callable[..., None], nothing_kept: str) -> Callable[..., None]:
    """A route of `generate`, whose first argument is the run's folder: the last options name it, or it is a scratch
    one, where they ask for a dry run."""

    @functools.wraps(generate)
    def run(*options: Any, **more: Any) -> None:
        if not options[-1].dry_run:
            generate(Path(options[-1].result_folder), *options, **more)
            return
        root = Path(options[-1].result_folder)
        if RunFolder.is_run(root):
            shown = typed(f"show {shlex.quote(str(root))}")
            print(f"{root}: a run is there; this dry run is of a new one, and `{shown}` has what is spent")
        with tempfile.TemporaryDirectory() as scratch:
            generate(Path(scratch), *options, **more)
        print(nothing_kept)

    return run


@contextlib.contextmanager
def open_run(
    root: Path,
    corpus: PrivateCorpus,
    privacy: PrivacyOptions,
    labels: str | None = None,
    *,
    protected: bool | None = None,
) -> Iterator[tuple[RunFolder, Ledger]]:
    """The run folder and its ledger, locked, opened for this corpus; a folder of other data is refused.

    `labels` comes from a stage that reads no private label: what a certificate says of them where the run begins with
    that stage. Where it goes on with a run, what the first stage said holds, and so does its delta unless one is given.
    `protected` is False for a run with a finite epsilon that is no guarantee.
    """
    check_apart(root, corpus.spec, corpus.file)
    units = num_units(corpus, privacy.privacy_unit)
    protected = privacy.protected if protected is None else protected
    folder = RunFolder(root, protected=protected).make()
    with contextlib.closing(Ledger(root, protected=protected)) as ledger:
        if labels is not None and ledger.lines:
            labels = str(ledger.header["facts"].get("labels", labels))
            privacy = replace(privacy, delta=ledger.header["delta"] if privacy.delta is None else privacy.delta)
        _open(folder, ledger, units, corpus, privacy, labels or _labels(corpus, privacy))
        yield folder, ledger


def _open(
    folder: RunFolder,
    ledger: Ledger,
    units: int,
    corpus: PrivateCorpus,
    privacy: PrivacyOptions,
    labels: str,
) -> None:
    delta = default_delta(units) if privacy.delta is None else privacy.delta
    facts = {"data": corpus.fingerprint(folder.secret_key()), "labels": labels}
    ledger.open(unit=privacy.privacy_unit, units=units, delta=delta, facts=facts)
    write_csv(folder.private / "dropped.csv", corpus.dropped)
    if corpus.columns:
        write_csv(folder.private / "missing.csv", corpus.missing)
    tell_lost(corpus)
    if corpus.spec.user and privacy.privacy_unit == "record" and privacy.protected:
        print(
            f"warning: --privacy_unit record protects single records; a user (`user: {corpus.spec.user}` in spec.yaml) "
            "with several is protected less: --privacy_unit user protects all of them together"
        )


def tell_lost(corpus: PrivateCorpus) -> None:
    """Warn of records that are left out, and of values that count as missing, if they are many: that there is something
    to look at; how much is private."""
    if corpus.dropped_share > NOTICEABLE:
        print(
            "warning: many records are left out (a label outside its domain, no text, ...): a run writes which, "
            "and why, to private/dropped.csv"
        )
    shares = {name: corpus.missing_share(name) for name in corpus.columns}
    odd = [f"{name} (most of them)" if share > 0.5 else name for name, share in shares.items() if share > NOTICEABLE]
    if odd:
        print(
            f"warning: many values of {', '.join(odd)} are none that spec.yaml knows (another spelling, a unit, a "
            "decimal comma, ...), and count as missing: a run writes in which rows to private/missing.csv"
        )


def _labels(corpus: PrivateCorpus, privacy: PrivacyOptions) -> str:
    """What a certificate says of the labels."""
    if not corpus.spec.labels:
        return "no label columns"
    if privacy.label_counts == "public":
        return "the label counts are taken as public knowledge, on the owner's word"
    return "the label counts are released with noise; the label domain is public"


def configuration(spec: DatasetSpec, *options: Any, prompts: bool = False) -> tuple[dict[str, Any], set[str]]:
    """All options as plain data, with what spec.yaml says, and prompts.yaml where a stage reads that; and the names
    that may change.

    Raises InputError for a model that cost privacy which no ledger here knows of.
    """
    config: dict[str, Any] = {}
    for group in options:
        config.update(asdict(group))
    if config.get("epsilon") != math.inf:
        for name in ("model_type", "feature_extractor"):
            if config.get(name):
                _check_model(f"--{name} {config[name]}", Path(config[name]), Path(config["result_folder"]))
    for name in ("spec.yaml", *([PROMPTS] if prompts else [])):
        config[name] = _said(spec.folder / name) if (spec.folder / name).is_file() else None
    return config, {f.name for group in options for f in fields(group) if f.metadata["free"]}


def _said(path: Path) -> dict[str, Any]:
    """What a YAML file says, whatever its comments are; of a spec, without what makes no difference to a run."""
    content = yaml_files.read(path, "it is part of the data set")
    said = {key: value for key, value in content.items() if key not in SAID} if isinstance(content, dict) else content
    return {"sha256": sha256(path), "says": said}


def row_config(folder: RunFolder, corpus: PrivateCorpus) -> dict[str, Any]:
    """What a configuration holds of the rows that texts belong to: the ledger knows the records without the columns of
    attributes, which not every stage reads."""
    data = corpus.fingerprint_of_columns(folder.secret_key())
    return {"attributes": corpus.spec.attribute_names, "data": data}


def _check_model(option: str, model: Path, root: Path) -> None:
    """InputError for a model that was trained on private data at a price that the ledger of `root` does not hold."""
    if is_private(model):
        raise InputError(
            f"{option}: lies in a private folder, so it was trained on private data without noise, and no certificate "
            "could cover what it makes"
        )
    other, own = run_of(model), root.expanduser().resolve()
    if other == own and not is_released(model):
        raise InputError(
            f"{option}: lies in this run's folder, and the run did not make it as far as its ledger knows (what is in "
            "alignment/ may come from other runs); take a model that was never near these records"
        )
    if other not in (None, own):
        raise InputError(
            f"{option}: belongs to another run, and what that spent is not in the ledger of this one; if it never saw "
            f"these private records, copy the model out of {other}"
        )
