"""The nearest candidates of every query: exact, in bounded memory, and for every query as if it were alone.

A block of queries meets a tile of candidates twice. One matrix product in low precision first gives every score within
a proven bound of the true one, and drops what cannot be among the k nearest. The few pairs that are left are scored in
float64, pair by pair. So an answer depends on the vectors of its own pairs only, whatever the block shapes, the device
and the precision of the first step, and removing a query changes no other one's neighbours (DESIGN, rule 9).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from dpsda.devices import multiplies_bfloat16, pick_device
from dpsda.errors import InputError

Metric = Literal["L2", "IP", "cos_sim"]

LONGEST = 1e18  # the length above which a vector is not multiplied in float32
BLOCK = 1024  # queries scored at a time
TILE = 1 << 14  # candidates scored at a time
PAIRS = 1 << 13  # pairs rescored at a time
PANEL = 1 << 11  # vectors scored among themselves at a time


def nearest(
    queries: np.ndarray,
    candidates: np.ndarray,
    k: int = 1,
    metric: Metric = "L2",
    *,
    shifts: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    device: str = "auto",
) -> np.ndarray:
    """Indices (N, k) int64 of the k nearest `candidates` (M, D) of each of `queries` (N, D), nearest first.

    `shifts` (M,) float64 are added to the scores of the candidates: the inner product, the cosine, or minus half of the
    squared distance. With `rows`, only these of the queries are asked for, and only a block of them is read at a time.
    """
    return _best(queries, candidates, k, metric, shifts, rows, device)[0]


def search(
    queries: np.ndarray,
    candidates: np.ndarray,
    k: int = 1,
    metric: Metric = "L2",
    *,
    device: str = "auto",
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest`, and how near: (N, k) int64 and (N, k) float64.

    How near is the Euclidean distance for L2, and the inner product or the cosine (0 for a zero vector) for IP and
    cos_sim, where more is nearer. Exact up to the rounding of float64; ties go to the lower index. Inputs are float32
    and may be memory-mapped. Raises ValueError if k is not in 1..M, the shapes do not fit, or a vector is not finite.
    """
    indices, scores = _best(queries, candidates, k, metric, None, None, device)
    return indices, np.sqrt(-scores) if metric == "L2" else scores


def others(rows: np.ndarray, k: int, metric: Metric = "L2", *, device: str = "auto") -> np.ndarray:
    """Indices (N, k) int64 of the k nearest others of each of `rows` (N, D), nearest first; of public vectors, as here
    a block is multiplied once for both of its ends, in float32, and what differs by its rounding may change places.

    Raises ValueError if k is not in 1..N-1, or a vector is not finite.
    """
    import torch

    if not 1 <= k < len(rows):
        raise ValueError(f"k = {k} is not between 1 and the number of the others, {len(rows) - 1}")
    device = pick_device(device)
    vectors = _float32(rows, "vector")
    if metric == "L2":  # a distance stays where all is moved, and what is short is rounded less
        vectors = vectors - vectors.mean(axis=0)
    norms = _norms(vectors)
    if metric == "cos_sim":
        vectors = _unit(vectors, norms)
    v = torch.from_numpy(vectors).to(device)
    b = torch.from_numpy(-(norms**2) / 2 if metric == "L2" else np.zeros(len(rows))).float().to(device)
    best = torch.full((len(rows), k), -torch.inf, device=device)
    found = torch.zeros((len(rows), k), dtype=torch.int64, device=device)

    def merge(row: int, column: int, scores: torch.Tensor) -> None:
        """The best of what stood there and of (m, n) scores of rows from `row` on and columns from `column` on."""
        there = slice(row, row + len(scores))
        near, at = scores.topk(min(k, scores.shape[1]), dim=1)
        near, order = torch.cat([best[there], near], dim=1).topk(k, dim=1)
        best[there], found[there] = near, torch.cat([found[there], at + column], dim=1).gather(1, order)

    for row in range(0, len(rows), PANEL):
        for column in range(row, len(rows), PANEL):
            one, other = slice(row, row + PANEL), slice(column, column + PANEL)
            products = v[one] @ v[other].T
            if row == column:
                products.fill_diagonal_(-torch.inf)
            else:
                merge(column, row, products.T + b[one])
            merge(row, column, products + b[other])
    index: np.ndarray = found.cpu().numpy()
    return index


