"""Canaries: made-up records, each in the private data by the toss of a coin, so that whoever tells which are in has
learned it from what was released (Steinke, Nasr, Jagielski 2023).

A canary begins like a record and goes on with words drawn from that record (after Meeus et al. 2025, The
Canary's Echo): it looks like the data to an encoder, and like nothing else to a language model. Its label is drawn from
the domain. With users, a canary is a user of several such records. All chance is the operating system's entropy.

Privacy: a canary is made of one record (or one user's) alone and takes its place, and which records these are is
decided for each by itself. So a record (or a user) of the original data is in one of what a run is made on, or in none,
and the run's guarantee is theirs, if its unit is a record where a canary is one (or a user, where it is several).
"""

from __future__ import annotations

import io
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpsda.arg_utils import typed
from dpsda.data import DatasetSpec, PrivateCorpus, load, rows, taken
from dpsda.data.loading import user_hash
from dpsda.errors import InputError
from dpsda.options import DataOptions
from dpsda.privacy.files import private_folder, write_atomic
from dpsda.runs import read_table
from dpsda.wording import spaced, words

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX, SUFFIX = 8, 12  # words of a canary that are its record's first ones, and that are drawn from all of it
DIFFERENT = 4  # words that a record has to have for a canary
CORPUS = "corpus.parquet"
CANARIES = "canaries.parquet"
NUMBER, THERE = "canary", "there"  # of that file, beside the columns of the data set: whose record it is, "1" if in


@dataclass(frozen=True, eq=False)
class Planted:
    """`corpus` is what a run was made on: its last records are those of the canaries that are in it.

    `canaries` are the records of all canaries, as a corpus; `number` (rows,) is whose each is, and `there` (m,) which
    are in.
    """

    corpus: PrivateCorpus
    canaries: PrivateCorpus
    number: np.ndarray
    there: np.ndarray

    @property
    def others(self) -> int:
        """How many records are no canary's; they come first."""
        return self.corpus.num_records - int(self.there[self.number].sum())


def plant(folder: Path, spec: DatasetSpec, data: DataOptions, canaries: int, repeats: int) -> Path:
    """Write FOLDER/private/corpus.parquet, which is returned: the private records, of which some, about `canaries`, are
    replaced by canaries that are there if their coin says so. All canaries go to canaries.parquet beside it. With
    `repeats` above 1, it is users that are replaced, each by one of so many records.

    Raises InputError where canaries are planted already, or there are too few records or users for so many.
    """
    import pyarrow as pa

    ours = {NUMBER, THERE} & {*spec.columns, *spec.attribute_names}
    if ours:
        raise InputError(
            f"the data set has a column {min(ours)!r}, as the file of canaries has; rename it, and in "
            f"{spec.folder / 'spec.yaml'}"
        )
    private = folder / "private"
    if (private / CANARIES).exists():
        raise InputError(f"{folder}: canaries are planted here already; give another --output")
    table = rows(spec, data.split, file=data.train_data_file, attributes=True)
    own = np.flatnonzero(taken(table, spec, data.split, data.private_share))
    unit = np.arange(len(table)) if repeats == 1 else user_hash(table[spec.user])
    units, choice = np.unique(unit[own]), secrets.SystemRandom()
    if 2 * canaries > len(units):
        what = "records" if repeats == 1 else "users"
        raise InputError(f"--canaries {canaries}: would replace more than half of the {what}; ask for fewer")
    chosen = units[[choice.random() < canaries / len(units) for _ in units]]
    own = own[np.isin(unit[own], chosen)]
    sources: dict[float, list[str]] = {}  # of each canary, the texts that it is made of
    for source, text in zip(unit[own].tolist(), table[spec.text].take(own).to_pylist(), strict=True):
        if len({*map(str.strip, words(text))}) >= DIFFERENT:
            sources.setdefault(source, []).append(text)
    if 4 * len(sources) < canaries:  # which chance alone does not do
        raise InputError(
            "too few records have four different words, of which a canary could be made; give more records"
        )
    made = _make(spec, data, [*sources.values()], table.schema, repeats, choice)
    number = np.repeat(np.arange(len(sources)), repeats)
    there = np.array([secrets.randbits(1) for _ in sources], dtype=bool)[number]

    private_folder(private)
    others = table.filter(pa.array(~np.isin(unit, [*sources])))
    _write(private / CORPUS, pa.concat_tables([others, made.filter(there)]))
    made = made.append_column(NUMBER, pa.array(number.astype(str)))
    _write(private / CANARIES, made.append_column(THERE, pa.array(there.astype(int).astype(str))))
    return private / CORPUS


def read(folder: Path, spec: DatasetSpec, split: str, share: float, *, attributes: bool = False) -> Planted:
    """What `plant` wrote, with the columns of `attributes` if a run has read them. Raises InputError where nothing is
    planted, or not in this split."""
    corpus, canaries = (folder / "private" / name for name in (CORPUS, CANARIES))
    if not canaries.is_file():
        raise InputError(f"{folder}: no canaries are planted here; `{typed('audit plant')}` does it")
    table = read_table(canaries)
    number = table[NUMBER].astype(int).to_numpy()
    there = np.zeros(number.max() + 1, dtype=bool)
    there[number] = table[THERE] == "1"
    known = load(spec, split, file=canaries, share=share, attributes=attributes)
    if known.num_records != len(number):
        raise InputError(f"{folder}: its canaries were made for another split or --private_share")
    return Planted(load(spec, split, file=corpus, share=share, attributes=attributes), known, number, there)


def _make(
    spec: DatasetSpec,
    data: DataOptions,
    sources: list[list[str]],
    schema: pa.Schema,
    repeats: int,
    choice: secrets.SystemRandom,
) -> pa.Table:
    """(len(sources) * repeats) rows, a canary of each source's texts: only such as `load` takes for the split."""
    import pyarrow as pa

    made: list[pa.Table | None] = [None] * len(sources)
    while missing := [number for number, table in enumerate(made) if table is None]:
        drawn = [row for number in missing for row in _canary(spec, sources[number], choice, repeats)]
        table = pa.Table.from_pylist(drawn, schema)
        fit = taken(table, spec, data.split, data.private_share).reshape(-1, repeats).all(axis=1)
        for place in np.flatnonzero(fit):
            made[missing[place]] = table.slice(place * repeats, repeats)
    return pa.concat_tables(made)


def _canary(spec: DatasetSpec, texts: list[str], choice: secrets.SystemRandom, repeats: int) -> list[dict[str, str]]:
    same = {column: values[0] for column, values in spec.filter.items()}
    same |= dict(zip(spec.label_columns, choice.choice(spec.cells), strict=True))
    for attribute in (attribute for attribute in spec.attributes if attribute.column):
        code = np.array([choice.randrange(len(attribute.values))])
        [value] = attribute.written(code, np.random.default_rng(choice.getrandbits(63)))
        same[attribute.name] = "" if value is None else str(value)
    same |= {spec.user: f"canary {secrets.token_hex(8)}"} if spec.user else {}
    drawn = [words(choice.choice(texts)) for _ in range(repeats)]
    return [{**same, spec.text: spaced([*own[:PREFIX], *choice.choices(own, k=SUFFIX)])} for own in drawn]


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_atomic(path, buffer.getvalue())
