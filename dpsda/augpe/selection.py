"""What is kept, decided from noisy counts only. A rule is a function and its line in RULES.

The command line reads this file, and has to start without numpy: import that in a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def rank(counts: np.ndarray, size: int, threshold: float, rng: np.random.Generator) -> np.ndarray:
    """The highest noisy counts: the threshold does not change an order, and where too few candidates exceed it the
    order goes on below it."""
    return (-counts).argsort(kind="stable")[:size]


def prob(counts: np.ndarray, size: int, threshold: float, rng: np.random.Generator) -> np.ndarray:
    """A draw with replacement in proportion to the counts above the threshold, or evenly if there are none."""
    if not len(counts):
        return rng.permutation(0)
    weights = counts.clip(0) * (counts > threshold)
    weights = weights if weights.sum() > 0 else weights + 1
    return rng.choice(len(counts), size=min(size, len(counts)), p=weights / weights.sum())


def at_random(counts: np.ndarray, size: int, threshold: float, rng: np.random.Generator) -> np.ndarray:
    """The control, which looks at no count."""
    return rng.permutation(len(counts))[:size]


@dataclass(frozen=True)
class Rule:
    """`choose` takes the noisy counts of one label's candidates, (m,), and gives the numbers of `size` of them, or of
    all where there are fewer. It sees no text and no vector."""

    choose: Callable[[np.ndarray, int, float, np.random.Generator], np.ndarray]
    about: str
    takes_votes: bool = True


RULES = {
    "rank": Rule(rank, "keep the most voted"),
    "prob": Rule(prob, "draw in proportion to the votes"),
    "random": Rule(at_random, "draw at random (the control: no vote is taken)", takes_votes=False),
}


def select(
    noisy: np.ndarray,  # (M,) noisy counts of the candidates
    candidate_cells: np.ndarray,  # (M,)
    sizes: np.ndarray,  # (cells,) how many to keep
    mode: str,
    threshold: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """The numbers of the kept candidates, label by label; fewer than asked where a label has too few candidates."""
    import numpy as np

    kept = []
    for cell, size in enumerate(sizes):
        own = np.flatnonzero(candidate_cells == cell)
        kept.append(own[RULES[mode].choose(noisy[own], size, threshold, rng)])
    return np.concatenate(kept)
