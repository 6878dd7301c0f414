"""How long texts are, in tokens, and how far apart two distributions of lengths are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH = 8192  # texts whose tokens are in memory at a time


def token_lengths(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """(N,) int64: the number of tokens of each text, of the whole text and without special tokens."""
    lengths: list[int] = []
    for start in range(0, len(texts), BATCH):
        tokens = tokenizer(
            list(texts[start : start + BATCH]),
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            verbose=False,  # no warning of texts longer than the model takes
        )
        lengths.extend(map(len, tokens["input_ids"]))
    return np.array(lengths, dtype=np.int64)


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Wasserstein-1 distance, in tokens, of lengths `a` (N,) and `b` (M,): how far a length has to move on average to
    turn one distribution into the other. Raises ValueError if one of the two is empty."""
    from scipy.stats import wasserstein_distance

    _check(a, b)
    return float(wasserstein_distance(a, b))


def total_variation(a: np.ndarray, b: np.ndarray, width: int = 1) -> float:
    """Total variation, in [0, 1], between the histograms of lengths `a` (N,) and `b` (M,) in bins of `width` tokens.

    The first bin starts at 0. Biased upwards for few texts or narrow bins, so compare only values of equal N, M and
    `width`. Raises ValueError if `a` or `b` is empty.
    """
    _check(a, b)
    bins = max(a.max(), b.max()) // width + 1
    share_a, share_b = (np.bincount(x // width, minlength=bins) / len(x) for x in (a, b))
    return float(np.abs(share_a - share_b).sum() / 2)


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if not len(a) or not len(b):
        raise ValueError(f"there are {len(a)} and {len(b)} lengths: nothing to compare")
