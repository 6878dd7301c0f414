"""LMSYS-Chat-1M, and files like it, as private instructions: one row (text, answer) for every conversation that passes.

    dpsda lmsys COPY/*.parquet                 a local copy: parquet files or json lines
    dpsda lmsys lmsys/lmsys-chat-1m            by hub name, for whom the hub has granted access
    dpsda lmsys FILE --output data/mine/conversations.parquet

What passes (Yu et al. 2024, 5.1): the language is English, nothing was redacted, no message was flagged by moderation,
and the first turn is a user's. `text` is that turn and `answer` the one after it, empty where there is none.

Every conversation is judged by itself. The paper also removes duplicates and texts that share ten words with an earlier
one; then one user's record decides whether another's is used, and the guarantee, whose neighbours differ by a single
record, does not hold for what follows. Here repeated instructions stay, as records of their own.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsda import csv_records
from dpsda.arg_utils import run
from dpsda.assets import DATA
from dpsda.data.published import hub_rows, whole_parquet
from dpsda.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("conversation", "language", "openai_moderation", "redacted")
LINES = 8192  # conversations read at a time


def schema() -> pa.Schema:
    """The columns that are read, of LMSYS-Chat-1M's own format."""
    import pyarrow as pa

    message = pa.struct([("role", pa.large_string()), ("content", pa.large_string())])
    kinds = [
        pa.list_(message),
        pa.large_string(),
        pa.list_(pa.struct([("flagged", pa.bool_())])),
        pa.bool_(),
    ]
    return pa.schema(list(zip(COLUMNS, kinds, strict=True)))


def judge(table: pa.Table) -> pa.Table:
    """The rows (text, answer) of those of n conversations that pass, each decided by its own values only."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = table.combine_chunks()
    keep = pc.and_(pc.equal(table["language"], "English"), pc.invert(table["redacted"]))
    moderated = pc.greater(pc.list_value_length(table["openai_moderation"]), 0)
    keep = pc.and_(keep, moderated)  # what was not moderated is not known to be clean
    table = table.filter(pc.fill_null(keep, False))

    moderation = table["openai_moderation"].combine_chunks()
    flags = pc.fill_null(pc.struct_field(pc.list_flatten(moderation), "flagged"), True).to_numpy(zero_copy_only=False)
    of = pc.list_parent_indices(moderation).to_numpy()
    clean = np.bincount(of[flags], minlength=len(table)) == 0

    # the first two messages of each, by their places in the flat list of all
    conversation = table["conversation"].combine_chunks()
    messages = pc.list_flatten(conversation)
    lengths = pc.fill_null(pc.list_value_length(conversation), 0).to_numpy().astype(np.int64)
    starts = np.cumsum(lengths) - lengths

    def turn(place: int, role: str) -> tuple[pa.Array, np.ndarray]:
        """The contents of everyone's message number `place`, and whether there is one and it is `role`'s."""
        index = pa.array(starts + place, mask=lengths <= place)
        message = pc.take(messages, index)
        right = pc.fill_null(pc.equal(pc.struct_field(message, "role"), role), False)
        return pc.struct_field(message, "content"), right.to_numpy(zero_copy_only=False)

    texts, asked = turn(0, "user")
    answers, answered = turn(1, "assistant")
    filled = pc.not_equal(pc.utf8_trim_whitespace(pc.fill_null(texts, "")), "").to_numpy(zero_copy_only=False)
    answers = pc.if_else(pa.array(answered), pc.fill_null(answers, ""), "")
    return pa.table({"text": texts, "answer": answers}).filter(pa.array(clean & asked & filled))


def read(source: str) -> Iterator[pa.Table]:
    """The conversations of a parquet file, of json lines, or of a data set on the hub, some thousands at a time. A line
    that is no conversation in LMSYS's format, or is not UTF-8, is left out, by itself."""
    path = Path(source)
    if not path.exists() and not path.suffix and source.count("/") == 1:
        return _hub(source)
    if not path.is_file():
        raise InputError(f"{source}: there is no such file; without a copy of the data, --dataset chat has another one")
    return _parquet(path) if csv_records.is_parquet(path) else _lines(path)


def _parquet(path: Path) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
        if missing:
            raise InputError(f"{path}: has no column {missing[0]!r}, which LMSYS-Chat-1M has")
        for batch in file.iter_batches(batch_size=LINES, columns=list(COLUMNS)):
            yield _table(_rows(batch))
    except pa.ArrowException:
        raise InputError(f"{path}: not a parquet file, or a damaged one") from None


def _rows(batch: pa.RecordBatch) -> list[Any]:
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        if len(batch) == 1:
            return []
        half = len(batch) // 2
        return _rows(batch.slice(0, half)) + _rows(batch.slice(half))


def _lines(path: Path) -> Iterator[pa.Table]:
    rows: list[Any] = []
    with open(path, encoding="utf-8", errors="surrogateescape") as file:  # what is not UTF-8 fits in no table
        for line in file:
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
            if len(rows) == LINES:
                yield _table(rows)
                rows = []
    yield _table(rows)


def _hub(name: str) -> Iterator[pa.Table]:
    remedy = "it is gated: log in and accept its terms, give a local copy, or use --dataset chat, which needs no hub"
    rows = hub_rows(name, split="train", remedy=remedy)
    while batch := list(itertools.islice(rows, LINES)):
        yield _table(batch)


def _table(rows: list[Any]) -> pa.Table:
    """Rows in the format that is read; those that are not in it are left out one by one."""
    import pyarrow as pa

    rows = [{name: row.get(name) for name in COLUMNS} for row in rows if isinstance(row, dict)]
    try:
        return pa.Table.from_pylist(rows, schema=schema())
    except (pa.ArrowException, TypeError, ValueError):
        good = []
        for row in rows:
            try:
                pa.Table.from_pylist([row], schema=schema())
            except (pa.ArrowException, TypeError, ValueError):
                continue
            good.append(row)
        return pa.Table.from_pylist(good, schema=schema())


def convert(sources: Sequence[str], output: Path) -> None:
    """Write the rows of all `sources` that pass to the parquet file `output`, which appears when it is complete."""
    import pyarrow as pa
    from tqdm import tqdm

    rows = pa.schema([("text", pa.large_string()), ("answer", pa.large_string())])
    kept = False
    with whole_parquet(output, rows) as writer, tqdm(unit=" conversations", desc="convert", delay=1) as bar:
        for source in sources:
            for table in read(source):
                passed = judge(table)
                kept = kept or len(passed) > 0
                writer.write_table(passed.cast(rows))
                bar.update(len(table))
        if not kept:
            raise InputError(f"{sources[0]}: no conversation passes; are the files in the format of LMSYS-Chat-1M?")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="dpsda lmsys", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", nargs="+", help="parquet files, json lines, or a name on the hub")
    default = DATA / "lmsys" / "conversations.parquet"
    parser.add_argument("--output", type=Path, default=default, help="default: data/lmsys/conversations.parquet")
    args = parser.parse_args(argv)
    convert(args.source, args.output)
    print(f"{args.output}: written; these are private records, so keep the file where it is")


if __name__ == "__main__":
    run(main)
