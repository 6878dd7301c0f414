"""The table of metric.py: the sets of a run, and the two rows to read them by, against a reference set."""

from __future__ import annotations

import functools
import shlex
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from dpsda.arg_utils import typed
from dpsda.errors import InputError
from dpsda.evaluation import metrics, results
from dpsda.evaluation import rows as row_metrics
from dpsda.evaluation.options import MetricOptions, SubjectOptions
from dpsda.evaluation.subject import Subject, TextSet, longer, real_set, take
from dpsda.neighbors import usable
from dpsda.privacy.files import private_folder, sha256

if TYPE_CHECKING:
    from dpsda.data import PrivateCorpus
    from dpsda.embedding import Encoder
    from dpsda.evaluation.perplexity import Perplexity


def measure(options: SubjectOptions, settings: MetricOptions) -> None:
    """Measure each set once, keep the rows, and print the table where the reference is public or the owner asks."""
    subject = Subject.of(options)
    against = "file" if settings.original_file else settings.reference_split
    public = settings.reference_public or subject.is_public(settings.reference_split, settings.original_file)
    target = subject.results(f"metrics_{against}", public=public)
    names = subject.chosen(options.synthetic_iteration or ["all"])
    if options.dry_run:
        which = ", ".join(names) or "the iterations"
        print(f"would measure {which} of {options.result_folder} against {against}, into {target}.csv")
        return
    from dpsda.embedding import Encoder
    from dpsda.evaluation.perplexity import Perplexity

    started = time.monotonic()
    private_folder(subject.private)
    encoder = Encoder(subject.feature_extractor, device=options.device)
    other = Encoder(settings.metric_encoder, device=options.device) if settings.metric_encoder else None
    corpus = subject.real(settings.reference_split, settings.original_file, attributes=subject.has_rows)
    reference = _measured(real_set(corpus, against), encoder, subject, private=not public, given=settings)
    sets = [_measured(subject.read(name), encoder, subject, private=not subject.protected) for name in names]
    size = metrics.sample_size(len(reference.texts), [len(s.texts) for s in sets], settings.private_data_size)

    small = [s.name for s in sets if len(s.texts) == size]
    if small and 2 * size < max(len(s.texts) for s in sets) and subject.protected:
        print(f"{size:,} texts a side in every row: set {small[0]} has no more; --synthetic_iteration can leave it out")

    table = results.Results(target)
    given = settings.train_data_embeddings_file
    about = {
        **asdict(settings),
        "train_data_embeddings_file": given and sha256(Path(given)),
        "size": size,
        "encoder": encoder.identity,
        "min_tokens": subject.min_tokens,
        "metrics": metrics.NAMES,
        "metric_encoder": other and [other.identity, *metrics.BY_OTHER, metrics.PERPLEXITY],
    }
    real = results.digest(reference.texts)
    keys = [results.key(about, real, metrics.FLOOR), *(results.key(about, real, results.digest(s.texts)) for s in sets)]
    missing = [number for number, key in enumerate(keys[1:]) if table.get(key) is None]
    if missing or table.get(keys[0]) is None:
        rulers = [(reference, [sets[number] for number in missing])]
        if other is not None:
            again = [_seen_by(other, s, private=not subject.protected) for s in rulers[0][1]]
            rulers.append(metrics.whitened(_seen_by(other, reference, private=not public), again))
        texts = [text for some in rulers[0][1] for text in some.texts]  # a copy is one by any encoder
        yardsticks = [
            (_yardstick(seen, size, None if place else texts, settings), some)
            for place, (seen, some) in enumerate(rulers)
        ]
        judge = Perplexity(other.name, other.device) if other is not None and other.language_model else None
        if table.get(keys[0]) is None:
            floor = [yardstick.floor() for yardstick, _ in yardsticks]
            _add(table, keys[0], floor, judge, yardsticks[0][0].others)
        for place, number in enumerate(missing):
            if table.get(keys[1 + number]) is None:  # not so where two sets have the same texts
                found = [yardstick.measure(some[place]) for yardstick, some in yardsticks]
                _add(table, keys[1 + number], found, judge, rulers[0][1][place].texts)
    rows = [
        {**cast(results.Row, table.get(key)), "set": name}
        for name, key in zip([metrics.FLOOR, *names], keys, strict=True)
    ]
    table.write(rows)
    shown = (public and subject.protected) or options.log_private
    if shown:
        print(_shown(rows))
    if subject.has_rows:
        _measure_rows(subject, corpus, names, encoder, settings, public=public, log_private=options.log_private)
    page = "" if shown else f"; `{typed(f'report {shlex.quote(options.result_folder)}')}` shows it"
    print(f"{len(names)} sets against {against}: {time.monotonic() - started:.0f} s, {table.csv}{page}")


