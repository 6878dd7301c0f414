"""The attributes of records and of texts, as codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpsda.data import PrivateCorpus
from dpsda.data.attributes import Attribute
from dpsda.neighbors import nearest, require_usable, usable

if TYPE_CHECKING:
    from dpsda.embedding import Embeds


def codes_of(corpus: PrivateCorpus, attributes: Sequence[Attribute], encoder: Embeds) -> np.ndarray:
    """(n, K) int32 the position of each record in the values of each attribute; private. -1 where a description is
    asked for and the encoder has no vector of the record. A record's codes depend on that record alone."""
    rows = [
        corpus.columns[attribute.name] if attribute.column else read_off(attribute, corpus.texts, encoder, private=True)
        for attribute in attributes
    ]
    return np.stack(rows, axis=1).astype(np.int32)


def read_off(attribute: Attribute, texts: Sequence[str], encoder: Embeds, *, private: bool) -> np.ndarray:
    """(n,) int32 what each text says of an attribute: by its rule, or by the nearest of its descriptions."""
    if not attribute.says:
        return attribute.read(texts)
    said = encoder.embed(list(attribute.says), private=False, desc="descriptions")
    require_usable(said, f"the encoder, on the descriptions of {attribute.name}")
    vectors = encoder.embed(texts, private=private, desc="private records" if private else "texts")
    found, there = np.full(len(texts), -1, np.int32), np.flatnonzero(usable(vectors))
    if len(there):  # exact, so that no text's value moves with the texts beside it
        found[there] = nearest(vectors, said, 1, "cos_sim", rows=there)[:, 0]
    return found
