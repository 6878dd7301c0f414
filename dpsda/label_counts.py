"""How many private records each label has, with noise: what decides the labels of the samples."""

from __future__ import annotations

import numpy as np

from dpsda.data import PrivateCorpus
from dpsda.noisy_histogram import noisy_histogram
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import histogram
from dpsda.runs import RunFolder

LABEL_COUNTS = "label_counts"  # the name of the release


def label_counts(
    folder: RunFolder, ledger: Ledger, stage: str, corpus: PrivateCorpus, noise_multiplier: float, *, public: bool
) -> np.ndarray:
    """(cells,) counts of the joint label cells: one noisy histogram, drawn once, or exact ones that are public; ones
    where there are no labels.

    Privacy: a record, or a user's whole vote, is one vote of sensitivity 1 (see `histogram`); the ledger has its event.
    """
    import pandas as pd

    spec = corpus.spec
    if not spec.labels:
        return np.ones(1)
    if public:
        return np.bincount(corpus.cells, minlength=len(spec.cells)).astype(np.float64)
    return noisy_histogram(
        folder,
        ledger,
        stage,
        LABEL_COUNTS,
        folder.shared / "label_counts.csv",
        histogram(str(ledger.header["unit"]), noise_multiplier),
        lambda: corpus.cells.astype(np.int64)[:, None],
        corpus.users,
        pd.DataFrame(spec.cells, columns=spec.label_columns),
    )
