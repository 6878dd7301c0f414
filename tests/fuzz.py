"""Made-up data sets, tables and flags, most of them broken, through every entry point: dry runs where there are some,
and otherwise as far as a command gets without a model.

python -m tests.fuzz --cases 10000 [--seed 0]       in this process, a core; says which case failed, and how
python -m tests.fuzz --only 1234                    that case alone, its files kept, its output shown

Of every case: it ends with 0 or 2, within a minute; 2 is one line of error, which is the last; nothing quotes a private
value, in the output or in a file outside of a private folder.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import dataclasses
import functools
import gzip
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import yaml

from apis import engines
from apis.echo import EchoAPI
from dpsda import arg_utils, embedding
from dpsda.commands import COMMANDS
from dpsda.dry_run import HashEncoder

MARKER = "zq7x"  # in every private value
SECONDS = 60
SPEC = {
    "text": "text",
    "labels": [
        {"column": "stars", "domain": ["low", "high"]},
        {"column": "kind", "domain": ["food", "film", "book"]},
    ],
    "user": "author",
    "filter": {"language": ["en"]},
    "splits": {"train": {"file": "train.csv"}, "test": {"file": "test.csv", "hash": [0, 0.5]}, "public": ["test"]},
}
PROMPTS = {
    "system": "You write reviews.",
    "init": ["Write a {label.stars} review of a {label.kind}, about {keyword}, in a {tone} voice, in {words} words."],
    "paraphrase": {"stars": {"low": "Rewrite: {text}", "high": ["In a {tone} voice: {text}"]}},
    "blank_fill": "Fill in the blanks: {masked}",
    "keywords": {"kind": {"food": ["soup", "bread"], "film": ["a chase"], "book": ["a plot"]}},
    "personas": ["a guest"],
    "tones": ["dry", "warm"],
    "few_shot": {"paraphrase": [{"text": "Good.", "tone": "dry", "answer": "Fine."}]},
    "length": {"min_words": 5, "max_words": 12, "whole_sentences": True},
    "reject": ["As an AI"],
}
COLUMNS = ["text", "stars", "kind", "author", "language"]
ODD = [
    "",
    " ",
    "a",
    "é",
    "e\u0301",
    "{",
    "}",
    "{label.stars}",
    "{text}",
    "{nothing}",
    "%s",
    "$HOME",
    "\u0000",
    "\ufeff",
]
ODD += ["\u202e", "🦉", "\x1b[31m", "a\rb", "a\nb", "x" * 5000]
ODD += ["null", "no", "01", "3.10", "1e5", "2020-01-01", "../x", "text", "id", "noisy", "splits", "-", "#"]
NODES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    0.5,
    -0.5,
    1e300,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    {"a": 1},
]
NODES += [{"a": {"b": {}}}, [None], {"": ""}, {1: 2}, [1, 2, 3], ["a", "a"]]
LINES = ["&a [*a]", "<<: {a: b}", "!!python/object:os.system {}", "!!binary x", "? [a]\n: b", "a: b\na: c", "---", "\t"]
LINES += [
    "splits:",
    "- - -",
    "{",
    "'",
    '"',
    "text: [",
    "a: !!float x",
    "%YAML 3.0",
    "@",
    "`",
    "|",
    "a:\n b:\n  - c\n d",
]
SMALL = ["", "-1", "0", "1", "2", "3", "7", "1.5", "x", "1_0", "٣", "nan"]  # of what is a size: larger ones take longer
NUMBERS = [*SMALL, "0.5", "1e-9", "1e-300", "1e300", "inf", "-inf", "0x1"]
# not to the network, not onto other machines, and nothing that is right and takes long
LEFT_OUT = "engine ray_address ray_workers log_online project api_base device synthetic_public result_folder output"
LEFT_OUT = {*LEFT_OUT.split(), "dry_run", "num_procs", "timeout"}

# of each command: its first words, and what else it needs
CASES = {
    "augpe": ["--noise", "5", "--epochs", "2", "--num_seed_samples", "6", "--dry_run"],
    "finetune": ["--noise", "5", "--steps", "3", "--batch_size", "8", "--dry_run"],
    "resample": ["--noise", "5", "--num_clusters", "2", "--num_samples", "3"],
    "predict train": ["--model_type", "no/model", "--shards", "2"],
    "predict generate": ["--epsilon", "8", "--queries", "4"],
    "predict evaluate": ["--epsilons", "8"],
    "metric": ["--dry_run"],
    "downstream": ["--dry_run"],
    "align pairs": ["--name", "x", "--answer_column", "stars"],
    "align answers": ["--name", "x", "--model_type", "no/model"],
    "align sft": ["--name", "x", "--model_type", "no/model"],
    "align judge": ["--name", "x", "--model_type", "no/model"],
    "audit plant": ["--canaries", "40"],
    "audit mechanism": [],
    "audit score": ["--planted", "planted"],
}
# how often: those that end early, for want of a model or a run, less often
WEIGHTS = {"augpe": 12, "finetune": 12, "resample": 12} | dict.fromkeys(["predict generate", "predict evaluate"], 1)
WEIGHTS |= dict.fromkeys(["audit mechanism", "audit score", "align sft", "align judge"], 1)


def some(rng: random.Random, values: typing.Sequence[Any]) -> Any:
    return values[rng.randrange(len(values))]


def holders(tree: Any) -> Iterator[tuple[Any, Any]]:
    """All places of a tree: what holds each, and under which key."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from holders(tree[key])


