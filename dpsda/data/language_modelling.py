"""WikiText-103 and One Billion Word, which PMixED is published on (Flemings et al. 2024), as data sets of this project.

    dpsda language_modelling wikitext                             both splits from the hub
    dpsda language_modelling one_billion_word
    dpsda language_modelling wikitext --train wiki.train.raw --test wiki.test.raw      local copies

A local copy is text files, or parquet files with a column `text`: a line each. Writes data/NAME/train.parquet and
test.parquet. A record, which is what is protected, is an article of WikiText, from its heading on, and a sentence of
One Billion Word, whose sentences were shuffled when it was made. The texts stay as published, with spaces around their
punctuation, so that perplexities compare with published ones.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpsda import csv_records
from dpsda.arg_utils import Parser, run
from dpsda.assets import DATA
from dpsda.data.published import hub_rows, whole_parquet
from dpsda.errors import InputError

RECORDS = 1024  # written at a time
HEADING = re.compile(r"\s*= [^=].* =\s*")  # of an article; those of its sections have two or more of the signs a side


def articles(lines: Iterable[str]) -> Iterator[str]:
    """The articles of WikiText: each begins with a heading between empty lines."""
    article: list[str] = []
    before_empty = True
    pending = ""  # a heading, if the line after it is empty, too
    for line in lines:
        line = line.rstrip("\n")
        if pending and line.strip():
            article.append(pending)
        elif pending:
            yield from _text(article)
            article = [pending]
        pending = line if before_empty and HEADING.fullmatch(line) else ""
        before_empty = not line.strip()
        if not pending:
            article.append(line)
    yield from _text([*article, pending])


def _text(lines: Sequence[str]) -> Iterator[str]:
    text = "\n".join(line.strip() for line in lines if line.strip())
    if text:
        yield text


def sentences(lines: Iterable[str]) -> Iterator[str]:
    """Every line that holds anything."""
    return (text for line in lines if (text := line.strip()))


@dataclass(frozen=True)
class Corpus:
    hub: tuple[str, ...]  # name, and configuration if there are several
    records: Callable[[Iterable[str]], Iterator[str]]


CORPORA = {
    "wikitext": Corpus(("Salesforce/wikitext", "wikitext-103-raw-v1"), articles),
    "one_billion_word": Corpus(("dvruette/lm1b",), sentences),
}


def read(path: Path) -> Iterator[str]:
    """The lines of a text file, or of the column `text` of a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if csv_records.is_parquet(path):
        try:
            file = pq.ParquetFile(path)
            if "text" not in file.schema_arrow.names:
                raise InputError(f"{path}: has no column 'text'")
            for batch in file.iter_batches(columns=["text"]):
                table, _ = csv_records.texts(pa.Table.from_batches([batch]))
                yield from (line or "" for line in table["text"].to_pylist())
        except pa.ArrowException:
            raise InputError(f"{path}: not a parquet file, or a damaged one") from None
        return
    with open(path, encoding="utf-8", errors="replace", newline="\n") as text:  # a carriage return ends no line
        yield from text


def convert(corpus: Corpus, lines: Iterable[str], output: Path) -> int:
    """Write the records of `lines` to the parquet file `output`, and say how many they are."""
    import pyarrow as pa
    from tqdm import tqdm

    schema = pa.schema([("text", pa.large_string())])
    records, written = corpus.records(lines), 0
    with whole_parquet(output, schema) as writer, tqdm(unit=" records", desc=output.name, delay=1) as bar:
        while batch := list(itertools.islice(records, RECORDS)):
            writer.write_table(pa.table({"text": batch}, schema=schema))
            written += len(batch)
            bar.update(len(batch))
        if not written:
            raise InputError(f"{output.stem}: no record was found; are the files in the published format?")
    return written


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser("dpsda language_modelling", __doc__)
    parser.add_argument("corpus", choices=sorted(CORPORA))
    parser.add_argument("--train", type=Path, nargs="+", help="files of a local copy; default: from the hub")
    parser.add_argument("--test", type=Path, nargs="+", help="files of a local copy; default: from the hub")
    parser.add_argument("--output", type=Path, help="folder for both parquet files; default: data/CORPUS")
    args = parser.parse_args(argv)
    corpus, folder = CORPORA[args.corpus], args.output or DATA / args.corpus
    remedy = "give --train and --test files of a local copy, or use --dataset news, which needs no hub"
    for split, files in (("train", args.train), ("test", args.test)):
        if files:
            lines: Iterable[str] = itertools.chain.from_iterable(map(read, files))
        else:
            lines = (row["text"] for row in hub_rows(*corpus.hub, split=split, remedy=remedy))
        output = folder / f"{split}.parquet"
        print(f"{output}: {convert(corpus, lines, output):,} records")


if __name__ == "__main__":
    run(main)
