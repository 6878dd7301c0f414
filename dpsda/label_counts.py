"""How many private records each label has, with noise: what decides the labels of the samples."""

from __future__ import annotations

import io

import numpy as np

from dpsda.data import PrivateCorpus
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import describe, histogram
from dpsda.runs import RunFolder, csv_bytes, read_csv

NAME = "label_counts"  # of the release


def label_counts(
    folder: RunFolder, ledger: Ledger, stage: str, corpus: PrivateCorpus, noise_multiplier: float, *, public: bool
) -> np.ndarray:
    """(cells,) counts of the joint label cells: one noisy histogram, drawn once, or exact ones that are public.

    Privacy: a record, or a user's whole vote, is one vote of sensitivity 1 (see `histogram`); the ledger has its event.
    """
    import pandas as pd

    spec = corpus.spec
    if public:
        return np.bincount(corpus.cells, minlength=len(spec.cells)).astype(np.float64)
    mechanism = histogram(str(ledger.header["unit"]), noise_multiplier)

    def draw() -> bytes:
        noisy = mechanism.release(corpus.cells.astype(np.int64)[:, None], corpus.users, len(spec.cells))
        return csv_bytes(pd.DataFrame(spec.cells, columns=spec.label_columns).assign(noisy=noisy))

    file = folder.relative(folder.shared / "label_counts.csv")
    stored = ledger.release(stage, NAME, file, describe(mechanism), mechanism.event, draw)
    return read_csv(io.BytesIO(stored))["noisy"].astype(float).to_numpy()
