"""Rows from noisy marginals: a graphical model of them, and draws from it. All of it is post-processing.

A model of all pairs at once is out of reach for more than a few attributes: its tables grow with every loop in the
graph of pairs. So those pairs are chosen whose noisy counts are farthest from independence, beyond what noise and
chance make of independent ones (as in the score of AIM, McKenna et al. 2022). A spanning forest of them is always
taken. Other pairs follow as long as the tables of the junction tree have at most CELLS cells. `mbi` fits the model
(Private-PGM, McKenna, Sheldon, Miklau 2019).
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsda.attributes.marginals import Set, Tables
from dpsda.errors import InputError

if TYPE_CHECKING:
    import networkx as nx

CELLS = 20_000  # of all tables of the model; ten times as many are little better and take several times as long
STEPS = 300  # of the fit


@dataclass(frozen=True)
class RowModel:
    """A model of V variables: its cliques, each after a neighbour, beginning with variable 0, and their marginals."""

    cliques: list[Set]
    marginals: dict[Set, np.ndarray]

    @classmethod
    def of(cls, tables: Tables, scale: float) -> RowModel:
        """Fitted to the noisy counts `tables`, with noise of standard deviation `scale`."""
        tree, fitted = _fit(tables, scale, chosen_pairs(tables, scale))
        return cls([clique for part in _parts(tree, 0) for clique in part], fitted)

    def draw(self, given: np.ndarray | None, rows: int, rng: np.random.Generator) -> np.ndarray:
        """(rows, V) codes of rows; `given`, (rows,), is the value of variable 0 in each, which the others are drawn
        for."""
        columns = {} if given is None else {0: given}
        for clique in self.cliques:
            _extend(columns, clique, self.marginals[clique], rows, rng)
        return np.stack([columns[variable] for variable in sorted(columns)], axis=1).astype(np.int32)


def total(tables: Tables) -> float:
    """How many votes a marginal has, at least 1: the mean of the sums of all, by their number of cells."""
    sums, weights = [table.sum() for table in tables.values()], [1 / table.size for table in tables.values()]
    return max(float(np.average(sums, weights=weights)), 1.0)


def chosen_pairs(tables: Tables, scale: float, cells: int = CELLS) -> list[Set]:
    """The pairs that the model has: first a spanning forest, then what fits, by how dependent they are."""
    n = total(tables)
    alone = {some[0]: np.maximum(table, 0) for some, table in tables.items() if len(some) == 1}
    shares = {i: t / t.sum() if t.sum() else np.full(len(t), 1 / len(t)) for i, t in alone.items()}
    scores: dict[Set, float] = {}
    for some in (some for some in tables if len(some) == 2):
        expected = n * np.outer(shares[some[0]], shares[some[1]])
        variance = scale**2 + expected  # of the noise and of the sample, cell by cell
        chance = math.sqrt(2 / math.pi) * np.sqrt(variance).sum()
        beyond = float(np.abs(tables[some] - expected).sum() - chance)
        if beyond > 2 * math.sqrt((1 - 2 / math.pi) * variance.sum()):
            scores[some] = beyond
    order = sorted(scores, key=lambda pair: -scores[pair])
    group = {i: {i} for i in alone}
    forest: list[Set] = []
    for pair in order:
        one, other = group[pair[0]], group[pair[1]]
        if one is not other:
            forest.append(pair)
            one |= other
            group.update(dict.fromkeys(other, one))
    sizes = _sizes(tables)
    found = forest
    for pair in (pair for pair in order if pair not in forest):
        if _model_cells(sizes, [*found, pair]) <= cells:
            found = [*found, pair]
    return found


def _sizes(tables: Tables) -> dict[int, int]:
    """How many values each variable has."""
    return {some[0]: len(table) for some, table in tables.items() if len(some) == 1}


def _model_cells(sizes: dict[int, int], pairs: list[Set]) -> int:
    tree = _junction_tree(sizes, pairs)
    return sum(math.prod(sizes[i] for i in clique) for clique in tree)


def _junction_tree(sizes: dict[int, int], pairs: list[Set]) -> nx.Graph:
    mbi = _mbi()
    domain = mbi.Domain(list(sizes), list(sizes.values()))
    tree, _ = mbi.junction_tree.make_junction_tree(domain, [*pairs, *((i,) for i in sizes)])
    return tree


def _fit(tables: Tables, scale: float, pairs: list[Set]) -> tuple[nx.Graph, dict[Set, np.ndarray]]:
    """The junction tree of the model, and the marginal of each of its cliques, in the order of the clique."""
    mbi = _mbi()
    import jax

    sizes = _sizes(tables)
    domain = mbi.Domain(list(sizes), list(sizes.values()))
    n = total(tables)
    measured = [
        mbi.LinearMeasurement(tables[some].ravel(), some, scale or 1.0) for some in [*pairs, *((i,) for i in sizes)]
    ]
    model = mbi.estimation.MirrorDescent().estimate(domain, measured, known_total=n, iters=STEPS)
    tree = _junction_tree(sizes, pairs)
    cliques = list(tree)

    def marginals(potentials: Any) -> Any:
        return mbi.marginal_oracles.message_passing_stable(potentials.expand(cliques), n)

    fitted = jax.jit(marginals)(model.potentials)  # compiled as a whole: operation by operation takes much longer
    return tree, {clique: np.asarray(fitted[clique].transpose(clique).values) for clique in cliques}


def _parts(tree: nx.Graph, first: int) -> list[list[Set]]:
    """The cliques of each connected part, every one after its neighbour, beginning with one that has `first`."""
    import networkx as nx

    parts = [
        list(nx.dfs_preorder_nodes(tree, min(part, key=lambda clique: (first not in clique, clique))))
        for part in nx.connected_components(tree)
    ]
    return sorted(parts, key=lambda part: (first not in part[0], part[0]))


def _extend(
    columns: dict[int, np.ndarray], clique: Set, table: np.ndarray, rows: int, rng: np.random.Generator
) -> None:
    """Draw the variables of a clique that no column has yet, given those that have one. Rows that are given the same
    are drawn together, at even steps of the distribution, so that few rows, too, are in proportion."""
    known, new = [i for i in clique if i in columns], [i for i in clique if i not in columns]
    if not new:
        return
    table = np.maximum(table.transpose([clique.index(i) for i in (*known, *new)]), 0)
    shape, of_known = table.shape, table.shape[: len(known)]
    table = table.reshape(math.prod(of_known), -1)
    parents = np.ravel_multi_index(tuple(columns[i] for i in known), of_known) if known else np.zeros(rows, np.int64)
    found = np.empty(rows, dtype=np.int64)
    for parent in np.unique(parents):
        own = np.flatnonzero(parents == parent)
        weights = table[parent] if table[parent].sum() > 0 else table.sum(axis=0)
        steps = (rng.permutation(len(own)) + rng.random()) / len(own)
        found[own] = np.searchsorted(np.cumsum(weights) / weights.sum(), steps, side="right")
    found = np.minimum(found, table.shape[1] - 1)
    for variable, codes in zip(new, np.unravel_index(found, shape[len(known) :]), strict=True):
        columns[variable] = codes


def check_installed() -> None:
    """InputError where there is no `mbi`: before anything is spent on what it is to fit."""
    if importlib.util.find_spec("mbi") is None:
        raise InputError(
            "`attributes:` of spec.yaml needs the package mbi: run `pip install 'dpsda[attributes]'`, or give "
            "--attributes none"
        )


def _mbi() -> Any:
    """The library, in float64, without its advice."""
    with warnings.catch_warnings(action="ignore"):
        import jax

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_enable_x64", True)
        import mbi
    return mbi
