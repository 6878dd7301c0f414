"""A finished run as the pages need it, read from its folder. What is missing or damaged is one line."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsda.errors import InputError
from dpsda.privacy import certificate
from dpsda.privacy.files import sha256
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder
from dpsda.runs import read_csv as _read_csv
from dpsda.runs import read_json as _read_json

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_NO_LABEL = ("id", "parent_id", "text")


@dataclass(frozen=True)
class FinishedRun:
    """A run that has a release. Everything here is read outside `private/`, unless the run was made without noise."""

    folder: RunFolder
    certificate: dict[str, Any]
    config: dict[str, Any]
    frame: pd.DataFrame  # the released texts: id, parent_id, text, then the label columns

    @classmethod
    def read(cls, root: Path) -> FinishedRun:
        folder = RunFolder.existing(root)
        path = folder.shared / certificate.FILE
        if not path.is_file():
            raise InputError(f"{root}: there is no release in this run yet; finish it with its own command first")
        facts, config = read_json(path), folder.config()
        needed = (
            "epsilon",
            "delta",
            "unit",
            "units",
            "mechanisms",
            "not_protected",
            "statement",
            "about",
            "ledger",
            "files",
        )
        missing = [key for key in needed if key not in facts]
        if missing:
            raise InputError(
                f"{path}: {missing[0]!r} is missing; it was edited or damaged, run the run's command again"
            )
        texts = folder.release / "synthetic.csv"
        run = cls(folder, facts, config, read_csv(texts, ["text"]))
        if facts["ledger"]["head"] != run.ledger.head:
            raise InputError(f"{root}: the run has gone on since its release; finish it with its own command first")
        if facts["files"].get(texts.name) != sha256(texts):
            raise InputError(f"{texts}: not the file that was certified; restore it, a page would vouch for it")
        return run

    @property
    def name(self) -> str:
        return self.folder.root.resolve().name

    @property
    def epsilon(self) -> float:
        return float(self.certificate["epsilon"])

    @property
    def method(self) -> str:
        """The method as it is compared: the control, which keeps texts at random, is one of its own."""
        name = str(self.certificate["about"].get("method", "unknown"))
        return f"{name} (random selection)" if self.config.get("select_syn_mode") == "random" else name

    @property
    def data_set(self) -> str:
        return str(self.certificate["about"].get("data set", "unknown"))

    @property
    def label_columns(self) -> list[str]:
        return [column for column in self.frame.columns if column not in _NO_LABEL]

    @functools.cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.folder.root, read_only=True)

    @functools.cached_property
    def words(self) -> np.ndarray:
        """(N,) the number of words of each released text."""
        return words(self.frame["text"])

    def start_texts(self) -> list[str]:
        """The texts of iteration 0, from before any vote."""
        path = self.folder.step(0) / "samples.csv"
        return list(read_csv(path, ["text"])["text"]) if path.is_file() else []

    def evaluation(self) -> dict[str, Any]:
        path = self.folder.state / "evaluation.json"
        return read_json(path) if path.is_file() else {}


def words(texts: Sequence[str]) -> np.ndarray:
    """(N,) int64: the number of words of each text, a word being what stands between white space."""
    import numpy as np

    return np.fromiter((len(text.split()) for text in texts), np.int64)


def read_json(path: Path) -> dict[str, Any]:
    """A json file of ours; InputError if it is none."""
    if not path.is_file():
        raise InputError(f"{path}: the file is missing; this is not the whole folder of a run")
    data = _read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a file of ours; it was edited or damaged, restore it or use another folder")
    return data


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A csv of ours as strings; InputError if it is none, or has not these columns or no row."""
    try:
        frame = _read_csv(path)
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing; this is not the whole folder of a run") from None
    except ValueError:  # pandas quotes the row in its message: never pass it on
        frame = None
    # a first row that is too long makes an index of its first fields
    if frame is None or frame.index.nlevels > 1 or frame.index.dtype != int:
        raise InputError(f"{path}: not a CSV file; it was edited or damaged, restore it")
    missing = [column for column in columns if column not in frame.columns]
    if missing or frame.empty:
        what = f"has no column {missing[0]!r}" if missing else "has no rows"
        raise InputError(f"{path}: {what}; it was edited or damaged, restore it")
    return frame.fillna("")  # a row that is too short
