"""From what an attacker gets right to a lower bound on epsilon. A bound above what is claimed refutes the claim.

Every bound holds with probability at least 1 - `failure` over the draws that it is made from, whatever the mechanism
is: `failure` is the probability of a false alarm. That of `from_laws` is exact, as nothing is drawn.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

THRESHOLDS = 200  # that are tried on the half of the draws which chooses
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # of the canaries that are guessed to be in, and as many to be out


@dataclass(frozen=True)
class Bound:
    """epsilon is at least `epsilon`; an attacker who is always right would have shown `most`. `how` says by what."""

    epsilon: float
    most: float
    how: str


def rate(hits: int, draws: int, failure: float) -> tuple[float, float]:
    """Bounds (lower, upper) on the probability of a hit, each wrong with probability at most `failure` (Clopper and
    Pearson 1934)."""
    from scipy.stats import beta

    lower = float(beta.ppf(failure, hits, draws - hits + 1)) if hits else 0.0
    upper = float(beta.ppf(1 - failure, hits + 1, draws - hits)) if hits < draws else 1.0
    return lower, upper


def from_scores(there: Array, gone: Array, delta: float, failure: float, names: tuple[str, ...] = ("score",)) -> Bound:
    """Of independent draws with the record, (n, s), and without it, (m, s), each with s scores of what was released.

    For every event E, P(E | one) <= e^epsilon P(E | other) + delta. Half of the draws choose E among the events that
    one score lies above or below a threshold, and the other half bounds both probabilities: there is one test, and
    nothing to correct for (Jagielski et al. 2020, with a split in place of a grid).
    """
    halves = (len(there) // 2, len(gone) // 2)
    chooses, tests = (there[: halves[0]], gone[: halves[1]]), (there[halves[0] :], gone[halves[1] :])

    def shown(event: tuple[int, float, int, bool], sides: tuple[Array, Array]) -> float:
        score, threshold, sign, swapped = event
        one, other = sides[::-1] if swapped else sides
        often, seldom = (int((sign * side[:, score] >= sign * threshold).sum()) for side in (one, other))
        return _log_ratio(often, len(one), seldom, len(other), delta, failure)

    events = [
        (score, float(threshold), sign, swapped)
        for score in range(there.shape[1])
        for threshold in _thresholds(np.concatenate([side[:, score] for side in chooses]))
        for sign in (1, -1)
        for swapped in (False, True)
    ]
    score, threshold, sign, swapped = event = max(events, key=lambda event: shown(event, chooses))
    how = f"{names[score]} {'>=' if sign > 0 else '<='} {threshold:.4g}, likelier {'without' if swapped else 'with'} it"
    always = _log_ratio(len(tests[0]), len(tests[0]), 0, len(tests[1]), delta, failure)
    return Bound(max(shown(event, tests), 0.0), max(always, 0.0), how)


def _thresholds(scores: Array) -> Array:
    return np.unique(np.quantile(scores, np.linspace(0, 1, THRESHOLDS), method="higher"))


def _log_ratio(often: int, of: int, seldom: int, other: int, delta: float, failure: float) -> float:
    low, high = rate(often, of, failure / 2)[0] - delta, rate(seldom, other, failure / 2)[1]
    return math.log(low / high) if low > 0 else -math.inf


def from_laws(one: Array, other: Array, draws: int, delta: float) -> Bound:
    """The exact epsilon at `delta` of `draws` independent tokens of law `one` against as many of `other`, (3,)
    probabilities each and none of them 0, in the worse direction."""
    from scipy.optimize import brentq

    def excess(epsilon: float) -> float:
        return max(log_delta(one, other, draws, epsilon) - math.log(delta), -700.0)

    most = draws * float(np.abs(np.log(one / other)).max())
    found = float(brentq(excess, 0.0, most, xtol=1e-9)) if excess(0.0) > 0 else 0.0
    return Bound(found, math.inf, "the exact laws")


def log_delta(one: Array, other: Array, draws: int, epsilon: float) -> float:
    """The logarithm of the smallest delta at `epsilon` for these laws, as in `from_laws`. It goes through all counts of
    three tokens: nothing is estimated."""
    from scipy.special import logsumexp, xlogy

    counts, ways = _counts(draws)
    p, q = (ways + xlogy(counts, law).sum(axis=1) for law in (one, other))
    found = -math.inf
    for more, less in ((p, q), (q, p)):
        spilt = more > less + epsilon
        if spilt.any():
            terms = more[spilt] + np.log(-np.expm1(less[spilt] + epsilon - more[spilt]))
            found = max(found, float(logsumexp(terms)))
    return found


@functools.lru_cache(maxsize=1)
def _counts(draws: int) -> tuple[Array, Array]:
    """All counts of three tokens that sum to `draws`, (n, 3), and the log of how many sequences have each, (n,)."""
    from scipy.special import gammaln

    first, second = np.triu_indices(draws + 1)
    counts = np.stack([first, second - first, draws - second], axis=1).astype(np.float64)
    return counts, gammaln(draws + 1) - gammaln(counts + 1).sum(axis=1)


def from_guesses(scores: Array, there: npt.NDArray[np.bool_], delta: float, failure: float) -> Bound:
    """Of one run with m >= 2 canaries, each in the data by a fair coin, `there`, which looks the likelier the higher
    its one of `scores`, (m,) (Steinke, Nasr, Jagielski 2023, Theorem 5.2, with abstentions).

    The canaries of the highest scores are guessed to be in and as many of the lowest to be out, for each of SHARES; the
    best of these is taken at `failure` divided by their number. Ties are broken by nothing that knows `there`.
    """
    m = len(scores)
    order = np.argsort(scores, kind="stable")
    sizes = sorted({max(1, int(share * m)) for share in SHARES})
    found = []
    for size in sizes:
        right = int(there[order[-size:]].sum() + (~there[order[:size]]).sum())
        shown, most = (_guessed(v, 2 * size, m, delta, failure / len(sizes)) for v in (right, 2 * size))
        found.append(Bound(shown, most, f"{right} of {2 * size} guesses are right"))
    best = max(found, key=lambda bound: bound.epsilon)
    return replace(best, most=max(bound.most for bound in found))


def _guessed(right: int, guesses: int, canaries: int, delta: float, failure: float) -> float:
    """The largest epsilon at which so many right guesses have a probability of at most `failure`, or 0."""

    def refuted(epsilon: float) -> bool:
        return guess_probability(right, guesses, canaries, epsilon, delta) <= failure

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2 * high
        if high > 64:
            return low
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def guess_probability(right: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """An upper bound on the probability that an (epsilon, delta)-DP run lets at least `right` of `guesses` be right."""
    from scipy.stats import binom

    truth = 1 / (1 + math.exp(-epsilon))
    law = binom.pmf(np.arange(guesses + 1), guesses, truth)
    below = np.cumsum(law[:right][::-1])  # P(right - i <= X < right), i = 1 ... right
    worst = float(np.max(below / np.arange(1, right + 1))) if right else 0.0
    return min(1.0, float(binom.sf(right - 1, guesses, truth)) + 2 * canaries * delta * worst)
