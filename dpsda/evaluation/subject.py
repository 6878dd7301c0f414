"""What is evaluated: the iterations of a run or one file, the data set they belong to, and where results may lie."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsda.data import DatasetSpec, PrivateCorpus, load
from dpsda.data.spec import normalise
from dpsda.errors import InputError
from dpsda.evaluation.options import SubjectOptions
from dpsda.evaluation.results import digest
from dpsda.options import EmbeddingOptions
from dpsda.privacy.files import is_private
from dpsda.runs import RunFolder, is_released, read_table, row_columns, run_of
from dpsda.start import check_apart

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class TextSet:
    """Texts with their label values, (N,) strings for each label column of the data set that the file has."""

    name: str  # the iteration, "before" (resampling), "release", the split, or the name of a file
    texts: Sequence[str]
    labels: dict[str, np.ndarray]

    @functools.cached_property
    def digest(self) -> str:
        """A hash of the texts and their labels."""
        return digest(self.texts, *self.labels.values())


@dataclass(frozen=True)
class Subject:
    """`shared` holds what may be shared, and `private` the rest. `protected` is whether the texts may be shared: those
    of a run without noise may not, nor those of a file that no run vouches for."""

    spec: DatasetSpec
    config: dict[str, Any]  # of the run; {} where it is not one of ours
    files: dict[str, Path]
    shared: Path
    private: Path
    protected: bool
    feature_extractor: str
    min_tokens: int
    prefix: str  # of the results' name: those of a single file are not the run's, and no page reads them as such

    @classmethod
    def of(cls, options: SubjectOptions) -> Subject:
        """Raises InputError where there is nothing to evaluate, or no data set is known."""
        root = Path(options.result_folder)
        shared, config, protected = root, {}, False
        if RunFolder.is_run(root):
            folder = RunFolder.existing(root)
            shared, config, protected = folder.shared, folder.config(), folder.protected
        steps = {p.parent.name: p for p in shared.glob("*/samples.csv") if p.parent.name.isdigit()}
        steps = {name: steps[name] for name in sorted(steps, key=int)}
        release = shared / "release" / "synthetic.csv"
        source = config.get("source")  # what was resampled
        if release.is_file() and (source or not steps or config.get("save_syn_mode", "selected") != "selected"):
            steps |= {"before": root / source} if source else {}  # else the release is the last iteration
            steps["release"] = release
        files = steps
        if options.synthetic_file:
            file = Path(options.synthetic_file)
            files = {file.stem: file}
            protected = protected and is_released(file) and run_of(file) == root.resolve()
        if not files and not options.dry_run:
            raise InputError(f"{root}: no iteration of a run is here; give the folder of one, or --synthetic_file")
        dataset = options.dataset or config.get("dataset")
        if dataset is None:
            raise InputError(f"--dataset is needed: {root} does not say which data set its texts belong to")
        spec = DatasetSpec.read(dataset)
        if config and spec.folder.resolve() != DatasetSpec.read(config["dataset"]).folder.resolve():
            config = {}  # of another data set: its private file is not this one's
        check_apart(root, spec)
        encoder = options.feature_extractor or config.get("feature_extractor", EmbeddingOptions().feature_extractor)
        protected = protected and not is_private(Path(encoder))  # figures by it may not be shared
        return cls(
            spec=spec,
            config=config,
            files=files,
            shared=shared,
            private=root / "private",
            protected=protected,
            feature_extractor=encoder,
            min_tokens=options.min_token_threshold,
            prefix=f"{Path(options.synthetic_file).stem}_" if options.synthetic_file else "",
        )

    def chosen(self, wanted: Sequence[str]) -> list[str]:
        """The names of the sets in `wanted` (iterations, `before`, `release`, `last` or `all`), in the order of the
        run, and of iteration 0, which all others are compared with."""
        names = list(self.files)
        if not names:
            return []
        wanted = [names[-1] if name == "last" else name for name in wanted]
        for name in wanted:
            if name != "all" and name not in names:
                raise InputError(f"--synthetic_iteration {name}: there is none; there are: {', '.join(names)}")
        return [name for name in names if name in wanted or "all" in wanted or name == "0"]

    def read(self, name: str, *, labels: bool = False) -> TextSet:
        """One set; with `labels`, its label columns have to be there, and to hold values of their domains."""
        path = self.files[name]
        if not path.exists():
            raise InputError(f"{path}: there is no such file")
        frame = read_table(path)
        column = next((c for c in ("text", self.spec.text) if c in frame), None)
        if column is None:
            raise InputError(f"{path}: has no column 'text' in its first line")
        found = {}
        for label in self.spec.labels if labels else ():
            if label.column not in frame:
                raise InputError(f"{path}: has no label column {label.column!r}, which the downstream task predicts")
            known = {normalise(value): value for value in label.domain}
            values = np.array([known.get(normalise(value)) for value in frame[label.column]], dtype=object)
            if any(value is None for value in values):
                raise InputError(
                    f"{path}: the column {label.column!r} has a value outside its domain in "
                    f"{self.spec.folder / 'spec.yaml'}, or none"
                )
            found[label.column] = values
        return TextSet(name, frame[column].tolist(), found)

    @property
    def has_rows(self) -> bool:
        """Whether the run's texts have rows of attributes."""
        return bool(row_columns(self.config))

    def real(self, split: str, file: str | None = None, *, attributes: bool = False) -> PrivateCorpus:
        """The records of a split; of the run's private split, those that the run took."""
        if file is None and split == self.config.get("split"):
            own = {"file": self.config["train_data_file"], "share": self.config["private_share"]}
            return load(self.spec, split, **own, attributes=attributes)
        return load(self.spec, split, file=file, attributes=attributes)

    def is_public(self, split: str, file: str | None = None) -> bool:
        """Whether spec.yaml declares the records public that `real` reads: its own file's, and not another one's."""
        other = file or (split == self.config.get("split") and self.config["train_data_file"])
        return split in self.spec.public and not other

    def results(self, name: str, *, public: bool) -> Path:
        """Where results go, without a suffix: in private/ unless the texts and what they meet may be shared."""
        return (self.shared if public and self.protected else self.private) / f"{self.prefix}{name}"


def real_set(corpus: PrivateCorpus, name: str) -> TextSet:
    """Real records as a set, each joint label cell taken apart into its columns."""
    spec = corpus.spec
    parts = np.unravel_index(corpus.cells, [len(label.domain) for label in spec.labels]) if spec.labels else []
    labels = {
        label.column: np.array(label.domain, dtype=object)[part] for label, part in zip(spec.labels, parts, strict=True)
    }
    return TextSet(name, corpus.texts, labels)


def longer(texts: TextSet, tokenizer: PreTrainedTokenizerBase, min_tokens: int) -> tuple[TextSet, np.ndarray]:
    """The texts of more than `min_tokens` tokens, and how many each has, (N,)."""
    from dpsda.evaluation.text_lengths import token_lengths

    lengths = token_lengths(texts.texts, tokenizer)
    if not min_tokens:
        return texts, lengths
    rows = np.flatnonzero(lengths > min_tokens)
    return take(texts, rows), lengths[rows]


def take(texts: TextSet, rows: np.ndarray) -> TextSet:
    """Some rows of a set."""
    return TextSet(texts.name, [texts.texts[i] for i in rows], {c: v[rows] for c, v in texts.labels.items()})
