"""Canaries: made-up records, each in the private data by the toss of a coin, so that whoever tells which are in has
learned it from what was released (Steinke, Nasr, Jagielski 2023).

A canary begins like a record and goes on with words drawn at random (Meeus et al. 2025, The Canary's Echo): it looks
like the data to an encoder, and like nothing else to a language model. Its label is drawn from the domain. With users,
a canary is a user of several such records. The tosses come from the operating system's entropy.
"""

from __future__ import annotations

import io
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpsda.data import DatasetSpec, PrivateCorpus, load, rows
from dpsda.errors import InputError
from dpsda.options import DataOptions
from dpsda.privacy.files import write_atomic
from dpsda.runs import read_table

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX, SUFFIX = 8, 12  # words of a canary that are a record's first ones, and that are drawn
VOCABULARY = 5000  # records whose words these are
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
    """Write FOLDER/private/corpus.parquet, which is returned: the private records and, of `canaries` of `repeats`
    records each, those whose coin says so. All of them go to canaries.parquet beside it. InputError where it is there.
    """
    import pyarrow as pa

    private = folder / "private"
    if (private / CANARIES).exists():
        raise InputError(f"{folder}: canaries are planted here already; give another --output")
    corpus = load(spec, data.split, file=data.train_data_file, share=data.private_share)
    everything = rows(spec, data.split, file=data.train_data_file)
    number = np.repeat(np.arange(canaries), repeats)
    there = np.array([secrets.randbits(1) for _ in range(canaries)], dtype=bool)[number]
    private.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = _make(spec, data, corpus, everything.schema, canaries, repeats, private)
    _write(private / CORPUS, pa.concat_tables([everything, made.filter(there)]))
    made = made.append_column(NUMBER, pa.array(number.astype(str)))
    _write(private / CANARIES, made.append_column(THERE, pa.array(there.astype(int).astype(str))))
    return private / CORPUS


def read(folder: Path, spec: DatasetSpec, split: str, share: float) -> Planted:
    """What `plant` wrote. Raises InputError where nothing is planted, or not in this split."""
    corpus, canaries = (folder / "private" / name for name in (CORPUS, CANARIES))
    if not canaries.is_file():
        raise InputError(f"{folder}: no canaries are planted here; python audit.py plant does it")
    table = read_table(canaries)
    number = table[NUMBER].astype(int).to_numpy()
    there = np.zeros(number.max() + 1, dtype=bool)
    there[number] = table[THERE] == "1"
    known = load(spec, split, file=canaries, share=share)
    if known.num_records != len(number):
        raise InputError(f"{folder}: its canaries were made for another split or --private_share")
    return Planted(load(spec, split, file=corpus, share=share), known, number, there)


def _make(
    spec: DatasetSpec,
    data: DataOptions,
    corpus: PrivateCorpus,
    schema: pa.Schema,
    canaries: int,
    repeats: int,
    private: Path,
) -> pa.Table:
    """The records of all canaries, (canaries * repeats) rows: only such as `load` takes for the split."""
    import pyarrow as pa

    choice = secrets.SystemRandom()
    some = choice.choices(range(corpus.num_records), k=VOCABULARY)
    words = sorted({word for row in some for word in corpus.texts[row].split()})
    kept: list[pa.Table] = []
    while sum(map(len, kept)) < canaries * repeats:
        made = pa.Table.from_pylist(
            [row for _ in range(canaries) for row in _canary(spec, corpus, words, choice, repeats)], schema
        )
        taken = _taken(spec, data, made, private).reshape(-1, repeats).all(axis=1)
        kept.append(made.filter(np.repeat(taken, repeats)))
    return pa.concat_tables(kept)[: canaries * repeats]


def _canary(
    spec: DatasetSpec, corpus: PrivateCorpus, words: list[str], choice: secrets.SystemRandom, repeats: int
) -> list[dict[str, str]]:
    same = {column: values[0] for column, values in spec.filter.items()}
    same |= dict(zip(spec.label_columns, choice.choice(spec.cells), strict=True))
    same |= {spec.user: f"canary {secrets.token_hex(8)}"} if spec.user else {}
    starts = [corpus.texts[choice.randrange(corpus.num_records)].split()[:PREFIX] for _ in range(repeats)]
    return [{**same, spec.text: " ".join([*start, *choice.choices(words, k=SUFFIX)])} for start in starts]


def _taken(spec: DatasetSpec, data: DataOptions, made: pa.Table, private: Path) -> np.ndarray:
    """(n,) whether `load` takes each of some records, whose texts are all different."""
    with tempfile.TemporaryDirectory(dir=private) as scratch:
        file = Path(scratch) / CORPUS
        _write(file, made)
        try:
            taken = {*load(spec, data.split, file=file, share=data.private_share).texts}
        except InputError:  # none of them
            taken = set()
    return np.array([text in taken for text in made[spec.text].to_pylist()])


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_atomic(path, buffer.getvalue())