def _measure_rows(
    subject: Subject,
    corpus: PrivateCorpus,
    names: Sequence[str],
    encoder: Encoder,
    settings: MetricOptions,
    *,
    public: bool,
    log_private: bool,
) -> None:
    """The table of the attributes of a run with rows."""
    against = "file" if settings.original_file else settings.reference_split
    found = row_metrics.compare(
        corpus,
        {name: subject.files[name] for name in names},
        encoder,
        public=public,
        protected=subject.protected,
        runs=settings.run,
        seed=settings.seed,
    )
    if found:
        results.Results(subject.results(f"rows_{against}", public=public)).write(found)
    if found and ((public and subject.protected) or log_private):
        columns = [name for name in found[0] if name not in ("set", "texts")]
        print(_lines(found, columns))


def _measured(
    texts: TextSet, encoder: Encoder, subject: Subject, *, private: bool, given: MetricOptions | None = None
) -> metrics.Measured:
    """A set with its embeddings and lengths; those of a reference may be `given` as a file."""
    kept, lengths = longer(texts, encoder.tokenizer, subject.min_tokens)
    if given is not None and given.train_data_embeddings_file:
        vectors = _vectors(Path(given.train_data_embeddings_file), len(texts.texts), encoder.dim)
        if len(kept.texts) < len(texts.texts):
            raise InputError("--train_data_embeddings_file has a row for every text: leave --min_token_threshold out")
    elif len(kept.texts):
        vectors = encoder.embed(kept.texts, private=private, desc=texts.name)
    else:
        vectors = np.empty((0, encoder.dim), dtype=np.float32)
    good = usable(vectors)
    if given is not None and not good.all():  # of real texts: to stop because of one would tell that it is there
        rows = np.flatnonzero(good)
        kept, vectors, lengths = take(kept, rows), vectors[rows], lengths[rows]
    return metrics.Measured(texts.name, kept.texts, vectors, lengths)


def _seen_by(other: Encoder, some: metrics.Measured, *, private: bool) -> metrics.Measured:
    """The same texts with the vectors of another encoder; one that it has none for is at the origin."""
    vectors = other.embed(some.texts, private=private, desc=some.name)
    return replace(some, vectors=np.where(usable(vectors)[:, None], vectors, 0))


def _yardstick(
    reference: metrics.Measured, size: int, texts: Sequence[str] | None, settings: MetricOptions
) -> metrics.Yardstick:
    return metrics.Yardstick(
        reference,
        size,
        texts,
        runs=settings.run,
        k=settings.k,
        buckets=settings.buckets,
        seed=settings.seed,
    )


def _add(
    table: results.Results, key: str, rows: Sequence[metrics.Row], judge: Perplexity | None, texts: Sequence[str]
) -> None:
    """The row of a set, with what the second encoder says of it and, if that is a language model, of its `texts`."""
    row = functools.reduce(metrics.Row.beside, rows)
    table.add(key, (row.having(metrics.PERPLEXITY, judge.of(texts)) if judge else row).cells())


def _vectors(path: Path, rows: int, dim: int) -> np.ndarray:
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"{path}: not a .npy file of embeddings") from None
    if not isinstance(vectors, np.ndarray) or vectors.shape != (rows, dim):
        raise InputError(f"{path}: has not one row of {dim} numbers for each record of the reference, in its order")
    return vectors


def _shown(rows: Sequence[results.Row]) -> str:
    """The means, a metric a line and a set a column."""
    lines = [_lines(rows, [name for name in rows[0] if f"{name}_std" in rows[0]])]
    lines += [f"{row['set']}: {row['why']}" for row in rows if row["why"]]
    return "\n".join(lines)


def _lines(rows: Sequence[results.Row], names: Sequence[str]) -> str:
    width = max(map(len, [*names, "texts a side"]))
    lines = [f"{'':{width}}" + "".join(f"{row['set']:>10}" for row in rows)]
    lines.append(f"{'texts a side':{width}}" + "".join(f"{row['texts']:>10,}" for row in rows))
    for name in names:
        lines.append(f"{name:{width}}" + "".join(f"{results.shown(row[name], 4):>10}" for row in rows))
    return "\n".join(lines)
