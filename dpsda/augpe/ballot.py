"""What private records vote on: the candidates, and what corrects their scores for hubs.

In many dimensions a few points are the nearest neighbours of very many others ("hubs": Radovanovic et al. 2010), and
they lie near the centre. Votes for the nearest candidate count hubs and not density; what is kept is then varied, which
makes more hubs (docs/hubs.md). A correction lowers the score of a candidate by how near it is to the other candidates
of its label. These are public, so it costs no privacy, and a record's votes still depend on that record alone.

With sim(x, y) the cosine, the inner product, or minus half of the squared distance, and a the strength:

    global   sim(q, c) - a * (mean of sim(c, c') over the other candidates c')            (Dinu et al. 2015)
    csls     sim(q, c) - a * (mean of sim(c, c') over the 20 nearest of them)             (Lample et al. 2018: a = 1/2)
    centred  cosine of q - a m and c - a m, m the candidates' mean, times |q - a m|       (Suzuki et al. 2013)

The literature takes the neighbours of a candidate among the queries, or the mean of all points. Queries are private
here, so the candidates stand in for them. Where there are very many, csls looks for neighbours among a draw of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from dpsda.augpe.options import CORRECTIONS
from dpsda.errors import InputError
from dpsda.neighbors import Metric, search

NEIGHBOURS, FEWEST = 20, 5  # of csls
AMONG = 1 << 10  # candidates of a label among which csls looks for neighbours


@dataclass(frozen=True, eq=False)
class Ballot:
    """M candidates. Their `shifts` are added to their scores (`dpsda.neighbors.nearest`)."""

    vectors: np.ndarray  # (M, D) float32
    cells: np.ndarray  # (M,) label cells
    shifts: np.ndarray  # (M,) float64
    metric: str

    @classmethod
    def of(cls, vectors: np.ndarray, cells: np.ndarray, metric: str, correction: str, strength: float) -> Ballot:
        """The candidates with embeddings `vectors`, corrected for hubs label by label. Everything here is public.
        Raises InputError for vectors that a correction is not for."""
        if correction not in CORRECTIONS:
            raise InputError(f"no hub correction {correction!r}; there are: {', '.join(CORRECTIONS)}")
        vectors, shifts = vectors.astype(np.float32), np.zeros(len(cells))
        for cell in np.unique(cells) if correction != "none" else ():
            own = np.flatnonzero(cells == cell)
            if correction == "centred":
                vectors[own], shifts[own] = _centred(vectors[own], metric, strength)
            elif len(own) > 1:
                nearness = _to_all if correction == "global" else _to_nearest
                shifts[own] = -strength * nearness(vectors[own], metric)
        return cls(vectors, cells, shifts, metric)


def _to_all(rows: np.ndarray, metric: str) -> np.ndarray:
    """(m,) the mean of sim(c, c') over the others c'. It is the same for equal rows."""
    rows = _scaled(rows, metric)
    squares = np.vecdot(rows, rows)
    total = np.vecdot(rows, rows.sum(axis=0)) - squares
    if metric == "L2":
        total -= ((len(rows) - 2) * squares + squares.sum()) / 2
    mean: np.ndarray = total / (len(rows) - 1)
    return mean


def _to_nearest(rows: np.ndarray, metric: str) -> np.ndarray:
    """(m,) the mean of sim(c, c') over the NEIGHBOURS nearest others c', or all where there are fewer. Of more than
    AMONG rows, as many are drawn, and the neighbours are those in the draw: on average this share of NEIGHBOURS, and at
    least FEWEST. So the time is linear in m. docs/hubs.md, "Many candidates", compares both."""
    among = np.random.default_rng(0).permutation(len(rows))[:AMONG]
    neighbours = max(FEWEST, round(NEIGHBOURS * len(among) / len(rows)))
    found, near = search(rows, rows[among], min(neighbours + 1, len(among)), cast(Metric, metric))
    near = -(near**2) / 2 if metric == "L2" else near
    itself = among[found] == np.arange(len(rows))[:, None]
    itself[~itself.any(axis=1), -1] = True  # not drawn; or, of many copies and by inner product, not among the nearest
    mean: np.ndarray = near[~itself].reshape(len(rows), -1).mean(axis=1)
    return mean


def _centred(rows: np.ndarray, metric: str, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """The directions of c - a m, and -a m . v of each: q . v + shift is the score."""
    unit = _scaled(rows, "cos_sim")
    if metric == "IP" or (metric == "L2" and np.abs(np.linalg.norm(rows, axis=1) - 1).max() > 1e-3):
        raise InputError("--hub_correction centred takes --nn_mode cos_sim, or an encoder whose vectors have length 1")
    moved = strength * unit.mean(axis=0)
    vectors = _scaled(unit - moved, "cos_sim").astype(np.float32)
    return vectors, -(vectors.astype(np.float64) @ moved)


def _scaled(rows: np.ndarray, metric: str) -> np.ndarray:
    """In float64, and for the cosine at length one; a row of zeros stays."""
    rows = rows.astype(np.float64)
    if metric == "cos_sim":
        norms = np.sqrt(np.vecdot(rows, rows))
        rows /= np.where(norms > 0, norms, 1)[:, None]
    return rows
