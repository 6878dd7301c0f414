"""MAUVE: the area under the divergence frontier of two histograms (Pillutla et al. 2021, arXiv:2102.01454)."""

import numpy as np

SCALING = 5.0  # c in equation 2
POINTS = 25  # mixture weights at which the frontier is computed


def mauve(p: np.ndarray, q: np.ndarray) -> float:
    """In (0, 1], 1 for equal histograms `p` and `q` (K,) of counts or shares.

    For mixtures r = w p + (1 - w) q the frontier has the points (exp(-c KL(q | r)), exp(-c KL(p | r))), and ends on
    the axes at (1, 0) and (0, 1). Compare values of equal numbers of texts and clusters only: fewer texts a cluster
    make it smaller.
    """
    p, q = p / p.sum(), q / q.sum()
    weights = np.linspace(1e-6, 1 - 1e-6, POINTS)[:, None]
    mixed = weights * p + (1 - weights) * q
    x = np.exp(-SCALING * np.concatenate([_kl(q, mixed), [0, np.inf]]))
    y = np.exp(-SCALING * np.concatenate([_kl(p, mixed), [np.inf, 0]]))
    order = np.lexsort((-y, x))
    return float(np.trapezoid(y[order], x[order]))


def _kl(p: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    """(n,) the divergence of `p` (K,) from each row of `mixed` (n, K), none of which lacks a cell of p."""
    there = p > 0
    return (p[there] * np.log(p[there] / mixed[:, there])).sum(axis=1)
