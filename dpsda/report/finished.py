"""A finished run as the pages need it, read from its folder. What is missing or damaged is one line."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsda.augpe.selection import RULES
from dpsda.errors import InputError
from dpsda.privacy import accounting, certificate
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder, label_columns, row_columns, whole_csv, whole_json
from dpsda.stages import AUGPE, FINETUNE, PREDICT
from dpsda.wording import count

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class FinishedRun:
    """A run that has a release. Everything here is read outside `private/`, unless the run was made without noise."""

    folder: RunFolder
    certificate: dict[str, Any]
    config: dict[str, Any]
    frame: pd.DataFrame  # the released texts: id, parent_id, text, then the label columns

    @classmethod
    def read(cls, root: Path) -> FinishedRun:
        import pandas as pd

        folder = RunFolder.existing(root)
        path, texts = folder.shared / certificate.FILE, folder.release / "synthetic.csv"
        if not path.is_file():
            raise InputError(f"{root}: there is no release in this run yet; finish it with its own command first")
        certificate.verify(root)
        facts = whole_json(path, ["about"])
        if not isinstance(facts["about"], dict):
            raise InputError(f"{path}: 'about' is not ours; it was edited or damaged, run the run's command again")
        made = texts.name in facts["files"]  # a run whose result is a classifier has none
        frame = whole_csv(texts, ["text"]) if made else pd.DataFrame(columns=["text"])
        return cls(folder, facts, folder.config(), frame)

    @property
    def name(self) -> str:
        return self.folder.root.resolve().name

    @property
    def epsilon(self) -> float:
        return float(self.certificate["epsilon"])

    @property
    def method(self) -> str:
        """The method as it is compared: what changes the votes of Aug-PE, and the control, which keeps texts at random,
        are methods of their own."""
        name = str(self.certificate["about"].get("method", "unknown"))
        if self.voted and self.ledger.reservations(AUGPE):
            correction, share = self.config["hub_correction"], self.config["in_context_share"]
            name += f", {correction}" if correction != "none" else ""
            name += ", labels from votes" if self.config["labels_from"] == "votes" else ""
            name += f", {share:.0%} by example" if share else ""
            name += ", rows" if row_columns(self.config) else ""
        return name if self.voted else f"{name} ({self.config['select_syn_mode']} selection)"

    @property
    def voted(self) -> bool:
        """Whether private records voted for the texts, where they are Aug-PE's."""
        return RULES[self.config.get("select_syn_mode", "rank")].takes_votes

    @property
    def trained(self) -> bool:
        """Whether the texts come from a model that was trained on private records."""
        return bool(self.ledger.reservations(FINETUNE))

    @property
    def answered(self) -> bool:
        """Whether they are answers of an ensemble of such models."""
        return bool(self.ledger.reservations(PREDICT))

    @property
    def guaranteed(self) -> bool:
        """Whether its epsilon is a guarantee, and not what a publication claims."""
        return not accounting.claimed(self.ledger.events())

    @property
    def data_set(self) -> str:
        return str(self.certificate["about"].get("data set", "unknown"))

    @property
    def label_columns(self) -> list[str]:
        return label_columns(self.frame.columns, self.config)

    @property
    def attribute_columns(self) -> list[str]:
        return [name for name in row_columns(self.config) if name in self.frame]

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
        return list(whole_csv(path, ["text"])["text"]) if path.is_file() else []

    def evaluation(self) -> dict[str, Any]:
        path = self.folder.state / "evaluation.json"
        return whole_json(path) if path.is_file() else {}


def words(texts: Sequence[str]) -> np.ndarray:
    """(N,) int64: the number of words of each text, as wording.py counts them."""
    import numpy as np

    return np.fromiter((count(text) for text in texts), np.int64)
