"""The one door from private votes to a stored noisy histogram."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import Histogram, Votes
from dpsda.runs import RunFolder, csv_bytes, read_csv

if TYPE_CHECKING:
    import pandas as pd


def noisy_histogram(
    folder: RunFolder,
    ledger: Ledger,
    stage: str,
    name: str,
    path: Path,
    mechanism: Histogram,
    votes: Callable[[], Votes],  # (n, k) the bins that each private record votes for
    users: np.ndarray | None,  # (n,) whose they are, where the unit is a user
    bins: pd.DataFrame,  # what is public of each bin, a row each: the columns of the file before `noisy`
) -> np.ndarray:
    """(bins,) the noisy counts of release `name`: drawn once by `mechanism`, stored at `path`, and read from there.

    `votes` is called where there is something to draw, and not otherwise. What a process that was killed had reserved
    is drawn by the mechanism that it was reserved for.

    Privacy: `mechanism.release` is the only thing that meets the votes, and the ledger holds its event before that.
    """
    reserved = ledger.reservation(name)
    if reserved is not None and isinstance(reserved.mechanism, Histogram):
        mechanism = reserved.mechanism

    def draw() -> bytes:
        return csv_bytes(bins.assign(noisy=mechanism.release(votes(), users, len(bins))))

    stored = ledger.release(stage, name, folder.relative(path), mechanism, mechanism.event, draw)
    return counts(stored)


def counts(stored: bytes) -> np.ndarray:
    """(bins,) the noisy counts of a stored histogram."""
    return read_csv(io.BytesIO(stored))["noisy"].astype(float).to_numpy()
