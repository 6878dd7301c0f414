"""The bound of the projection from the budget, and which projection keeps most of what the shards learned.

Everything here is public: the number of shards and of queries, the inclusion probability, epsilon and delta. To compare
mechanisms, a reference pair of laws stands for a shard and the public model: log(p / p_0) is normal under both, with
KL(p || p_0) = GAIN. Under p its mean is GAIN and under p_0 it is -GAIN, with variance 2 GAIN, which makes both of them
sum to one. All shards are taken to have learned the same.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import brentq

from dpsda.errors import InputError
from dpsda.privacy import accounting
from dpsda.privacy.accounting import Event, PureDp, RdpCurve, Zcdp
from dpsda.privacy.errors import BudgetError
from dpsda.privacy.mixture import ClippedLogits, MaxDivergence, Mixture, PrivatePrediction, PublishedRenyi, Renyi

GAIN = 0.431  # nats a token that GPT-2 gains on WikiText-103 by fine-tuning: log(38.63 / 25.11), Flemings et al. 2024
ORDERS = (2, 3, 4, 5, 6, 8, 12, 16, 24, 32)
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # the largest weight of a shard's law, for Renyi
LARGEST = 30.0  # a bound beyond which nothing is bounded


def plan(
    method: str,
    mixture: Mixture,
    queries: int,
    epsilon: float,
    delta: float,
    spent: Sequence[Event] = (),
    *,
    order: int = 3,
    temperature: float = 1.0,
) -> PrivatePrediction:
    """The mechanism of `method` (max, renyi, auto, paper or dclip) with the loosest bound at which `queries` answers
    and what is `spent` stay within epsilon at delta. `order` is that of the paper's projection."""
    shards, inclusion = mixture.shards, mixture.inclusion
    left = _Budget(queries, epsilon, delta, spent)
    if method == "max":
        return left.max_divergence(mixture)
    if method == "renyi":
        found = _renyi(mixture, left)
        if not found:
            raise InputError("no bound of the Renyi projection is within the budget; take the max-divergence one (max)")
        return max(found, key=kept)
    if method == "paper":
        loss = left.renyi(order) / queries
        if not loss:
            raise InputError(f"--order {order} leaves nothing of epsilon {epsilon:g}; take a larger --order")
        return PublishedRenyi(shards, inclusion, order, loss)
    if method == "dclip":
        rho = 1 / (2 * left.noise(lambda noise: Zcdp(queries / (2 * noise**2))) ** 2)
        return ClippedLogits(shards, 1.0, shards * temperature * math.sqrt(rho / 2), temperature)
    both: list[PrivatePrediction] = [left.max_divergence(mixture), *_renyi(mixture, left)]
    return max(both, key=kept)


def leaves(order: int, epsilon: float, delta: float) -> bool:
    """Whether a Renyi divergence above zero at `order` is within epsilon at delta."""
    return _Budget(1, epsilon, delta, ()).renyi(order) > 0


def largest(mechanism: PrivatePrediction, queries: int, epsilon: float, delta: float, spent: Sequence[Event]) -> int:
    """The largest number of answers, at most `queries`, that `mechanism` may give within epsilon at delta."""

    def fits(number: int) -> bool:
        return accounting.epsilon([*spent, mechanism.event(number)], delta) <= epsilon

    low, high = 0, queries
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def kept(mechanism: PrivatePrediction) -> float:
    """How much likelier, in nats, the mechanism makes a token of the reference pair's p than the public model does."""
    under_shard, under_public, weights = _reference()
    match mechanism:
        case MaxDivergence(bound=b):

            def clipped(log_c: float, log_ratio: np.ndarray) -> np.ndarray:
                return np.exp(np.clip(log_c + log_ratio, -b, b))

            def excess(log_c: float) -> float:
                return float(weights @ clipped(log_c, under_public)) - 1

            ratio = clipped(float(brentq(excess, -60, 60)), under_shard) if b > 0 else np.ones_like(weights)
        case Renyi(order=a, bound=bound):
            # E_{p_0}[(p / p_0)^k] = exp(k (k - 1) GAIN)
            k = np.arange(a + 1)
            log_terms = k * (k - 1) * GAIN + np.array([math.log(math.comb(a, i)) for i in k])

            def over(weight: float) -> float:
                powers = (a - k) * math.log1p(-weight) + k * math.log(weight)
                return float(np.logaddexp.reduce(log_terms + powers)) / (a - 1) - bound

            weight = mechanism.most if over(mechanism.most) <= 0 else float(brentq(over, 1e-12, mechanism.most))
            ratio = 1 - weight + weight * np.exp(under_shard)
        case ClippedLogits(clip=c, temperature=t):
            total = float(weights @ np.exp(np.clip(under_public, -c, c) / t))
            ratio = np.exp(np.clip(under_shard, -c, c) / t) / total
        case PublishedRenyi():
            raise ValueError("the published projection has no bound that could be compared")
    return float(weights @ np.log(1 - mechanism.private_share + mechanism.private_share * ratio))


