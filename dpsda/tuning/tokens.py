"""Private texts as tokens: one array for all of them, and batches that hold texts of about one length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

Batch = dict[str, torch.Tensor]

BLOCK = 8192  # texts tokenised at a time
MULTIPLE = 8  # a batch is as wide as its longest text, rounded up to this


@dataclass(frozen=True, eq=False)
class Tokens:
    """n texts: `ids` (all tokens,) int32, text i ending before `ends`[i]; its first `given`[i] tokens are not to be
    learned; `labels`[i] is its class."""

    ids: np.ndarray
    ends: np.ndarray
    given: np.ndarray
    labels: np.ndarray
    pad: int

    @classmethod
    def of(
        cls,
        texts: Sequence[str],
        labels: np.ndarray,
        encode: Callable[[Sequence[str], np.ndarray], tuple[list[list[int]], list[int]]],
        pad: int,
    ) -> Tokens:
        """`encode` gives the tokens of some texts with their labels, and how many of each are given. Row by row."""
        ids, lengths, given = [np.zeros(0, np.int32)], [], []
        for start in range(0, len(texts), BLOCK):
            rows, lead = encode(texts[start : start + BLOCK], labels[start : start + BLOCK])
            ids.append(np.fromiter((token for row in rows for token in row), np.int32))
            lengths += [len(row) for row in rows]
            given += lead
        return cls(np.concatenate(ids), np.cumsum(lengths), np.array(given), labels.astype(np.int64), pad)

    @classmethod
    def rows(cls, rows: list[list[int]], given: list[int], labels: np.ndarray, pad: int) -> Tokens:
        """Of rows of tokens, the first `given` of each not to be learned."""
        ids = np.fromiter((token for row in rows for token in row), np.int32)
        return cls(ids, np.cumsum([len(row) for row in rows], dtype=np.int64), np.array(given, np.int64), labels, pad)

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.ends, prepend=0)

    def batch(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """input_ids, attention_mask and wanted (B, T): whether a token is there to be learned; label (B,)."""
        lengths = self.lengths[rows]
        width = -(-int(lengths.max()) // MULTIPLE) * MULTIPLE
        place = np.arange(width)
        ids = np.full((len(rows), width), self.pad, dtype=np.int64)
        mask = place < lengths[:, None]
        ids[mask] = np.concatenate(
            [self.ids[self.ends[row] - n : self.ends[row]] for row, n in zip(rows, lengths, strict=True)]
        )
        arrays = {
            "input_ids": ids,
            "attention_mask": mask.astype(np.int64),
            "wanted": mask & (place >= self.given[rows, None]),
            "label": self.labels[rows],
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def cut(lengths: np.ndarray, most_rows: int, most_tokens: int) -> list[np.ndarray]:
    """Positions 0 ... B - 1 in batches of about one length, longest first: each of at most `most_rows` rows and, unless
    it is a single one, `most_tokens` tokens with its padding. A sum over rows does not care for their order."""
    order = np.argsort(-lengths, kind="stable")
    parts, start = [], 0
    while start < len(order):
        width = -(-int(lengths[order[start]]) // MULTIPLE) * MULTIPLE
        stop = start + max(1, min(most_rows, most_tokens // width))
        parts.append(order[start:stop])
        start = stop
    return parts