def broken_tree(rng: random.Random, tree: Any) -> Any:
    """A copy with a few places changed."""
    tree = yaml.safe_load(yaml.safe_dump(tree))
    for _ in range(some(rng, [0, 1, 1, 2, 3])):
        places = list(holders(tree))
        if not places:
            break
        holder, key = some(rng, places)
        what = rng.random()
        if what < 0.25:
            del holder[key]
        elif what < 0.5:
            holder[key] = some(rng, ODD)
        elif what < 0.75:
            holder[key] = some(rng, NODES)
        elif isinstance(holder, dict):
            holder[some(rng, ODD)] = holder.pop(key) if rng.random() < 0.5 else holder[key]
        else:
            holder.append(some(rng, [holder[key], *ODD]))
    return tree


def broken_bytes(rng: random.Random, data: bytes) -> bytes:
    """Cut, with odd bytes, in another encoding; most are left as they are."""
    what = rng.random()
    at = rng.randrange(len(data) + 1)
    if what < 0.04:
        return data[:at]
    if what < 0.08:
        return (
            data[:at] + some(rng, [b"\xff", b"\x00", b"\r", b'"', b"\n\n", b"\xef\xbb\xbf", b",,,", b";"]) + data[at:]
        )
    if what < 0.1:
        return data.decode(errors="replace").encode(some(rng, ["utf-16", "utf-16-le", "utf-32", "utf-7"]))
    if what < 0.12:
        return b"\xef\xbb\xbf" + data
    if what < 0.13:
        return some(rng, [b"", b"\n", b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"%PDF-1.4", b"\x00" * 100])
    return data


def written_yaml(rng: random.Random, tree: Any, broken: bool) -> bytes:
    if not broken:
        return yaml.safe_dump(tree, sort_keys=False).encode()
    text = yaml.safe_dump(broken_tree(rng, tree), allow_unicode=rng.random() < 0.5, sort_keys=rng.random() < 0.5)
    if rng.random() < 0.1:
        lines = text.split("\n")
        lines.insert(rng.randrange(len(lines)), some(rng, LINES))
        text = "\n".join(lines)
    return broken_bytes(rng, text.encode("utf-8", "backslashreplace"))


def table(rng: random.Random, rows: int, mark: str, odd: list[str]) -> pd.DataFrame:
    """Records whose every private value has `mark` in it, and some of whose texts one of `odd`."""
    return pd.DataFrame(
        {
            "text": [f"A {some(rng, odd)} thing number {i}{mark}." for i in range(rows)],
            "stars": [some(rng, ["low", "high"]) for _ in range(rows)],
            "kind": [some(rng, ["food", "film", "book"]) for _ in range(rows)],
            "author": [f"author {i % 9}{mark}" for i in range(rows)],
            "language": "en",
        },
        dtype=object,
    )


def broken_table(rng: random.Random, frame: pd.DataFrame, mark: str) -> pd.DataFrame:
    """Odd values in a few places; in some, a column is missing, or there twice."""
    for _ in range(some(rng, [0, 1, 2, 5])):
        row, column = rng.randrange(len(frame)), some(rng, COLUMNS)
        frame.loc[row, column] = some(rng, ["", None, f"odd{mark}", f"{some(rng, ODD)}{mark}", mark * 2000])
    if rng.random() < 0.1:
        frame = frame.drop(columns=some(rng, COLUMNS))
    if rng.random() < 0.05:
        frame = pd.concat([frame, frame[[some(rng, list(frame))]]], axis=1)
    return frame


