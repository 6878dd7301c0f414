"""Answers drawn from a mixture of models: what each of them costs (PMixED: Flemings et al. 2024).

There are N models of disjoint shards of the private units, and a public one, p_0. A query gives a context; for each
shard the model's law of the next token is brought near p_0, to q_i; of a Poisson sample of the shards, each in it with
probability p, the mean of the q_i is taken, or p_0 where the sample is empty; the answer is one token drawn from it.
The sample is secret and only the token is seen, so that an answer has the law

    M = (1 - N w) p_0 + w (q_1 + ... + q_N),      w = (1 - (1 - p)^N) / N,

and drawing it is drawing a component, then a token from that. p does no more than set the weight of the public model.

A unit is in one shard, chosen by a hash of its own under a secret key. Neighbours, which differ by one unit added or
removed, therefore differ in the model of one shard, j, and in nothing else: with laws P and Q of an answer,
P - Q = w (q_j - q_j'). What bounds the q_i is one of the mechanisms below. Answers compose adaptively: the context of
a query may depend on all answers before it.
"""

from __future__ import annotations

import functools
import math
import os
import secrets
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dpsda.privacy.accounting import Claimed, Event, PureDp, RdpCurve, Zcdp
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.noise import poisson_sample

PUBLIC = -1  # the component that is the public model


@dataclass(frozen=True)
class Mixture:
    """`shards` models, each in the sample of a query with probability `inclusion`."""

    shards: int
    inclusion: float

    def __post_init__(self) -> None:
        if self.shards < 1:
            raise PrivacyError(f"there has to be at least one shard, not {self.shards}")
        if not 0 < self.inclusion <= 1:
            raise PrivacyError(f"a shard is in a query's sample with a probability in (0, 1], not {self.inclusion:g}")

    @property
    def private_share(self) -> float:
        """N w, the probability that an answer comes from a shard."""
        return -math.expm1(self.shards * math.log1p(-self.inclusion)) if self.inclusion < 1 else 1.0

    @property
    def weight(self) -> float:
        """w, the probability that it comes from a certain shard."""
        return self.private_share / self.shards

    def least(self, floor: float) -> float:
        """How much of p_0 is in an answer's law, on every token, where each q_i has at least `floor` of it."""
        return 1 - self.private_share + self.private_share * floor

    def component(self) -> int:
        """Where one answer comes from: a shard, or PUBLIC. By the operating system's entropy, and never shown."""
        if secrets.randbits(53) >= math.floor(self.private_share * 2**53):
            return PUBLIC
        return secrets.randbelow(self.shards)

    def sample(self) -> npt.NDArray[np.int64]:
        """The shards of one query's sample, each at most once. By the operating system's entropy, and never shown."""
        return poisson_sample(self.shards, self.inclusion)


@dataclass(frozen=True)
class MaxDivergence(Mixture):
    """Each q_i lies between e^-b p_0 and e^b p_0 on every token, b = `bound`.

    Privacy: every component of Q has at least e^-b p_0 on every token, and the public one has p_0, so Q >= m p_0 with
    m = 1 - N w + N w e^-b. And P - Q = w (q_j - q_j') <= w (e^b - e^-b) p_0. Hence P / Q <= 1 + w (e^b - e^-b) / m on
    every token, and Q / P likewise, as nothing told P from Q: an answer is (epsilon, 0)-DP with the logarithm of that.
    (With m >= e^-b alone it would be 1 + w (e^2b - 1).)
    """

    bound: float

    @property
    def epsilon(self) -> float:
        """Of one answer."""
        b = self.bound
        return math.log1p(self.weight * 2 * math.sinh(b) / self.least(math.exp(-b)))

    def event(self, queries: int) -> Event:
        return PureDp(self.epsilon, queries)


@dataclass(frozen=True)
class Renyi(Mixture):
    """Each q_i is l p_i + (1 - l) p_0 with l at most 1 - e^-g, g = `cap`, and D_a(q_i || p_0) <= B: a = `order` is an
    integer, D_a the Renyi divergence and B = `bound`.

    Privacy: E_Q[(P / Q)^a] = E_Q[(1 + w d / Q)^a] with d = q - q', q = q_j, which is a sum over k of
    C(a, k) w^k sum(d^k / Q^(k-1)). The term k = 0 is 1, and k = 1 vanishes, as d sums to 0. For k >= 2:
    (1) With f = e^-g, every q_i >= f p_0 on every token, so Q >= m p_0 with m = 1 - N w + N w f.
    (2) d is the difference of q - f p_0 and q' - f p_0, both at least 0, so |d|^k <= (q - f p_0)^k + (q' - f p_0)^k.
    (3) Let X = q / p_0 and Y = X - f >= 0, under p_0, where E[X] = 1 and E[Y] = 1 - f. Then E[X^k] = E[(Y + f)^k] is
        E[Y^k] + sum over i < k of C(k, i) f^(k-i) E[Y^i] >= E[Y^k] + 1 - (1 - f)^k, as E[Y^i] >= E[Y]^i (Jensen).
        E[X^k] = exp((k - 1) D_k(q || p_0)) <= e^((k-1) B), as D_k rises with k: E[Y^k] <= e^((k-1) B) - 1 + (1 - f)^k.
    Together D_a(P || Q) <= log(1 + sum_{k=2..a} C(a,k) w^k 2 (e^((k-1) B) - 1 + (1 - f)^k) / m^(k-1)) / (a - 1).
    P and Q can be exchanged. For an integer order below a the same holds with that order for a.
    """

    order: int
    cap: float
    bound: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_order(self.order)

    @property
    def most(self) -> float:
        """The largest weight of a shard's own law."""
        return -math.expm1(-self.cap)

    def divergence(self, order: int) -> float:
        """The bound on D_order(P || Q) for one answer."""
        log_w, log_m = math.log(self.weight), math.log(self.least(math.exp(-self.cap)))
        terms = [0.0]
        for k in range(2, order + 1):
            grown = np.logaddexp(_log_expm1((k - 1) * self.bound), k * math.log(self.most))
            terms.append(math.log(2 * math.comb(order, k)) + k * log_w + grown - (k - 1) * log_m)
        return float(np.logaddexp.reduce(terms)) / (order - 1)

    def event(self, queries: int) -> Event:
        orders = range(2, self.order + 1)
        return RdpCurve(tuple(map(float, orders)), tuple(queries * self.divergence(order) for order in orders))


