"""A shard's next-token law brought near the public one, for many contexts at once. Rows are contexts, float64.

`log_p` are the shards' laws and `log_public` the public ones, both (m, V) log probabilities. What comes out keeps the
bound that the mechanism of the same name in dpsda.privacy.mixture asks for: the end of a search that satisfies it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SLACK = 1e-9  # relative, for what rounding adds to a sum over a vocabulary
ROUNDING = 1e-12  # and to the logarithm of a moment, whose terms may be 700 nats apart
POINTS, ROUNDS = 64, 10  # of a search of [0, 1], which then has no bits left
STEPS, LATE = 120, 12  # of a secant, and after which of them it is slow


def onto_max_divergence(log_p: Tensor, log_public: Tensor, bound: float) -> Tensor:
    """(m, V) probabilities: of all laws q with e^-bound p_0 <= q <= e^bound p_0 the one of least KL(p || q), which is
    p_0 clip(c p / p_0, e^-bound, e^bound) with the c that makes it sum to one.

    (Between the bounds a stationary point of KL(p || q) under the sum has q = p / mu.) The sum rises with c, and for
    c = 1 at most as fast as log c, which gives the second point of the search. A row whose search does not end is p_0.
    """
    low, high = math.exp(-bound) * (1 + SLACK), math.exp(bound) * (1 - SLACK)
    if low >= high:
        return log_public.exp()
    log_ratio = (log_p - log_public).clamp_(-600, 600)
    below = math.log(low) - log_ratio.amax(dim=-1, keepdim=True)  # all at the lower bound: a sum below 1
    above = math.log(high) - log_ratio.amin(dim=-1, keepdim=True)
    public, ratio = log_public.exp(), log_ratio.exp_()
    q = torch.empty_like(ratio)

    def excess(log_c: Tensor) -> Tensor:
        torch.mul(ratio, log_c.exp(), out=q).clamp_(low, high).mul_(public)
        return q.sum(dim=-1, keepdim=True) - 1

    first = torch.zeros_like(below)
    second = (first - excess(first)).clamp(below, above)
    found = excess(_zero(excess, first, second, below, above, SLACK / 10)[0])
    return torch.where(found.abs() <= SLACK / 10, q / (1 + found), public)


def onto_renyi(log_p: Tensor, log_public: Tensor, order: int, cap: float, bound: float) -> Tensor:
    """(m, 1) weights l, at most 1 - e^-cap and as large as D_order(l p + (1 - l) p_0 || p_0) <= bound lets them be.

    exp((order - 1) D) is a polynomial in l, whose coefficients are the moments of p / p_0 under p_0: one pass over the
    vocabulary a moment, and a search over numbers.
    """
    moments = _log_moments(log_p, log_public, order)
    limit = (order - 1) * bound * (1 - SLACK) - ROUNDING
    most = torch.full_like(moments[:, :1], -math.expm1(-cap))
    return _largest(lambda weight: _log_polynomial(moments, weight, order) <= limit, most)


def onto_published(log_p: Tensor, log_public: Tensor, order: int, bound: Tensor) -> Tensor:
    """(m, 1) weights l, the largest in [0, 1] with D_order(q || p_0) and D_order(p_0 || q) at most `bound`, (m, 1), for
    q = l p + (1 - l) p_0 (Flemings et al. 2024, Equation 6)."""
    moments = _log_moments(log_p, log_public, order)
    limit = (order - 1) * bound
    most = _largest(lambda weight: _log_polynomial(moments, weight, order) <= limit, torch.ones_like(bound))
    public, ratio = log_public.exp(), (log_p - log_public).clamp_(max=600).exp_()
    part = torch.empty_like(ratio)

    def excess(weight: Tensor) -> Tensor:  # a convex function: a secant comes from below
        torch.mul(ratio, weight, out=part).add_(1 - weight).reciprocal_().pow_(order - 1).mul_(public)
        return part.sum(dim=-1, keepdim=True).log() - limit * (1 - SLACK)

    zero = torch.zeros_like(most)
    found, below = _zero(excess, zero, most, zero, most, limit * SLACK)
    return torch.where(excess(found) <= limit * SLACK, found, below)  # near 1 a step of a float64 may be too large


def mixed(log_p: Tensor, log_public: Tensor, weight: Tensor) -> Tensor:
    """(m, V) probabilities weight p + (1 - weight) p_0."""
    return log_p.exp().mul_(weight).add_(log_public.exp().mul_(1 - weight))


def _log_moments(log_p: Tensor, log_public: Tensor, order: int) -> Tensor:
    """(m, order + 1): the logarithm of sum(p_0 (p / p_0)^k) for k = 0 ... order.

    The powers are of the ratio over its largest, which is at most 1: what vanishes of them is nothing beside that one.
    """
    ratio = log_p - log_public
    largest = ratio.amax(dim=-1, keepdim=True)
    ratio = ratio.sub_(largest).exp_()
    known = [torch.zeros_like(largest), torch.zeros_like(largest)]  # both laws sum to one
    power = log_public.exp().mul_(ratio)
    for k in range(2, order + 1):
        known.append(power.mul_(ratio).sum(dim=-1, keepdim=True).log() + k * largest)
    return torch.cat(known, dim=1)


def _log_polynomial(moments: Tensor, weight: Tensor, order: int) -> Tensor:
    """(m, n): log sum(p_0 (1 - l + l p / p_0)^order) = log sum_k C(order, k) (1 - l)^(order - k) l^k moment_k for each
    l of `weight`, (m, n)."""
    k = torch.arange(order + 1, dtype=moments.dtype, device=moments.device)
    binomial = torch.tensor([math.log(math.comb(order, i)) for i in range(order + 1)], dtype=k.dtype, device=k.device)
    weight = weight[..., None]
    terms = torch.special.xlogy(order - k, 1 - weight) + torch.special.xlogy(k, weight)
    return torch.logsumexp(terms + (binomial + moments)[:, None], dim=-1)


def _largest(feasible, most: Tensor) -> Tensor:
    """The largest weight in [0, most] that is feasible, from below; feasible at 0, and up to one point. Of (m, n)
    weights `feasible` tells the (m, n) that are."""
    low = torch.where(feasible(most), most, torch.zeros_like(most))
    width = most - low
    inner = torch.arange(1, POINTS, dtype=most.dtype, device=most.device) / POINTS
    for _ in range(ROUNDS):  # always all: where to stop would depend on the other rows, which are other shards'
        fits = feasible(low + width * inner).cumprod(dim=-1).sum(dim=-1, keepdim=True)
        width = width / POINTS
        low = low + width * fits
    return low


def _zero(
    rising, first: Tensor, second: Tensor, low: Tensor, high: Tensor, tolerance: float | Tensor
) -> tuple[Tensor, Tensor]:
    """(m, 1) where `rising`, which is zero once in [low, high], is within `tolerance` of it, each row for itself; and
    (m, 1) the last points that were found to lie below.

    By the secant through the last two points, first of all `first` and `second`, where that stays inside what is known,
    else by halving it; late steps halve it every second time. A row that is found stays where it is.
    """
    before, at = first, second
    past = rising(before)
    low, high = torch.where(past < 0, before, low), torch.where(past < 0, high, before)
    at = torch.where(past.abs() <= tolerance, before, at)
    for step in range(STEPS):
        value = rising(at)
        low, high = torch.where(value < 0, at, low), torch.where(value < 0, high, at)
        done = (value.abs() <= tolerance) | (low >= high)
        if done.all():
            break
        secant = at - value * (at - before) / (value - past)
        inside = (secant > low) & (secant < high)
        if step > LATE and step % 2:
            inside = torch.zeros_like(inside)
        before, past, at = at, value, torch.where(done, at, torch.where(inside, secant, (low + high) / 2))
    return at, low