def written_table(rng: random.Random, path: Path, broken: bool, *, private: bool = False) -> Path:
    """As csv or, in a few cases, something else; the path it has."""
    mark = f" {MARKER}{rng.randrange(10**6)}" if private else ""
    if not broken:
        table(rng, 100, mark, ["good", "bad"]).to_csv(path, index=False)
        return path
    frame = table(rng, some(rng, [1, 12, 100]), mark, [*ODD, "\ud800", "x,y", 'a "b"'])
    frame = broken_table(rng, frame, mark)
    if rng.random() < 0.1 and frame.columns.is_unique:
        path, buffer = path.with_suffix(some(rng, [".parquet", ".pq", ".PARQUET"])), io.BytesIO()
        with contextlib.suppress(UnicodeEncodeError):
            frame.to_parquet(buffer)
        path.write_bytes(broken_bytes(rng, buffer.getvalue()))
        return path
    text = frame.to_csv(index=rng.random() < 0.05, sep="," if rng.random() < 0.95 else some(rng, [";", "\t"]))
    data = broken_bytes(rng, text.encode("utf-8", some(rng, ["surrogatepass", "replace"])))
    for suffix, packed in ((".gz", gzip.compress), (".bz2", bz2.compress)):
        if rng.random() < 0.03:
            data, path = packed(data), path.with_name(path.name + suffix) if rng.random() < 0.8 else path
    path.write_bytes(data)
    return path


def words_of(rng: random.Random, groups: tuple[type, ...], files: list[Path]) -> list[str]:
    """A few flags with values, right ones and wrong ones."""
    known = [field for group in groups for field in dataclasses.fields(group) if field.name not in LEFT_OUT]
    words: list[str] = []
    for _ in range(some(rng, [1, 1, 2, 4])):
        field = some(rng, known)
        kind = str(field.type)
        if "bool" in kind:
            words += [some(rng, ["--", "--no-"]) + field.name, *(["true"] if rng.random() < 0.1 else [])]
            continue
        choices = field.metadata["choices"]
        values = list(choices) * 3 if choices else SMALL if "int" in kind else NUMBERS if "float" in kind else ODD
        value = some(rng, [*values, *(map(str, files) if "str" in kind and not choices else [])])
        words += [f"--{field.name}={value}"] if rng.random() < 0.5 else [f"--{field.name}", value]
    if rng.random() < 0.05:
        words.insert(
            rng.randrange(len(words) + 1), some(rng, ["--", "x", "--what", "--epsilon", "-h", "--dp none", "=", "--="])
        )
    return [word.replace("\0", "0") for word in words]


def made(rng: random.Random, name: str, root: Path) -> list[str]:
    """Writes the files of a case, and gives the arguments of its command."""
    data = root / "data"
    data.mkdir()
    broken = {part: rng.random() < 0.3 for part in ("spec", "prompts", "table", "texts", "flags")}
    (data / "spec.yaml").write_bytes(written_yaml(rng, SPEC, broken["spec"]))
    (data / "prompts.yaml").write_bytes(written_yaml(rng, PROMPTS, broken["prompts"]))
    train = written_table(rng, data / "train.csv", broken["table"], private=True)
    written_table(rng, data / "test.csv", broken["texts"])
    texts = written_table(rng, root / "texts.csv", broken["texts"])
    files = [train, texts, data, data / "spec.yaml", root / "nowhere", root]
    first, *rest = name.split()
    first, _, step = name.partition(" ")
    command, own = COMMANDS[first], CASES[name]
    groups = command.steps[step] if command.steps else command.groups
    words = [*rest, *own]
    names = {field.name for group in groups for field in dataclasses.fields(group)}
    for flag, value in [("dataset", data), ("result_folder", root / "run"), ("output", root / "planted")]:
        if flag in names and rng.random() < 0.99:
            words += [f"--{flag}", str(value)]
    if {"train_data_file"} & names and train.name != "train.csv":
        words += ["--train_data_file", str(train)]
    if name == "resample":  # what is private is never called public by its owner
        words += ["--synthetic_file", str(texts), "--synthetic_public"]
    for flag, value in [("instructions", texts), ("pairs", texts), ("answers", texts), ("against", texts)]:
        if flag in names:
            words += [f"--{flag}", str(some(rng, [value, value, *files]))]
    if {"split"} <= names and name == "align pairs":
        words += ["--split", some(rng, ["train", "test"])]
    more = words_of(rng, groups, files) if broken["flags"] else []
    if name == "resample":
        more = [word for word in more if "synthetic_file" not in word]
    if rng.random() < 0.3 and more:  # in a YAML file instead
        pairs = dict(word.lstrip("-").split("=", 1) for word in more if "=" in word)
        (root / "options.yaml").write_bytes(written_yaml(rng, pairs, rng.random() < 0.5))
        more = ["--config", str(root / "options.yaml")]
    return [f"{first}.py", *words, *more]


