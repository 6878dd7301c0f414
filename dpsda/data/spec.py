"""What a data set looks like: `data/<name>/spec.yaml`. Adding a data set is adding that file, and no code.

    text: text                                     # the column of the private texts
    describe: a review of a restaurant             # optional: what one text is, for `dpsda prompts`
    license: cc-by-4.0                             # optional: of the release, as the Hugging Face hub spells it
    language: [en]                                 # optional: of the texts, for the card of the release
    labels:                                        # public domains; leave out for unlabelled text
      - column: stars
        domain: [1, 2, 3, 4, 5]
    attributes:                                    # optional: what else a row has (dpsda/data/attributes.py)
      - {column: product, domain: [notes, mail, other]}
    user: author                                   # optional: who wrote the record, for --privacy_unit user
    filter: {language: [en]}                       # optional: only records with these values
    splits:
      train: {file: reviews.csv, hash: [0, 0.9]}   # beside the spec, absolute, embedded:NAME or hf:NAME
      test: {file: reviews.csv, hash: [0.9, 1]}    # hash: the share of the texts (of the users, if there are any)
      public: [test]                               # splits whose texts are public

Everything in a spec is public knowledge: columns, label domains and splits are chosen without looking at the data.
Values are texts as they are written: 01, 3.10, yes and 2024-05-01 need no quotes.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dpsda import assets, hub_datasets
from dpsda.data.attributes import Attribute, read_attribute
from dpsda.errors import InputError
from dpsda.wording import normalise

ROWS = 10_000  # of which prompts are checked one by one
OURS = ("id", "parent_id", "text", "candidate_id", "noisy")  # columns that stand beside those of labels in our files
SAID = ("describe", "license", "language")  # keys that change what is said of a data set, and no run on it


@dataclass(frozen=True)
class Label:
    """A label column and the values that it can take, in the spelling of the spec."""

    column: str
    domain: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """The records of `file` whose hash is in the half-open range `hash` of [0, 1)."""

    file: str
    hash: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: its columns, label domains and splits. All of it is public."""

    name: str
    folder: Path
    text: str
    splits: dict[str, Split]
    labels: tuple[Label, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    user: str | None = None
    filter: dict[str, tuple[str, ...]] = field(default_factory=dict)
    public: frozenset[str] = frozenset()
    describe: str = ""
    license: str = ""
    language: tuple[str, ...] = ()

    @property
    def told(self) -> dict[str, str]:
        """What the card of a release tells of the data set."""
        said = {"license": self.license, "language": ", ".join(self.language)}
        return {"data set": self.name, **{key: value for key, value in said.items() if value}}

    @property
    def label_columns(self) -> list[str]:
        return [label.column for label in self.labels]

    @property
    def attribute_names(self) -> list[str]:
        return [attribute.name for attribute in self.attributes]

    @property
    def cells(self) -> list[tuple[str, ...]]:
        """Every joint label cell, in the order of the domains; one empty tuple where there are no labels."""
        return list(itertools.product(*(label.domain for label in self.labels)))

    @property
    def cell_labels(self) -> list[dict[str, str]]:
        """Every joint label cell as {column: value}."""
        return [dict(zip(self.label_columns, cell, strict=True)) for cell in self.cells]

    def rows(self) -> list[dict[str, str]]:
        """Labels with rows of attributes, as prompts name them: all that there can be, or where these are too many,
        some in which every value is; the labels alone where there are no attributes."""
        sizes = [len(attribute.values) for attribute in self.attributes]
        if math.prod(sizes) * len(self.cells) <= ROWS:
            every: Iterable[tuple[int, ...]] = itertools.product(*map(range, sizes))
        else:
            mixed = np.random.default_rng(0)
            every = zip(*(mixed.permutation(np.resize(np.arange(s), max(sizes))).tolist() for s in sizes), strict=True)
        rows = [{a.name: a.shown(c) for a, c in zip(self.attributes, codes, strict=True)} for codes in every]
        return [{**label, **row} for row in rows for label in self.cell_labels]

    @property
    def columns(self) -> list[str]:
        """The columns that are read from the file, each once; those of attributes are read where rows are drawn."""
        wanted = [self.text, *self.label_columns, *self.filter, *([self.user] if self.user else [])]
        return list(dict.fromkeys(wanted))

    def split(self, name: str) -> Split:
        if name not in self.splits:
            raise InputError(f"{self.name} has no split {name!r}; there are: {', '.join(self.splits)}")
        return self.splits[name]

    def path(self, file: str) -> Path:
        """Where a split's file is: beside the spec, at an absolute path, or an asset that is fetched; `hf:NAME` as it
        is."""
        return Path(file) if hub_datasets.is_named(Path(file)) else self.folder / assets.resolve(file)

    @classmethod
    def read(cls, path_or_name: str | Path) -> DatasetSpec:
        """Read a spec by its file, by its folder, or by the name of a folder in `data/`.

        Raises InputError if there is none, if it is not YAML, or if a key is unknown, missing or of the wrong kind.
        """
        from dpsda import yaml_files

        path = Path(path_or_name)
        if not path.exists() and path.name == str(path_or_name):
            path = assets.shipped(assets.DATA / path)
        if path.is_dir():
            path = path / "spec.yaml"
        if not path.exists():
            known = ", ".join(assets.data_sets("spec.yaml"))
            raise InputError(f"no data set {str(path_or_name)!r}: give one of {known}, or a path to a spec.yaml")
        return Reader(path).spec(yaml_files.read(path, "a data set has a spec.yaml"))


@dataclass(frozen=True)
class Reader:
    """Checks the content of one spec file; every complaint names the file and the key."""

    path: Path

    def spec(self, content: Any) -> DatasetSpec:
        optional = dict.fromkeys((*SAID, "labels", "attributes", "user", "filter"), False)
        top = self.mapping(content, "", {"text": True, "splits": True, **optional})
        splits = self.mapping(top["splits"], "splits")
        public = [self.text(name, "splits.public") for name in self.list(splits.pop("public", []), "splits.public")]
        spec = DatasetSpec(
            name=self.path.parent.name,
            folder=self.path.parent,
            text=self.text(top["text"], "text"),
            labels=tuple(
                self.label(item, f"labels[{i}]") for i, item in enumerate(self.list(top.get("labels"), "labels"))
            ),
            attributes=tuple(
                read_attribute(self, item, f"attributes[{i}]")
                for i, item in enumerate(self.list(top.get("attributes"), "attributes"))
            ),
            user=self.text(top["user"], "user") if top.get("user") is not None else None,
            filter={
                self.text(column, "filter"): self.domain(values, f"filter.{column}")
                for column, values in self.mapping(top.get("filter") or {}, "filter").items()
            },
            splits={self.text(name, "splits"): self.split(item, f"splits.{name}") for name, item in splits.items()},
            public=frozenset(public),
            describe=self.text(top["describe"], "describe") if top.get("describe") is not None else "",
            license=self.text(top["license"], "license") if top.get("license") is not None else "",
            language=self.domain(top["language"], "language") if top.get("language") is not None else (),
        )
        if not spec.splits:
            self.fail("splits", "names no split")
        for name in public:
            if name not in spec.splits:
                self.fail("splits.public", f"{name!r} is not a split; there are: {', '.join(spec.splits)}")
        named = {"labels": spec.label_columns, "attributes": spec.attribute_names}
        roles = [spec.text, *spec.label_columns, *named["attributes"], *([spec.user] if spec.user else [])]
        for column in roles:
            if roles.count(column) > 1:
                where = "attributes" if column in named["attributes"] else "labels"
                self.fail(where, f"the column {column!r} has two roles (text, label, attribute, user)")
        for where, columns in named.items():
            for column in columns:
                if column in OURS:
                    self.fail(where, f"what is written has a column {column!r} of its own; {_rename(column)}")
                if "{" in column or "}" in column:
                    self.fail(where, f"no template can name the column {column!r}, for its brace; {_rename(column)}")
        return spec

    def label(self, item: Any, where: str) -> Label:
        fields = self.mapping(item, where, {"column": True, "domain": True})
        return Label(self.text(fields["column"], f"{where}.column"), self.domain(fields["domain"], f"{where}.domain"))

    def split(self, item: Any, where: str) -> Split:
        fields = self.mapping({"file": item} if isinstance(item, str) else item, where, {"file": True, "hash": False})
        bounds = fields.get("hash", ["0", "1"])
        try:
            low, high = map(float, bounds if isinstance(bounds, list) else ())
        except (TypeError, ValueError):  # not two, or not numbers
            low = high = -1.0
        if not 0 <= low < high <= 1:
            self.fail(f"{where}.hash", "is two numbers [low, high] with 0 <= low < high <= 1")
        return Split(self.text(fields["file"], f"{where}.file"), (low, high))

    def domain(self, values: Any, where: str) -> tuple[str, ...]:
        domain = []
        for value in self.list(values, where):
            if not isinstance(value, str):  # nothing, ~ and null are None
                self.fail(where, "holds something that is no value; put it in quotes if it is one")
            domain.append(value.strip())
        if not domain:
            self.fail(where, "is empty")
        if len({normalise(value) for value in domain}) < len(domain):
            self.fail(where, "names one value twice (5 and 5.0 are the same)")
        return tuple(domain)

    def mapping(self, value: Any, where: str, keys: dict[str, bool] | None = None) -> dict[str, Any]:
        """`value` as a dict; `keys` are the ones that it may have, True where it must."""
        if not isinstance(value, dict):
            self.fail(where, "is not a mapping of keys to values")
        if keys is not None:
            for key in value:
                if key not in keys:
                    near = difflib.get_close_matches(str(key), keys, n=1, cutoff=0.0)[0]
                    self.fail(where, f"unknown key {str(key)!r}; the nearest known key is {near!r}")
        for key, required in (keys or {}).items():
            if required and value.get(key) is None:
                self.fail(where, f"the key {key!r} is missing")
        return dict(value)

    def list(self, value: Any, where: str) -> list[Any]:
        if value is not None and not isinstance(value, list):
            self.fail(where, "is not a list")
        return value or []

    def text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value.strip():
            self.fail(where, f"{value!r} is not a name; if it is one, put it in quotes")
        return value

    def fail(self, where: str, what: str) -> NoReturn:
        raise InputError(f"{self.path}: {f'{where}: ' if where else ''}{what}")


def _rename(column: str) -> str:
    return f"rename the column {column!r} in the file, and here"
