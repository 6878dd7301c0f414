"""Divergences against brute force, and projections that are feasible and as near to the shard's law as they may be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from dpsda.pmixed import projection
from dpsda.pmixed.projection import mixed, onto_max_divergence, onto_published, onto_renyi


def divergence(log_p: torch.Tensor, log_q: torch.Tensor, order: float) -> torch.Tensor:
    """(m,) Renyi divergence D_order(p || q), in nats."""
    return torch.logsumexp(order * log_p + (1 - order) * log_q, dim=-1) / (order - 1)


def laws(rows: int, size: int, seed: int = 0, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(log_p, log_public), each (rows, size)."""
    draw = torch.Generator().manual_seed(seed)
    public = torch.randn(rows, size, generator=draw, dtype=torch.float64) * spread
    own = public + torch.randn(rows, size, generator=draw, dtype=torch.float64) * 1.5
    return own.log_softmax(-1), public.log_softmax(-1)


def test_the_divergence_of_rare_tokens_at_order_nine():
    p = np.array([1e-14, 0.3, 0.7 - 2e-14, 1e-14])
    q = np.array([0.2, 1e-14, 0.8 - 2e-14, 1e-14])
    exact = float(np.longdouble(p) ** 9 @ np.longdouble(q) ** -8)
    logs = torch.log(torch.tensor(p))[None], torch.log(torch.tensor(q))[None]
    moments = projection._log_moments(*logs, 9)
    for found in (divergence(*logs, 9), projection._log_polynomial(moments, torch.ones_like(moments[:, :1]), 9) / 8):
        assert float(found) == pytest.approx(math.log(exact) / 8, rel=1e-12) and math.isfinite(float(found))


@pytest.mark.parametrize("bound", [1e-6, 0.1, 0.9, 5.0])
def test_max_divergence_is_kept_and_the_law_is_the_nearest_in_it(bound):
    log_p, log_public = laws(50, 3000)
    q = onto_max_divergence(log_p, log_public, bound)
    assert (q.log() - log_public).abs().max() <= bound and torch.allclose(
        q.sum(-1), torch.ones(50).double(), atol=1e-12
    )
    # of the form that the nearest has: p_0 clip(c p / p_0)
    inner = (q.log() - log_public).abs() < bound * (1 - 1e-6) - 1e-8
    for row in range(50):
        constant = (q[row].log() - log_p[row])[inner[row]]
        assert len(constant) == 0 or constant.max() - constant.min() < 1e-7
    loose = onto_max_divergence(log_p, log_public, 60.0)
    assert torch.allclose(loose, log_p.exp(), atol=1e-12)


@pytest.mark.parametrize("bound", [1e-3, 0.8, 20.0])
def test_the_search_ends_for_laws_that_have_nothing_in_common(bound):
    """Sure of one token each, of rare ones, or far apart on all: what bisecting the same sum gives."""
    log_p, log_public = laws(30, 400, seed=1, spread=20.0)
    sure = torch.full((3, 400), -700.0, dtype=torch.float64)
    sure[0, 0] = sure[1, log_public[29].argmin()] = sure[2, 7] = 0.0
    log_p = torch.cat([log_p, (3 * log_p[:3].flip(-1)).log_softmax(-1), sure, sure[:1]])
    log_public = torch.cat([log_public, log_public[:3], log_public[29:30].expand(3, -1), sure[2:]])
    log_p, log_public = log_p.clamp(min=-700), log_public.clamp(min=-700)
    q = onto_max_divergence(log_p, log_public, bound)
    ratio, public = (log_p - log_public).clamp(-600, 600), log_public.exp()
    low, high = torch.full_like(ratio[:, :1], -700.0), torch.full_like(ratio[:, :1], 700.0)
    for _ in range(80):
        middle = (low + high) / 2
        law = public * (middle + ratio).clamp(-bound, bound).exp()
        less = law.sum(-1, keepdim=True) < 1
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    assert torch.allclose(q, law, rtol=1e-6, atol=0) and not torch.allclose(q, public, rtol=1e-6, atol=0)


