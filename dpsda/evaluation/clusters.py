"""Embeddings as a histogram over clusters, which is what MAUVE and its relatives compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VARIANCE = 0.9  # the share that the principal components keep (Pillutla et al. 2021, section 4)


@dataclass(frozen=True)
class Clusters:
    """The cells around `centres` (K, d), after a projection: (x - mean) @ axes."""

    mean: np.ndarray  # (D,)
    axes: np.ndarray  # (D, d)
    centres: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, count: int, seed: int) -> Clusters:
        """k-means with `count` clusters on the principal components of `rows` (N, D), all at length one.

        Give the texts of both sides: clusters of the real ones alone have no cell for text unlike any real one, and
        take Gaussian noise for half-way right. Raises ValueError if there are fewer distinct rows than clusters.
        """
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA

        rows = _unit(rows)
        if len(np.unique(rows, axis=0)) < count:
            raise ValueError(f"fewer different texts than the {count} clusters")
        pca = PCA(n_components=VARIANCE, svd_solver="covariance_eigh").fit(rows)
        # centres start at random texts, as in mauve-text: k-means++ spreads them, favours outliers, and raises MAUVE
        means = KMeans(count, init="random", n_init=1, random_state=seed).fit(pca.transform(rows))
        return cls(pca.mean_, pca.components_.T, means.cluster_centers_)

    def cells(self, rows: np.ndarray) -> np.ndarray:
        """(N,) the cell in which each of `rows` (N, D) lies."""
        projected = (_unit(rows) - self.mean) @ self.axes
        scores = projected @ self.centres.T - np.vecdot(self.centres, self.centres) / 2
        return scores.argmax(axis=1)

    def histogram(self, rows: np.ndarray) -> np.ndarray:
        """(K,) how many of `rows` (N, D) lie in each cell."""
        return np.bincount(self.cells(rows), minlength=len(self.centres))


def kl(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Kullback-Leibler divergence, in nats, of the histogram `real` (K,) from `synthetic` (K,), both counts.

    Half a count is added to every cell (Krichevsky and Trofimov), or one empty cell makes it infinite.
    """
    p, q = (counts + 0.5 for counts in (real, synthetic))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def total_variation(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Total variation, in [0, 1], between histograms (K,) of counts."""
    return float(np.abs(real / real.sum() - synthetic / synthetic.sum()).sum() / 2)


def wasserstein(real: np.ndarray, synthetic: np.ndarray, centres: np.ndarray) -> float:
    """Wasserstein-1 distance between histograms (K,) of counts, a cell being as far from another as their `centres`
    (K, d): how far a text has to move on average, in embeddings of length one. Exact, a linear programme."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, eye_array, kron, vstack
    from scipy.spatial.distance import cdist

    # what two histograms share stays where it is, as distances obey the triangle inequality
    excess = real / real.sum() - synthetic / synthetic.sum()
    give, take = np.flatnonzero(excess > 0), np.flatnonzero(excess < 0)
    if not len(give):
        return 0.0
    costs = cdist(centres[give], centres[take])
    rows = kron(eye_array(len(give)), csr_array(np.ones((1, len(take)))))
    columns = kron(csr_array(np.ones((1, len(give)))), eye_array(len(take)))
    supply, demand = excess[give], -excess[take]
    demand *= supply.sum() / demand.sum()  # equal but for rounding
    plan = linprog(
        costs.ravel(), A_eq=vstack([rows, columns]).tocsr(), b_eq=np.concatenate([supply, demand]), method="highs"
    )
    return float(plan.fun)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
