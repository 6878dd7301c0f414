"""A shard's next-token law brought near the public one, for many contexts at once. Rows are contexts, float64.

`log_p` are the shards' laws and `log_public` the public ones, both (m, V) log probabilities. What comes out keeps the
bound that the mechanism of the same name in dpsda.privacy.mixture asks for: the end of a search that satisfies it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SLACK = 1e-9  # relative, for what rounding adds to a sum over a vocabulary
STEPS = 60  # of a bisection of [0, 1], which then has no bits left


def onto_max_divergence(log_p: Tensor, log_public: Tensor, bound: float) -> Tensor:
    """(m, V) probabilities: of all laws q with e^-bound p_0 <= q <= e^bound p_0 the one of least KL(p || q), which is
    p_0 clip(c p / p_0, e^-bound, e^bound) with the c that makes it sum to one.

    (Between the bounds a stationary point of KL(p || q) under the sum has q = p / mu.) The sum rises with c
    and is piecewise linear: it takes Newton's method, kept inside a bracket that halves where it would leave it.
    """
    low, high = math.exp(-bound) * (1 + SLACK), math.exp(bound) * (1 - SLACK)
    if low >= high:
        return log_public.exp()
    log_ratio = (log_p - log_public).clamp(-600, 600)
    public, ratio = log_public.exp(), log_ratio.exp()
    below = (math.log(low) - log_ratio.amax(dim=-1, keepdim=True)).exp()  # all at the lower bound: a sum below 1
    above = (math.log(high) - log_ratio.amin(dim=-1, keepdim=True)).exp()
    c = torch.ones_like(below)
    for _ in range(STEPS):
        scaled = c * ratio
        q = public * scaled.clamp(low, high)
        excess = q.sum(dim=-1, keepdim=True) - 1
        done = excess.abs() < SLACK / 10
        if done.all():
            break
        below, above = torch.where(excess < 0, c, below), torch.where(excess < 0, above, c)
        slope = ((scaled > low) & (scaled < high)).to(ratio.dtype).mul_(ratio).mul_(public).sum(dim=-1, keepdim=True)
        newton = c - excess / slope
        inside = (newton > below) & (newton < above)
        c = torch.where(done, c, torch.where(inside, newton, (below * above).sqrt()))
    return q / q.sum(dim=-1, keepdim=True)


def onto_renyi(log_p: Tensor, log_public: Tensor, order: int, cap: float, bound: float) -> Tensor:
    """(m, 1) weights l, at most 1 - e^-cap and as large as D_order(l p + (1 - l) p_0 || p_0) <= bound lets them be.

    exp((order - 1) D) is a polynomial in l, whose coefficients are the moments of p / p_0 under p_0: one pass over the
    vocabulary a moment, and a search over numbers.
    """
    moments = _log_moments(log_p, log_public, order)
    limit = (order - 1) * bound * (1 - SLACK)
    most = torch.full_like(moments[:, :1], -math.expm1(-cap))
    return _largest(lambda weight: _log_polynomial(moments, weight, order) <= limit, most)


def onto_published(log_p: Tensor, log_public: Tensor, order: int, bound: Tensor) -> Tensor:
    """(m, 1) weights l, the largest in [0, 1] with D_order(q || p_0) and D_order(p_0 || q) at most `bound`, (m, 1), for
    q = l p + (1 - l) p_0 (Flemings et al. 2024, Equation 6)."""
    moments = _log_moments(log_p, log_public, order)
    limit = (order - 1) * bound
    most = _largest(lambda weight: _log_polynomial(moments, weight, order) <= limit, torch.ones_like(bound))
    public, gain = log_public.exp(), (log_p - log_public).clamp(max=600).expm1()

    def feasible(weight: Tensor) -> Tensor:
        inverse = (1 + weight * gain).reciprocal_()
        return (public * inverse.pow(order - 1)).sum(dim=-1, keepdim=True).log() <= limit

    return _largest(feasible, most, steps=30)


def mixed(log_p: Tensor, log_public: Tensor, weight: Tensor) -> Tensor:
    """(m, V) probabilities weight p + (1 - weight) p_0."""
    public = log_public.exp()
    return public + weight * (log_p.exp() - public)


def _log_moments(log_p: Tensor, log_public: Tensor, order: int) -> Tensor:
    """(m, order + 1): the logarithm of sum(p_0 (p / p_0)^k) for k = 0 ... order."""
    ratio = log_p - log_public
    known = [torch.zeros_like(log_p[:, :1]), torch.zeros_like(log_p[:, :1])]  # both laws sum to one
    known += [torch.logsumexp(log_public + k * ratio, dim=-1, keepdim=True) for k in range(2, order + 1)]
    return torch.cat(known, dim=1)


def _log_polynomial(moments: Tensor, weight: Tensor, order: int) -> Tensor:
    """(m, 1): log sum(p_0 (1 - l + l p / p_0)^order) = log sum_k C(order, k) (1 - l)^(order - k) l^k moment_k."""
    k = torch.arange(order + 1, dtype=moments.dtype, device=moments.device)
    binomial = torch.tensor([math.log(math.comb(order, i)) for i in range(order + 1)], dtype=k.dtype, device=k.device)
    terms = binomial + torch.special.xlogy(order - k, 1 - weight) + torch.special.xlogy(k, weight) + moments
    return torch.logsumexp(terms, dim=-1, keepdim=True)


def _largest(feasible, most: Tensor, steps: int = STEPS) -> Tensor:
    """The largest weight in [0, most] that is feasible, from below; feasible at 0, and up to one point."""
    low = torch.where(feasible(most), most, torch.zeros_like(most))
    high = most.clone()
    for _ in range(steps):  # always all of them: where to stop would depend on the other rows, which are other shards'
        middle = (low + high) / 2
        fits = feasible(middle)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return low
