"""A new data set: the files that describe it, written from what its owner says. No record is looked at."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from apis.prompting import PromptBook
from dpsda import hub_datasets, json_lines, yaml_files
from dpsda.arg_utils import typed
from dpsda.assets import DATA
from dpsda.data import DatasetSpec, new
from dpsda.data.loading import column_names
from dpsda.data.spec import Reader
from dpsda.errors import InputError
from dpsda.options import NewDataOptions
from dpsda.start import PROMPTS

SHOWN = 3  # prompts


def run(options: NewDataOptions) -> None:
    """Write the folder, show what will be asked, and say what comes next. Raises InputError, and leaves nothing, for
    what does not fit the file's columns, or a folder that is there."""
    plain = Path(options.name).name == options.name
    folder = DATA / options.name if plain else Path(options.name)
    if folder.exists():
        raise InputError(f"{folder}: is there already; edit its files, or give another name")
    options = _asked(options)
    assert options.data and options.text and options.describe
    there = column_names(Path(options.data))
    labels, attributes = _domains("label", options.label or []), _domains("attribute", options.attribute or [])
    for column in (options.text, *labels, *attributes, *([options.user] if options.user else [])):
        _check_column(options.data, there, column)
    words = (options.words[0], options.words[1])
    file = hub_datasets.absolute(options.data)
    spec = new.spec(file, options.text, options.describe, labels, attributes, options.user)
    Reader(folder / "spec.yaml").spec(yaml_files.parse(spec, folder / "spec.yaml"))
    near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    dataset, unit = options.name if plain else str(folder), "user" if options.user else "record"
    subjects = [subject.strip() for subject in options.about or []]
    files = {
        "spec.yaml": spec,
        PROMPTS: new.prompts(options.describe, list(labels), list(attributes), subjects, words),
        "augpe.yaml": new.settings(dataset, f"results/{folder.name}", unit, words, str(near)),
        "finetune.yaml": new.training(dataset, f"results/{folder.name}-finetune", unit, words, str(near)),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        for name, text in files.items():
            (made / name).write_text(text, encoding="utf-8")
        shutil.move(made, folder)
    _show(dataset, folder, near, there, 2 * words[1])


def _check_column(data: str, there: list[str], column: str) -> None:
    # a JSON object may lack a key that another one has
    if column not in there and not json_lines.is_json_lines(Path(data)):
        raise InputError(f"{data}: has no column {column!r} in its header")  # which may be a record


def _domains(option: str, given: list[str]) -> dict[str, list[str]]:
    """`kind=bug`, `question`, `stars=1`, ... -> {kind: [bug, question], stars: [1, ...]}"""
    where, labels = f"--{option}: " if option else "", dict[str, list[str]]()
    for word in given:
        column, equals, value = word.partition("=")
        if equals:
            if column.strip() in labels:
                raise InputError(f"{where}{column.strip()} is given twice; give its values once")
            labels[column.strip()] = []
        elif not labels:
            raise InputError(f"{where}{word!r} is no column with its values; write COLUMN=VALUE,VALUE")
        labels[[*labels][-1]].append((value if equals else word).strip())
    for column, domain in labels.items():
        if len(domain) < 2:
            raise InputError(f"{where}{column} has one value, which tells nothing; give all that it can have")
    return labels


def _asked(options: NewDataOptions) -> NewDataOptions:
    """With what is missing, as the owner answers on the terminal; InputError where there is none."""
    needed = [name for name in ("data", "text", "describe") if not getattr(options, name)]
    if not needed:
        return options
    if not sys.stdin.isatty():
        raise InputError(f"--{needed[0]} is needed (see --help)")
    print("An empty answer leaves out what is optional. Of the file, only the names of its columns are read.")
    if not options.data:

        def file(answer: str) -> str:
            column_names(Path(answer))
            return answer

        options = replace(options, data=_answer("the file of the records", file, needed=True))
    there = column_names(Path(str(options.data)))
    print(f"its columns: {', '.join(there)}")

    def column(answer: str) -> str:
        _check_column(str(options.data), there, answer)
        return answer

    def domain(answer: str) -> str:
        for name in _domains("", answer.split(",")):
            column(name)
        return answer

    if not options.text:
        options = replace(options, text=_answer("the column of the texts", column, needed=True))
    if not options.describe:
        asked = "what one text is (as in: a message from a customer to the support desk of a software company)"
        options = replace(options, describe=_answer(asked, needed=True))
    if options.label is None:
        print("A label is a column with few values that anybody may know: from a form or a manual, not from the file.")
        asked = "a label and its values (as in: kind=bug,question; optional)"
        options = replace(options, label=_columns(asked, domain))
    if options.attribute is None:
        print(
            "Texts can be written to other columns of their row, too, if these have few values that anybody may know."
        )
        asked = "such a column and its values (as in: product=notes,mail; optional)"
        options = replace(options, attribute=_columns(asked, domain))
    if options.user is None:
        asked = "the column of the user, if one may have several records (optional)"
        options = replace(options, user=_answer(asked, column))
    if options.about is None:
        about = _answer("subjects that texts may have (as in: invoices, passwords; optional)")
        options = replace(options, about=[word for word in about.split(",") if word.strip()])
    return options


def _columns(question: str, check: Callable[[str], str]) -> list[str]:
    found: list[str] = []
    while answer := _answer(question, check):
        found += [word for word in answer.split(",") if word.strip()]
    return found


def _answer(question: str, check: Callable[[str], str] = str, *, needed: bool = False) -> str:
    """What is answered, once `check` raises no InputError."""
    while True:
        try:
            answer = input(f"{question}: ").strip()
        except EOFError:
            raise InputError("the answers ended before the questions; nothing is written") from None
        if not answer and not needed:
            return answer
        if answer:
            try:
                return check(answer)
            except InputError as error:
                print(f"{error}; once more")


def _show(name: str, folder: Path, near: Path, there: list[str], length: int) -> None:
    spec = DatasetSpec.read(folder)
    book = PromptBook.read(folder / PROMPTS)
    labels = spec.rows()
    book.check("paraphrase", labels, spec.attribute_names)
    print(f"{near}: spec.yaml, {PROMPTS}, augpe.yaml and finetune.yaml are written; read them, they are short")
    read = [*spec.columns, *spec.attribute_names]
    unread = len({*there} - {*read})
    print(f"columns that are read: {', '.join(read)}" + (f"; {unread} others are not" if unread else ""))
    if "{keyword}" not in "".join(book.init):
        print(f"no subjects are given (--about), so that the texts may be much alike: add `keywords` to {PROMPTS}")
    print("prompts that will be asked, for example:")
    rng = np.random.default_rng(0)
    for which in np.resize(rng.permutation(len(labels)), SHOWN):
        print(f"    {book.initial(labels[which], rng).text}")
    print("next: try the prompts on a model without any record, then see what a run would do, without a vote of one")
    model = f"--model_type {new.MODEL} --length {length} --temperature {new.TEMPERATURE}"
    print("    " + typed(f"prompts {shlex.quote(name)} {model}"))
    settings = shlex.quote(f"{near}/augpe.yaml")
    run = typed(f"augpe --config {settings} --epsilon 4")
    print(f"    {run} --dry_run")
    print("and last, the run itself")
    print(f"    {run}")
    print("or, with thousands of records, train a model on them under DP (docs/training.md)")
    print("    " + typed(f"finetune --config {shlex.quote(f'{near}/finetune.yaml')} --epsilon 4"))