@contextlib.contextmanager
def caught() -> Iterator[list[str]]:
    """What is printed inside the block, by libraries too, afterwards in the list."""
    said: list[str] = []
    kept, streams = (os.dup(1), os.dup(2)), (sys.stdout, sys.stderr)
    with tempfile.TemporaryFile() as file:
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = (
                io.TextIOWrapper(os.fdopen(os.dup(file.fileno()), "wb"), encoding="utf-8", write_through=True)
                for _ in range(2)
            )
            yield said
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.close()
            sys.stdout, sys.stderr = streams
            for number, handle in zip((1, 2), kept, strict=True):
                os.dup2(handle, number)
                os.close(handle)
            file.seek(0)
            said.append(file.read().decode("utf-8", "backslashreplace"))


def late(*_: Any) -> None:
    raise TimeoutError(f"not done in {SECONDS} s")


def outcome(command: Callable[[], None], argv: list[str], root: Path) -> tuple[Any, str]:
    """The exit code of a command in the folder `root`, and what it printed."""
    here = Path.cwd()
    os.chdir(root)
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    code: Any = None
    try:
        with caught() as said, patch.object(sys, "argv", argv), patch.dict(os.environ, HOME=str(root)):
            try:
                arg_utils.run(command)
            except SystemExit as stop:
                code = stop.code
    finally:
        signal.alarm(0)
        os.chdir(here)
    return code, said[0]


def complaint(code: Any, printed: str, root: Path) -> str | None:
    """What is wrong with how a command ended."""
    if code not in (0, 2):
        return f"exit code {code}"
    if "Traceback" in printed:
        return "a traceback"
    if code == 2 and not printed.rstrip("\n").split("\n")[-1].startswith("error: "):
        return "the last line is no error"
    if MARKER in printed:
        return "a private value in the output"
    for path in root.rglob("*"):
        own = path.relative_to(root).parts
        shared = path.is_file() and own[0] not in ("data", "options.yaml") and "private" not in own
        if shared and MARKER.encode() in path.read_bytes():
            return f"a private value in {'/'.join(own)}"
    return None


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """No encoder is loaded, and no model is there."""
    with (
        patch.object(engines, "engine", lambda *options, **more: EchoAPI()),
        patch.object(embedding, "Encoder", lambda *options, **more: HashEncoder()),
        patch.dict(os.environ, HF_HUB_OFFLINE="1"),
    ):
        yield


def fuzz(
    numbers: typing.Iterable[int], seed: int, scratch: Path, *, keep: bool = False
) -> Iterator[tuple[int, str, Any, str, str | None]]:
    """Of each case its number, command line, exit code, output, and what is wrong with it."""
    names = list(CASES)
    weights = [WEIGHTS.get(name, 4) for name in names]
    with stand_ins():
        for number in numbers:
            rng = random.Random(f"{seed}/{number}")
            root = scratch / str(number)
            root.mkdir()
            name = rng.choices(names, weights)[0]
            argv = made(rng, name, root)
            code, printed = outcome(functools.partial(COMMANDS[name.split()[0]], name, ""), argv, root)
            yield number, " ".join(map(repr, argv)), code, printed, complaint(code, printed, root)
            if not keep:
                shutil.rmtree(root)


def report() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int)
    args = parser.parse_args()
    scratch, start = Path(tempfile.mkdtemp()), time.monotonic()
    numbers = range(args.first, args.first + args.cases) if args.only is None else [args.only]
    ends: Counter[tuple[str, Any]] = Counter()
    wrong = 0
    for number, argv, code, printed, what in fuzz(numbers, args.seed, scratch, keep=args.only is not None):
        ends[argv.split()[0].strip("'"), code] += 1
        wrong += what is not None
        if what is not None or args.only is not None:
            print(f"case {number}: {what or 'fine'}\n  {argv[:600]}\n  {printed[-1500:]}", flush=True)
    for (name, code), count in sorted(ends.items(), key=str):
        print(f"{name:<16} exit {code}: {count:,}")
    print(f"{sum(ends.values()):,} cases, {wrong} wrong, {time.monotonic() - start:.0f} s")
    if args.only is not None:
        print(f"its files: {scratch}")
    else:
        shutil.rmtree(scratch)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(report())