def _renyi(mixture: Mixture, left: _Budget) -> list[Renyi]:
    """For each order and largest weight the loosest bound."""
    found = []
    for order in ORDERS:
        loss = left.renyi(order) / left.queries
        for weight in WEIGHTS if loss > 0 else ():
            made = functools.partial(Renyi, mixture.shards, mixture.inclusion, order, -math.log1p(-weight))

            def divergence(bound: float, made: Callable[[float], Renyi] = made, order: int = order) -> float:
                return made(bound).divergence(order)

            if divergence(LARGEST) <= loss:
                found.append(made(LARGEST))
            elif divergence(0.0) < loss:
                found.append(made(_root(divergence, loss)))
    return found


def _root(rising: Callable[[float], float], value: float) -> float:
    """The bound at which a function that rises with it is just below `value`."""
    return float(brentq(lambda bound: rising(bound) - value, 0.0, LARGEST, xtol=1e-12)) * (1 - 1e-9)


class _Budget:
    """What `queries` answers may cost beside what is spent."""

    def __init__(self, queries: int, epsilon: float, delta: float, spent: Sequence[Event]) -> None:
        self.queries, self.epsilon, self.delta, self.spent = queries, epsilon, delta, spent
        before = accounting.epsilon(list(spent), delta)
        if before >= epsilon:
            raise InputError(
                f"epsilon {epsilon:g} leaves nothing for answers: what is spent, with the label counts, takes "
                f"{accounting.round_up(before)}; ask for more, or for more --label_noise"
            )

    def noise(self, event: Callable[[float], Event]) -> float:
        """The smallest noise multiplier at which `event` is within the budget."""
        try:
            return accounting.calibrate(lambda noise: [event(noise)], self.epsilon, self.delta, self.spent, most=1e6)
        except BudgetError:
            raise InputError(
                f"epsilon {self.epsilon:g} leaves too little for answers beside what is spent and the label counts; "
                "ask for more, or for more --label_noise"
            ) from None

    def max_divergence(self, mixture: Mixture) -> MaxDivergence:
        """With the loosest bound."""
        one = 1 / self.noise(lambda noise: PureDp(1 / noise, self.queries))  # epsilon of an answer

        def made(bound: float) -> MaxDivergence:
            return MaxDivergence(mixture.shards, mixture.inclusion, bound)

        if made(LARGEST).epsilon <= one:
            return made(LARGEST)
        return made(_root(lambda bound: made(bound).epsilon, one))

    def renyi(self, order: int) -> float:
        """The largest divergence of all answers together at `order`."""

        def excess(total: float) -> float:
            return accounting.epsilon([*self.spent, RdpCurve((float(order),), (total,))], self.delta) - self.epsilon

        least = max(1e-6, 4 * self.delta**2)  # below it the conversion jumps to epsilon 0
        if excess(least) >= 0:
            return 0.0
        return float(brentq(excess, least, 2 * self.epsilon + 10, xtol=1e-10)) * (1 - 1e-9)


def _reference() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes of log(p / p_0) under p and under p_0, and their weights (Gauss-Hermite)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    spread = math.sqrt(2 * GAIN) * nodes
    return GAIN + spread, spread - GAIN, weights / weights.sum()
