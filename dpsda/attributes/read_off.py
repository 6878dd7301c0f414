"""The attributes of records and of texts, as codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dpsda.data.attributes import Attribute
from dpsda.neighbors import nearest, require_usable, usable

if TYPE_CHECKING:
    from dpsda.embedding import Embeds


class Records(Protocol):
    """n records, as a PrivateCorpus has them: their texts, and (n,) codes of each attribute that is a column."""

    @property
    def texts(self) -> Sequence[str]: ...
    @property
    def columns(self) -> Mapping[str, np.ndarray]: ...


def codes_of(records: Records, attributes: Sequence[Attribute], encoder: Callable[[], Embeds]) -> np.ndarray:
    """(n, K) int32 the position of each record in the values of each attribute; private. -1 where a description is
    asked for and the encoder has no vector of the record. A record's codes depend on that record alone. `encoder` is
    loaded where there is a description to read by."""
    off = [attribute for attribute in attributes if not attribute.column]
    reads = encoder() if any(attribute.says for attribute in off) else None
    said = iter(read_off(off, records.texts, reads, private=True).T)
    return np.stack([records.columns[a.name] if a.column else next(said) for a in attributes], axis=1).astype(np.int32)


def agreeing(codes: np.ndarray, said: np.ndarray, attributes: Sequence[Attribute]) -> tuple[np.ndarray, np.ndarray]:
    """(n, K) bool each: whether a text that says `said` can agree with the row `codes` in an attribute, and whether it
    does. It cannot where no text tells it, and where the row has no value."""
    most = np.array([len(attribute.says or attribute.values) for attribute in attributes])
    can = (codes >= 0) & (said >= 0) & (codes < most)
    return can, can & (codes == said)


def read_off(
    attributes: Sequence[Attribute], texts: Sequence[str], encoder: Embeds | None, *, private: bool
) -> np.ndarray:
    """(n, K) int32 what each text says of each attribute, by its rule or by the nearest of its descriptions; -1 where
    no text tells it, or the encoder has no vector of this one."""
    found = np.full((len(texts), len(attributes)), -1, np.int32)
    described = [i for i, attribute in enumerate(attributes) if attribute.says]
    for i, attribute in enumerate(attributes):
        if attribute.readable and not attribute.says:
            found[:, i] = attribute.read(texts)
    if described:
        assert encoder is not None
        said = [encoder.embed(list(attributes[i].says), private=False, desc="descriptions") for i in described]
        for i, rows in zip(described, said, strict=True):
            require_usable(rows, f"the encoder, on the descriptions of {attributes[i].name}")
        vectors = encoder.embed(texts, private=private, desc="private records" if private else "texts")
        there = np.flatnonzero(usable(vectors))
        if len(there):  # exact, so that no text's value moves with the texts beside it
            for i, rows in zip(described, said, strict=True):
                found[there, i] = nearest(vectors, rows, 1, "cos_sim", rows=there)[:, 0]
    return found
