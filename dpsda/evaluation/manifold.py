"""Precision, recall, density and coverage: whose k-neighbourhoods the texts of the other side fall into.

A set's manifold is the union of balls around its points, each as large as the distance to the point's k-th nearest
neighbour in the set. Precision and recall: Kynkaanniemi et al. 2019 (arXiv:1904.06991), equations 1 and 2. Density and
coverage: Naeem et al. 2020 (arXiv:2002.09797), equations 5 and 9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 1024  # rows whose distances to all of the other side are in memory at a time


@dataclass(frozen=True)
class Manifold:
    """Points (N, D) float64 and the squared radius (N,) of the ball around each."""

    points: np.ndarray
    radii: np.ndarray
    k: int

    @classmethod
    def of(cls, rows: np.ndarray, k: int) -> Manifold:
        """The manifold of `rows` (N, D). Raises ValueError unless 1 <= k < N."""
        points = np.asarray(rows, dtype=np.float64)
        if not 1 <= k < len(points):
            raise ValueError(f"k = {k} is not between 1 and the number of other points, {len(points) - 1}")
        radii = np.empty(len(points))
        for start in range(0, len(points), BLOCK):
            squares = _squares(points[start : start + BLOCK], points)
            here = np.arange(len(squares))
            squares[here, start + here] = np.inf  # a point is not its own neighbour
            radii[start : start + BLOCK] = np.partition(squares, k - 1, axis=1)[:, k - 1]
        return cls(points, radii, k)


def overlap(real: Manifold, synthetic: Manifold) -> dict[str, float]:
    """precision, recall, f1, density, coverage of `synthetic` (M points) against `real` (N points), same k and D.

    All but density lie in [0, 1]; density is 1 in expectation for equal distributions and can exceed it. Compare values
    of equal N, M and k only.
    """
    inside = np.zeros(len(synthetic.points), dtype=bool)  # in a ball of a real point
    balls = np.zeros(len(synthetic.points), dtype=np.int64)  # in how many
    reached = np.zeros(len(real.points), dtype=bool)  # in a ball of a synthetic point
    covered = np.zeros(len(real.points), dtype=bool)  # with a synthetic point in its ball
    for start in range(0, len(real.points), BLOCK):
        part = slice(start, start + BLOCK)
        squares = _squares(real.points[part], synthetic.points)
        within = squares <= real.radii[part, None]
        inside |= within.any(axis=0)
        balls += within.sum(axis=0)
        covered[part] = within.any(axis=1)
        reached[part] = (squares <= synthetic.radii).any(axis=1)
    precision, recall = float(inside.mean()), float(reached.mean())
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "density": float(balls.mean() / real.k),
        "coverage": float(covered.mean()),
    }


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) squared Euclidean distances."""
    return np.maximum(np.vecdot(a, a)[:, None] + np.vecdot(b, b) - 2 * a @ b.T, 0.0)