def _best(
    queries: np.ndarray,
    candidates: np.ndarray,
    k: int,
    metric: Metric,
    shifts: np.ndarray | None,
    rows: np.ndarray | None,
    device: str,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of each query, and their scores; for L2 minus the squared distance, and twice the shift."""

    if metric not in ("L2", "IP", "cos_sim"):
        raise ValueError(f"metric {metric!r} is not one of L2, IP, cos_sim")
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ValueError(f"queries {queries.shape} and candidates {candidates.shape} are not (N, D) and (M, D)")
    if not 1 <= k <= len(candidates):
        raise ValueError(f"k = {k} is not between 1 and the number of candidates, {len(candidates)}")
    shifts = np.zeros(len(candidates)) if shifts is None else np.asarray(shifts, dtype=np.float64)
    if shifts.shape != (len(candidates),) or not np.isfinite(shifts).all():
        raise ValueError(f"shifts {shifts.shape} are not a finite number for each of {len(candidates)} candidates")
    device = pick_device(device)

    kept = _distinct(candidates, shifts, k)
    parts = [kept[start : start + TILE] for start in range(0, len(kept), TILE)]
    tiles = [_Tile(candidates, shifts, index, metric, device) for index in parts]
    count = len(queries) if rows is None else len(rows)
    indices = np.empty((count, k), dtype=np.int64)
    scores = np.empty((count, k), dtype=np.float64)
    for start in range(0, count, BLOCK):
        part = slice(start, start + BLOCK)
        block = _float32(queries[part] if rows is None else queries[rows[part]], "query")
        found = [tile.best(block, k) for tile in tiles]
        query, index, score = (np.concatenate(some) for some in zip(*found, strict=True))
        order = np.lexsort((index, -score, query))  # by query, then nearest first, then lower index
        first = np.searchsorted(query[order], np.arange(len(block)))
        best = order[first[:, None] + np.arange(k)]
        indices[start : start + BLOCK] = index[best]
        scores[start : start + BLOCK] = score[best]
    return indices, scores


class _Tile:
    """Some of the candidates, and what every block of queries needs to know of them.

    The score of a pair (more is nearer) is q.c + s for IP, q.c / |c| + |q| s for cos_sim and, as a stand-in for
    -|q - c|^2 / 2 + s that orders the candidates of a query in the same way, q.c - |c|^2 / 2 + s + const for L2, where
    s is the shift of c. So it is always q.v + w b, where w is |q| for cos_sim, and 1.
    """

    def __init__(self, candidates: np.ndarray, shifts: np.ndarray, index: np.ndarray, metric: Metric, device: str):
        import torch

        self.index, self.metric, self.device = index, metric, device
        self.exact = _float32(candidates[index], "candidate")  # (m, D)
        self.norms = _norms(self.exact)
        # a GPU may be set to multiply float32 with fewer bits, which the bound does not allow for; float64 it leaves be
        on_cpu = torch.bfloat16 if multiplies_bfloat16("cpu") else torch.float32
        self.low = on_cpu if device == "cpu" else torch.float64
        vectors, shifts = self.exact, shifts[index]
        self.shifts = shifts
        if metric == "cos_sim":
            vectors = _unit(vectors, self.norms)
        if metric == "L2":
            shifts = ((self.norms**2).mean() - self.norms**2) / 2 + shifts
        v, b = torch.from_numpy(vectors), torch.from_numpy(shifts)[:, None]
        low, low_b = v.to(self.low), b.to(self.low)
        self.longest = _norms(v.numpy()).max()
        self.largest_b = b.abs().max().item()
        self.rounded = _norms((v - low.float()).numpy()).max()
        self.rounded_b = (b - low_b).abs().max().item()
        self.table = torch.cat([low, low_b], dim=1).to(device)  # (m, D + 1)

    def best(self, block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs that hold, for every query of the block, its k best of this tile: query, index and exact score."""
        row, column = self._survivors(block, min(k, len(self.index)))
        score = np.empty(len(row), dtype=np.float64)
        for start in range(0, len(row), PAIRS):
            pairs = slice(start, start + PAIRS)
            q, c = block[row[pairs]].astype(np.float64), self.exact[column[pairs]].astype(np.float64)
            score[pairs] = -np.vecdot(q - c, q - c) if self.metric == "L2" else np.vecdot(q, c)
        if self.metric == "cos_sim":
            lengths = _norms(block)[row] * self.norms[column]
            score = np.divide(score, lengths, out=np.zeros_like(score), where=lengths > 0)
        return row, self.index[column], score + self.shifts[column] * (2 if self.metric == "L2" else 1)

    def _survivors(self, block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(row, column) of every pair that may be among the k best of its query, and of some that are not.

        Let E be the true score, P what the product is before its result is rounded to S. With q = q' + dq and
        v = v' + dv, where q' and v' are the rounded factors, and w and b likewise, |P - E| is at most
        e := |dq| |v| + |q'| |dv| + |w| |db| + |dw| |b'| + (sums in float32). If t is at most the k-th largest S, k
        candidates have S >= t, so P >= t - u |t| and E >= t - u |t| - e. One of the k best has no smaller E, so its
        P >= t - u |t| - 2 e, and S keeps that order.
        """
        import torch

        q = torch.zeros(BLOCK, block.shape[1] + 1)  # the last block is filled up with zeros
        q.numpy()[: len(block), :-1] = block
        length = _norms(block)
        weight = length if self.metric == "cos_sim" else np.ones(len(block))
        q.numpy()[: len(block), -1] = weight
        low = q.to(self.low)
        scores = self.table @ low.T.to(self.device)  # (m, BLOCK): what follows runs along the rows

        rounded = low[: len(block)].float().numpy()
        lost, lost_weight = _norms(block - rounded[:, :-1]), np.abs(weight - rounded[:, -1])
        largest = length * self.longest + weight * self.largest_b
        if largest.max(initial=0) > 1e37:
            raise ValueError("the vectors are too long to multiply in float32")
        sums = (q.shape[1] + 8) * 2.0**-22 * largest + 1e-30  # above n u sum |q_i v_i|, the textbook bound; underflow
        error = lost * self.longest + length * self.rounded + weight * self.rounded_b + lost_weight * self.largest_b
        error = 1.01 * (error + sums)

        # the k-th best of the best of some parts is at most the k-th best of all
        parts = 1 if k == 1 else min(len(self.index), 4 * k)
        size = len(self.index) // parts
        peaks = scores[: parts * size].view(parts, size, BLOCK).amax(dim=1)
        kth = peaks[:, : len(block)].float().topk(k, dim=0).values[-1]
        slack = 1.01 * 2.0**-8 * kth.abs() + 2 * torch.from_numpy(error).to(kth)
        survives = scores[:, : len(block)] >= (kth - slack).to(self.low)
        column, row = np.divmod(np.flatnonzero(survives.cpu().numpy()), len(block))
        return row, column


def usable(rows: np.ndarray) -> np.ndarray:
    """(N,) bool: which of `rows` (N, D) have a nearest candidate: they hold numbers only, of a length that can be
    multiplied. Each for itself, and a block at a time, as they may be memory-mapped."""
    parts = [_norms(rows[start : start + TILE]) <= LONGEST for start in range(0, len(rows), TILE)]
    return np.concatenate([np.zeros(0, dtype=bool), *parts])


def require_usable(rows: np.ndarray, what: str) -> np.ndarray:
    """`rows`, of public texts; InputError, which begins with `what`, where one is not usable."""
    if not usable(rows).all():
        raise InputError(f"{what}: an embedding holds NaN, infinity or a number too large; take another file or model")
    return rows


def _distinct(candidates: np.ndarray, shifts: np.ndarray, k: int) -> np.ndarray:
    """Ascending indices of the first k of every set of equal candidates: no query has use for more of them."""
    rows = np.ascontiguousarray(candidates)
    if shifts.any():
        rows = np.concatenate([rows, shifts[:, None].view(rows.dtype).reshape(len(rows), -1)], axis=1)
    rows = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    order = np.argsort(rows, kind="stable")
    fresh = np.concatenate([[True], rows[order[1:]] != rows[order[:-1]]])
    first = np.maximum.accumulate(np.where(fresh, np.arange(len(rows)), 0))
    return np.sort(order[np.arange(len(rows)) - first < k])


def _float32(rows: np.ndarray, what: str) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise ValueError(f"a {what} holds NaN or infinity")
    return rows


def _unit(rows: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """(N, D) float32: the rows at length one; a row of zeros stays."""
    scaled: np.ndarray = (rows / np.where(norms > 0, norms, 1)[:, None]).astype(np.float32)
    return scaled


def _norms(rows: np.ndarray) -> np.ndarray:
    """The length of each row, (N,) float64."""
    rows = rows.astype(np.float64)
    return np.sqrt(np.vecdot(rows, rows))
