"""The Python API: the same runs as those of the command line, from values and DataFrames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apis.engines import OWN
from dpsda.commands import COMMANDS
from dpsda.data import DatasetSpec
from dpsda.errors import InputError, did_you_mean
from dpsda.privacy import certificate
from dpsda.privacy.files import appearing, private_folder, write_atomic
from dpsda.runs import RunFolder, read_json, read_table

if TYPE_CHECKING:
    import pandas as pd

    from apis.api import TextAPI

TRAIN = "train.parquet"


def dataset(
    folder: str | Path,
    frame: pd.DataFrame | None = None,
    *,
    text: str = "text",
    labels: Mapping[str, Sequence[str]] | None = None,
    attributes: Sequence[Mapping[str, Any]] | None = None,
    user: str | None = None,
    prompts: Mapping[str, Any] | None = None,
) -> str:
    """A data set, for `run`: the folder, or the name of a folder of data/, that holds spec.yaml; or one that is made of
    private records, a row each.

    `labels` are label columns with the values that they may take, which are public. `attributes` and `prompts` are what
    spec.yaml and prompts.yaml say of them (docs/own_data.md). The records are written into the folder, which only its
    owner may read. Raises InputError for columns that are not there, and for a folder that holds other records.
    """
    if frame is not None:
        columns = [str(one["column"]) for one in attributes or () if "column" in one]
        needed = (text, *(labels or {}), *columns, *([user] if user else []))
        missing = [name for name in needed if name not in frame]
        if missing:
            raise InputError(f"the table has no column {missing[0]!r}; there are: {', '.join(map(str, frame.columns))}")
        place = private_folder(Path(folder))
        spec: dict[str, Any] = {"text": text, "splits": {"train": {"file": TRAIN}}}
        if labels:
            spec["labels"] = [{"column": name, "domain": [str(x) for x in domain]} for name, domain in labels.items()]
        if attributes:
            spec["attributes"] = [dict(one) for one in attributes]
        if user:
            spec["user"] = user
        for name, content in (("spec.yaml", spec), ("prompts.yaml", prompts)):
            if content is not None:
                _write_yaml(place / name, content)
        _write_records(place / TRAIN, frame)
    return str(DatasetSpec.read(str(folder)).folder)


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    folder: Path

    @property
    def certificate(self) -> dict[str, Any]:
        """What the certificate says, after all of it was checked against the ledger. Raises PrivacyError where that
        does not hold."""
        certificate.verify(self.folder)
        return dict(read_json(RunFolder.existing(self.folder).shared / certificate.FILE))

    @property
    def guarantee(self) -> str:
        """The guarantee in a sentence, or that there is none."""
        return str(self.certificate["statement"])

    @property
    def epsilon(self) -> float:
        return float(self.certificate["epsilon"])

    @property
    def delta(self) -> float:
        return float(self.certificate["delta"])

    @property
    def texts(self) -> pd.DataFrame:
        """The released texts: id, parent_id, text, then the label columns."""
        path = RunFolder.existing(self.folder).release / "synthetic.parquet"
        if not path.is_file():
            raise InputError(f"{self.folder}: no texts are released here")
        return read_table(path)


def read(folder: str | Path) -> Run:
    """The run in a folder; InputError where none is."""
    return Run(RunFolder.existing(Path(folder)).root)


def run(method: str, data: str | None, folder: str | Path, *, api: TextAPI | None = None, **options: Any) -> Run:
    """Run a command of the table in `dpsda/commands.py`, such as `augpe` or `predict train`, or go on with it.

    `data` is what `dataset` gives (None where the run knows it), `folder` is the run's, and `options` are those of the
    command line, by their names: `epsilon=4, epochs=3`. With `api`, that writes the texts of Aug-PE; on the data card
    its name is `model_type`, or its class. Raises InputError or PrivacyError, where the command would end with a line.
    """
    name, _, step = method.partition(" ")
    command = COMMANDS.get(name)
    groups = () if command is None else (command.steps or {}).get(step, ()) if step else command.groups
    if command is None or not groups:
        raise InputError(f"no method {method!r}{did_you_mean(method, COMMANDS)}")
    given = {**options, "result_folder": str(folder), **({} if data is None else {"dataset": data})}
    if api is not None:
        if name != "augpe":
            raise InputError(f"{method} writes no text by an engine; leave out `api`")
        given = {"model_type": type(api).__name__, **given, "api": OWN}
    known = {field.name for group in groups for field in fields(group)}
    unknown = next((key for key in given if key not in known), None)
    if unknown is not None:
        raise InputError(f"{method} has no option {unknown!r}{did_you_mean(unknown, known)}")
    values = []
    for group in groups:
        try:
            values.append(group(**{f.name: given[f.name] for f in fields(group) if f.name in given}))
        except TypeError as error:  # one that is needed is not there
            raise InputError(f"{method}: {error}") from None
    command.route(step)(*values, **({} if api is None else {"api": api}))
    return read(folder)


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    import yaml

    write_atomic(path, yaml.safe_dump(dict(content), allow_unicode=True, sort_keys=False).encode())


def _write_records(path: Path, frame: pd.DataFrame) -> None:
    """The records as parquet; InputError where other ones are there, as a run may have been made on them."""
    import pandas as pd

    wanted = frame.reset_index(drop=True)
    if path.is_file():
        if pd.read_parquet(path).astype(str).equals(wanted.astype(str)):
            return
        raise InputError(f"{path}: holds other records; give another folder")
    with appearing(path) as scratch:
        wanted.to_parquet(scratch, index=False)