@dataclass(frozen=True)
class PublishedRenyi(Mixture):
    """The mechanism as published: D_a(q_i || p_0) and D_a(p_0 || q_i) at most beta a, at the one order a = `order`, and
    beta depends on how many shards are in the sample.

    Privacy: NOT a verified guarantee. The paper's bound on the loss of an answer takes D_k <= beta k at every order for
    granted, the projection enforces it at one, and rare tokens break it; a shard's removal changes how the others are
    projected; and its amplification by sampling compares with a shard that is not there, while both models are.
    """

    order: int
    loss: float  # that the paper claims for one answer: its Renyi divergence at `order`

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_order(self.order)

    def claim(self, beta: float, drawn: int) -> float:
        """The paper's loss of an answer where `drawn` shards are in the sample (its Theorem 4.3)."""
        a, p = self.order, self.inclusion
        terms = [(a - 1) * math.log1p(-p) + math.log1p((a - 1) * p)] if p < 1 else []
        for k in range(2, a + 1):
            at_k = beta * k
            if drawn > 1:
                at_k = np.logaddexp(math.log((drawn - 1) / drawn), (k - 1) * 4 * beta * k - math.log(drawn)) / (k - 1)
            out = (a - k) * math.log1p(-p) if p < 1 else (0.0 if k == a else -math.inf)
            terms.append(math.log(math.comb(a, k)) + out + k * math.log(p) + (k - 1) * at_k)
        return float(np.logaddexp.reduce(terms)) / (a - 1)

    def beta(self, drawn: int) -> float:
        """The beta of a sample of `drawn` shards."""
        return _beta(self, drawn)

    def event(self, queries: int) -> Event:
        return Claimed((float(self.order),), (queries * self.loss,))


@dataclass(frozen=True)
class ClippedLogits(Mixture):
    """The token is drawn from softmax(phi / temperature), phi = log p_0 + mean over i of clip(log p_i - log p_0) with
    every coordinate clipped to [-C, C], C = `clip` (Vinod et al. 2025, InvisibleInk; Amin et al. 2024). All shards are
    in every query.

    Privacy: the model of one shard changes, so each coordinate of phi / temperature moves by at most
    s = 2 C / (N temperature). Then log(P / Q) lies in an interval of length 2 s, whose place is fixed by both laws
    summing to one: a bounded range of 2 s, which is (2 s)^2 / 8 = s^2 / 2-zCDP (Cesar and Rogers 2021). Tokens that are
    left out by their public logits alone change nothing of this.
    """

    clip: float
    temperature: float = 1.0

    @property
    def rho(self) -> float:
        """Of one answer."""
        return 2 * (self.clip / (self.shards * self.temperature)) ** 2

    def event(self, queries: int) -> Event:
        return Zcdp(queries * self.rho)


@functools.cache
def _beta(mechanism: PublishedRenyi, drawn: int) -> float:
    from scipy.optimize import brentq

    return float(brentq(lambda beta: mechanism.claim(beta, drawn) - mechanism.loss, 0.0, 100.0, xtol=1e-12))


def _check_order(order: int) -> None:
    if order < 2:
        raise PrivacyError(f"the order of the Renyi divergence has to be an integer above 1, not {order}")


def _log_expm1(x: float) -> float:
    """log(e^x - 1) for x >= 0."""
    return x + math.log(-math.expm1(-x)) if x > 0 else -math.inf


PrivatePrediction = MaxDivergence | Renyi | PublishedRenyi | ClippedLogits


def draw(law: npt.NDArray[np.float64]) -> int:
    """One token from `law`, (V,) probabilities, by 53 bits of the operating system's entropy."""
    steps = np.cumsum(law)
    uniform = (int.from_bytes(os.urandom(8), "little") >> 11) * 2.0**-53
    return min(int(np.searchsorted(steps, uniform * steps[-1], side="right")), len(law) - 1)
