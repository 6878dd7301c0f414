"""Stand-ins for the encoder and for the private records: `--dry_run` walks a whole run with them in seconds.

Votes of the real records, even noisy ones, would be a release that no ledger holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from dpsda.data import PrivateCorpus
from dpsda.data.loading import Texts
from dpsda.start import num_units


def stand_in(corpus: PrivateCorpus, unit: str, *, public_label_counts: bool) -> PrivateCorpus:
    """A made-up corpus with as many units as `corpus`, which is public, spread evenly over the label cells; or with its
    label counts, where the owner says that they are known to everybody."""
    units = num_units(corpus, unit)
    known = public_label_counts and unit == "record"
    return dataclasses.replace(
        corpus,
        texts=Texts(pa.chunked_array([pa.array([f"Record {i}." for i in range(units)], pa.large_string())])),
        cells=np.sort(corpus.cells) if known else (np.arange(units) % len(corpus.spec.cells)).astype(np.int32),
        users=np.arange(units) if unit == "user" else None,
        dropped=corpus.dropped[:0],
        missing=corpus.missing[:0],
        columns={a.name: np.arange(units) % len(a.values) for a in corpus.spec.attributes if a.name in corpus.columns},
    )


class HashEncoder:
    """Embeds a text as a unit vector of 16 dimensions that depends on nothing but the text."""

    def embed(self, texts: Sequence[str], *, private: bool, desc: str = "") -> np.ndarray:
        seeds = [int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8).digest(), "little") for t in texts]
        vectors = np.array([np.random.default_rng(seed).standard_normal(16) for seed in seeds], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def check_room(self, texts: Sequence[str], *, private: bool) -> None:
        """Nothing is kept, so there is room."""
