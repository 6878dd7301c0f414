"""How many texts each cluster gives, and which: from noisy counts and public texts only, so it costs no privacy."""

from __future__ import annotations

import numpy as np


def shares(noisy: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """(K,) shares of the clusters, which sum to 1: the noisy counts, those below 0 taken as 0 (Yu et al. 2024,
    Algorithm 2, which divides by n instead and so does not sum to 1). Where no count is above 0, the shares of the
    candidates: nothing is known that speaks against them.
    """
    positive = np.maximum(noisy, 0.0)
    chosen = positive if positive.sum() > 0 else candidates
    return chosen / chosen.sum()


def allocate(
    target: np.ndarray,  # (K,) shares
    candidates: np.ndarray,  # (K,) int, how many texts each cluster has
    total: int,
    ratio_cap: float | None = None,
) -> np.ndarray:  # (K,) int, how many of them are kept
    """`total` texts over the clusters in proportion to `target`, as far as there are candidates; always all of `total`.

    What a full cluster cannot give, the others give in proportion to their shares. Only where all clusters with a share
    are full, those without one give the rest, in proportion to their candidates. With a `ratio_cap` R >= 1, no cluster
    gives more than R times what it would give if texts were kept at random: ceil(R * total * its share of the
    candidates). Raises ValueError if there are fewer candidates than `total`.
    """
    if total > candidates.sum():
        raise ValueError(f"{total} texts are more than the {candidates.sum()} candidates")
    room = candidates.astype(np.int64)
    if ratio_cap is not None:
        most = ratio_cap * total * candidates / candidates.sum()
        room = np.minimum(room, np.ceil(most - 1e-9).astype(np.int64))  # R >= 1, so they still hold `total`
    order = np.argsort(candidates, kind="stable")  # a cap may leave equal room in clusters of different sizes
    target, room = target[order], room[order]
    given = water_fill(target, room, total)
    left = room - given  # of clusters without a share, if the others do not hold `total`
    given += water_fill(left, left, total - int(given.sum()))
    return given[np.argsort(order)]


def water_fill(weights: np.ndarray, room: np.ndarray, total: int) -> np.ndarray:
    """(K,) int: `total` units in proportion to `weights` (K,), at most `room` (K,) in each bin and none in a bin
    without weight; fewer than `total` only if these bins do not hold them.

    Before rounding, bin k gets min(room[k], level * weights[k]) for the one level at which these sum to `total`. Parts
    of a unit go to the largest remainders. The order of the bins decides nothing but which of two equal bins is first.
    """
    given = np.zeros(len(room), dtype=np.int64)
    bins = np.flatnonzero((weights > 0) & (room > 0))
    total = min(total, int(room[bins].sum()))
    if total <= 0:
        return given
    with np.errstate(over="ignore"):
        full_at = room[bins] / weights[bins]  # the level at which a bin is full
    order = np.lexsort((weights[bins], full_at))
    bins, full_at = bins[order], full_at[order]
    w, r = weights[bins].astype(np.float64), room[bins].astype(np.float64)
    left = total - (np.cumsum(r) - r)  # when the bins before are full
    level = left / np.cumsum(w[::-1])[::-1]
    first_open = int(np.argmax(level <= full_at))
    exact = np.minimum(level[first_open] * w, r)
    exact[:first_open] = r[:first_open]
    whole = np.floor(exact)
    remainder = np.where(whole < r, exact - whole, -1.0)
    more = np.argsort(-remainder, kind="stable")[: total - int(whole.sum())]
    given[bins] = whole.astype(np.int64)
    given[bins[more]] += 1
    return given


def draw(clusters: np.ndarray, given: np.ndarray, seed: int) -> np.ndarray:
    """Row numbers, ascending: of each cluster k, given[k] of its rows, uniformly and without replacement.

    `clusters` (N,) is each row's cluster. At one seed, more of a cluster holds whatever fewer of it would.
    """
    order = np.random.default_rng(seed).permutation(len(clusters))
    order = order[np.argsort(clusters[order], kind="stable")]
    sizes = np.bincount(clusters, minlength=len(given))
    place = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within its cluster
    return np.sort(order[place < given[clusters[order]]])


def total_variation(one: np.ndarray, other: np.ndarray) -> float:
    """Total variation, in [0, 1], between two histograms (K,) of shares or counts."""
    return float(np.abs(one / one.sum() - other / other.sum()).sum() / 2)
