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
PART = 32  # candidates of which the best score is looked at first: a power of two
PAIRS = 1 << 7  # pairs rescored at a time: as many as the processor's cache holds


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

    A pair is scored (more is nearer) by x.v + b, with m the middle of the candidates and s the shift of c:

        IP       x = q      v = c - m    b = s
        cos_sim  the same, of vectors that are brought to length one
        L2       x = q - m  v = c - m    b = s - |v|^2 / 2

    That differs from q.c + s, the cosine + s and -|q - c|^2 / 2 + s by what all candidates of a query share, whatever m
    is. So it orders them alike. Short vectors lose less in rounding, so fewer pairs are left.
    """

    def __init__(self, candidates: np.ndarray, shifts: np.ndarray, index: np.ndarray, metric: Metric, device: str):
        import torch

        self.index, self.metric, self.device = index, metric, device
        self.exact = _float32(candidates[index], "candidate")  # (m, D)
        self.norms = _norms(self.exact)
        # a GPU may be set to multiply float32 with fewer bits, which the bound does not allow for; float64 it leaves be
        on_cpu = torch.bfloat16 if multiplies_bfloat16("cpu") else torch.float32
        self.low = on_cpu if device == "cpu" else torch.float64
        self.shifts = shifts[index]
        v = self.exact.astype(np.float64)
        if metric == "cos_sim":
            v = _unit(v, self.norms)
        self.farthest = _norms(v).max()
        self.middle = v.mean(axis=0)
        v -= self.middle
        lengths = _norms(v)
        b = self.shifts - lengths**2 / 2 if metric == "L2" else self.shifts
        b = b - b.mean()
        self.longest, self.largest_b = lengths.max(), np.abs(b).max()
        low = torch.from_numpy(v).to(self.low)
        high_b = torch.from_numpy(b).to(self.low)
        low_b = (torch.from_numpy(b) - high_b).to(self.low)  # b takes two columns, so that hardly any of it is lost
        self.rounded = _norms(v - low.double().numpy()).max()
        self.rounded_b = np.abs(b - high_b.double().numpy() - low_b.double().numpy()).max()
        table = torch.cat([low, high_b[:, None], low_b[:, None]], dim=1)  # (m, D + 2)
        filled = torch.arange(-(-len(v) // PART) * PART).clamp(max=len(v) - 1)  # to whole parts, by the last one
        self.table = table[filled].to(device)

    def best(self, block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs that hold, for every query of the block, its k best of this tile: query, index and exact score."""
        row, column = self._survivors(block, min(k, len(self.index)))
        score = np.empty(len(row), dtype=np.float64)
        for start in range(0, len(row), PAIRS):
            pairs = slice(start, start + PAIRS)
            q, c = block[row[pairs]].astype(np.float64), self.exact[column[pairs]]
            if self.metric == "L2":
                q -= c
                score[pairs] = -np.vecdot(q, q)
            else:
                score[pairs] = np.vecdot(q, c.astype(np.float64))
        if self.metric == "cos_sim":
            lengths = _norms(block)[row] * self.norms[column]
            score = np.divide(score, lengths, out=np.zeros_like(score), where=lengths > 0)
        return row, self.index[column], score + self.shifts[column] * (2 if self.metric == "L2" else 1)

    def _survivors(self, block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(row, column) of every pair that may be among the k best of its query, and of some that are not.

        Let E be the true score, P what the product is before its result is rounded to S. With x = x' + dx and
        v = v' + dv, where x' and v' are the rounded factors, and b likewise, |P - E| is at most
        e := |dx| |v| + |x'| |dv| + |db| + (sums, in float32 here and in float64 where pairs are scored). If t is at
        most the k-th largest S, k candidates have S >= t, so P >= t - u |t| and E >= t - u |t| - e. One of the k best
        has no smaller E, so its P >= t - u |t| - 2 e, and S keeps that order.
        """
        import torch

        x = block.astype(np.float64)
        if self.metric == "cos_sim":
            x = _unit(x, _norms(x))
        if self.metric == "L2":
            x -= self.middle
        length = _norms(x)
        exact = (length + self.longest) ** 2 if self.metric == "L2" else length * self.farthest  # |q - c|^2, or |q| |c|
        largest = length * self.longest + self.largest_b
        if largest.max(initial=0) > 1e37:
            raise ValueError("the vectors are too long to multiply in float32")
        rows = torch.zeros(BLOCK, x.shape[1] + 2)  # the last block is filled up with zeros
        rows.numpy()[: len(x), :-2] = x
        rows[:, -2:] = 1
        low = rows.to(self.low)
        scores = self.table @ low.T.to(self.device)  # (m, BLOCK): what follows runs along the rows

        lost = _norms(x - low[: len(x), :-2].float().numpy())
        # above n u sum |x_i v_i|, the textbook bound; underflow
        sums = (rows.shape[1] + 8) * (2.0**-22 * largest + 2.0**-50 * exact) + 1e-30
        error = 1.01 * (lost * self.longest + length * self.rounded + self.rounded_b + sums)

        size = PART
        while size > 1 and 4 * k * size > len(self.index):
            size //= 2
        count = -(-len(self.index) // size)  # of parts with a candidate of their own
        parts = scores.view(-1, size, BLOCK)[:count, :, : len(x)]
        peaks = parts.amax(dim=1)
        kth = peaks.float().topk(k, dim=0).values[-1]  # at most the k-th best of all
        slack = 1.01 * 2.0**-8 * kth.abs() + 2 * torch.from_numpy(error).to(kth)
        least = (kth - slack).to(self.low)
        part, row = (peaks >= least).nonzero(as_tuple=True)
        pair, place = (parts[part, :, row] >= least[row, None]).nonzero(as_tuple=True)
        row, column = row[pair].cpu().numpy(), (part[pair] * size + place).cpu().numpy()
        real = column < len(self.index)
        return row[real], column[real]


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
    """(N, D): the rows at length one; a row of zeros stays."""
    scaled: np.ndarray = (rows / np.where(norms > 0, norms, 1)[:, None]).astype(rows.dtype)
    return scaled


def _norms(rows: np.ndarray) -> np.ndarray:
    """The length of each row, (N,) float64."""
    rows = rows.astype(np.float64)
    return np.sqrt(np.vecdot(rows, rows))