def test_no_law_in_the_ball_is_nearer():
    """Against a general optimiser, on six tokens."""
    log_p, log_public = laws(5, 6, seed=3, spread=1.0)
    for row in range(5):
        p, public = log_p[row].exp().numpy(), log_public[row].exp().numpy()
        found = minimize(
            lambda q, p=p: -(p @ np.log(q)),
            public,
            bounds=[(x * math.exp(-0.5), x * math.exp(0.5)) for x in public],
            constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        ours = onto_max_divergence(log_p[row : row + 1], log_public[row : row + 1], 0.5)[0].numpy()
        assert -(p @ np.log(ours)) <= found.fun + 1e-9


@pytest.mark.parametrize(("order", "bound"), [(2, 0.3), (3, 0.01), (4, 1.5), (9, 0.2)])
def test_the_largest_weight_of_the_renyi_projection(order, bound):
    log_p, log_public = laws(40, 500)
    weight = onto_renyi(log_p, log_public, order, 0.9, bound)
    most = -math.expm1(-0.9)
    assert (weight <= most).all() and (weight > 0).all()
    at = divergence(mixed(log_p, log_public, weight).log(), log_public, order)
    assert (at <= bound * (1 + 1e-9)).all()
    more = mixed(log_p, log_public, (weight * (1 + 1e-6)).clamp(max=1.0)).log()
    assert ((divergence(more, log_public, order) > bound) | (weight[:, 0] >= most * (1 - 1e-9))).all()


def test_the_published_projection_is_feasible_both_ways_and_largest():
    log_p, log_public = laws(40, 500)
    bound = torch.linspace(0.05, 2.0, 40, dtype=torch.float64)[:, None]
    weight = onto_published(log_p, log_public, 3, bound)
    q = mixed(log_p, log_public, weight).log()
    both = torch.maximum(divergence(q, log_public, 3), divergence(log_public, q, 3))
    assert (both <= bound[:, 0] * (1 + 1e-9)).all() and (both > bound[:, 0] * 0.999).sum() > 20
    certain = torch.tensor([[0.0, -800.0]], dtype=torch.float64)
    half = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    assert 0 < float(onto_published(certain, half, 3, torch.tensor([[0.1]], dtype=torch.float64))) < 1


@pytest.mark.parametrize("bound", [1e-3, 0.3, 37.0])
def test_the_published_projection_of_rare_tokens(bound):
    """A shard that all but excludes a token of public probability x: the bound is kept, in extended precision, and the
    weight is no less than what is known to be feasible, as q >= (1 - w) p_0."""
    log_x = np.log(10.0) * np.array([-0.3, -3, -8, -14, -15, -16, -17, -18, -19, -20, -27, -30, -32, -45, -60])
    log_public = torch.tensor(np.stack([np.log1p(-np.exp(log_x)), log_x], axis=1))
    log_p = torch.tensor([[0.0, -700.0]], dtype=torch.float64).expand(len(log_x), -1)
    weight = onto_published(log_p, log_public, 3, torch.full((len(log_x), 1), bound, dtype=torch.float64))
    most = projection._largest(
        lambda w: projection._log_polynomial(projection._log_moments(log_p, log_public, 3), w, 3) <= 2 * bound,
        torch.ones_like(weight),
    )
    assert (weight >= torch.minimum(most, torch.full_like(most, -math.expm1(-bound))) * (1 - 1e-6)).all()
    q, public = mixed(log_p, log_public, weight).numpy().astype(np.longdouble), np.exp(log_public.numpy(), dtype="g")
    for a, b in ((q, public), (public, q)):
        assert (np.log((a**3 * b**-2).sum(axis=1)) / 2 <= bound * (1 + 1e-8) + 1e-14).all()


def test_a_tiny_bound_beside_a_token_that_is_nearly_impossible():
    """What the logarithms of the moments lose to a ratio of 690 nats stays within the bound."""
    draw = np.random.default_rng(0)
    rows, bound = 100, 1e-7
    public = draw.dirichlet(np.ones(5), rows)
    own = public * (1 + 3 * math.sqrt(bound) * draw.choice([-1, 1], (rows, 5)))
    rare = (-700 + (700 - draw.uniform(1, 60, rows)) / 2)[:, None]
    log_public = torch.tensor(np.concatenate([np.log(public), np.full((rows, 1), -700.0)], axis=1)).log_softmax(-1)
    log_p = torch.tensor(np.concatenate([np.log(own / own.sum(1, keepdims=True)), rare], axis=1)).log_softmax(-1)
    weight = onto_renyi(log_p.clamp(min=-700), log_public.clamp(min=-700), 2, 3.0, bound)
    p, p0 = (np.exp(x.clamp(min=-700).numpy(), dtype="g") for x in (log_p, log_public))
    chi = ((weight.numpy().astype("g") * (p - p0)) ** 2 / p0).sum(axis=1)  # exp(D_2) - 1
    assert (np.log1p(chi) <= bound * (1 + 1e-8)).all() and (np.log1p(chi) > bound * 0.99).sum() > 30


@pytest.mark.parametrize(
    "project",
    [
        lambda p, public: onto_max_divergence(p, public, 0.4),
        lambda p, public: onto_renyi(p, public, 3, 0.9, 0.2),
        lambda p, public: onto_published(p, public, 3, torch.full_like(p[:, :1], 0.2)),
    ],
)
def test_rows_do_not_see_each_other(project):
    log_p, log_public = laws(7, 200)
    whole = project(log_p, log_public)
    for row in range(7):
        alone = project(log_p[row : row + 1], log_public[row : row + 1])
        assert torch.allclose(alone[0], whole[row], rtol=1e-8)
