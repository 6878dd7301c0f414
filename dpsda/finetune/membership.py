"""Who is in the batch of a step. Membership comes from the operating system's entropy and is never stored or shown."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np

from dpsda.privacy.mechanism import GradientSum


@dataclass(frozen=True, eq=False)
class Records:
    """Each of `units` records for itself."""

    units: int

    def draw(self, mechanism: GradientSum) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one step, (B,), and the weight of each, (B,)."""
        rows = mechanism.sample(self.units)
        return rows, np.ones(len(rows), dtype=np.float32)


class Users:
    """Each user for itself, with at most `most` of its records.

    Privacy: a user in the batch contributes the mean of the clipped gradients of k <= `most` of its records: a vector
    of norm at most the clipping norm, however many records it has: adding or removing a user is what it is accounted
    for. Which records are taken is drawn anew in every step.
    """

    def __init__(self, users: np.ndarray, most: int) -> None:  # users: (n,) codes, equal for one user
        self.most = most
        self._order = np.argsort(users, kind="stable")
        _, counts = np.unique(users, return_counts=True)
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self.units = len(counts)

    def draw(self, mechanism: GradientSum) -> tuple[np.ndarray, np.ndarray]:
        """Rows of one step, (B,), and the weight of each, (B,): those of a user sum to 1."""
        choice = secrets.SystemRandom()
        rows, weights = [], []
        for user in mechanism.sample(self.units):
            own = range(int(self._starts[user]), int(self._ends[user]))
            taken = choice.sample(own, min(self.most, len(own)))
            rows += taken
            weights += [1 / len(taken)] * len(taken)
        return self._order[np.array(rows, dtype=np.int64)], np.array(weights, dtype=np.float32)


Members = Records | Users
