"""How far the rows of a synthetic set are from real ones, and whether its texts say what their rows say.

`rows` compares the columns that a set has, `said` what can be read off its texts, each with the reference by the total
variation of marginals: the mean over all single attributes (`_1`), and over all pairs (`_2`). All sets have the same
number of rows, because a small sample is farther from any other. `agreement` is the share of the values of its rows
that the texts say, too, of attributes that can be read off a text; `agreement_NAME` is that of one of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpsda.attributes.read_off import agreeing, read_off
from dpsda.data import PrivateCorpus
from dpsda.data.attributes import Attribute, row_codes
from dpsda.evaluation import metrics, results
from dpsda.evaluation.clusters import total_variation
from dpsda.runs import read_table

if TYPE_CHECKING:
    from dpsda.embedding import Embeds


def compare(
    corpus: PrivateCorpus,
    files: dict[str, Path],
    encoder: Embeds,
    *,
    public: bool,  # the corpus
    protected: bool,  # the sets
    runs: int,
    seed: int,
) -> list[results.Row]:
    """A row of figures for the floor and for each set; none where the data set has no attributes, or one side no
    text."""
    attributes = corpus.spec.attributes
    if not attributes:
        return []
    readable = [i for i, attribute in enumerate(attributes) if attribute.readable]
    real = read_off(attributes, corpus.texts, encoder, private=not public)
    reference = np.stack([corpus.columns.get(a.name, real[:, i]) for i, a in enumerate(attributes)], axis=1)
    own, said = {}, {}
    for name, path in files.items():
        frame = read_table(path)
        column = "text" if "text" in frame else corpus.spec.text
        has_rows = all(attribute.name in frame for attribute in attributes)
        own[name] = row_codes(frame, attributes) if has_rows else None
        said[name] = read_off(attributes, frame[column].tolist(), encoder, private=not protected)
    size = min([len(reference) // 2, *(len(codes) for codes in said.values())])
    if not size:
        return []
    draws = [np.random.default_rng([seed, run]) for run in range(runs)]
    held = [np.split(draw.permutation(len(reference)), [size]) for draw in draws]
    floor = {
        **_mean([_distances("rows", reference[some], reference[rest], attributes) for some, rest in held]),
        **_mean([_distances("said", real[some], real[rest], attributes, readable) for some, rest in held]),
        **_agreement(reference, real, attributes, readable),
    }
    rows = [{"set": metrics.FLOOR, "texts": size, **floor}]
    for name in files:
        some = [draw.permutation(len(said[name]))[:size] for draw in draws]
        found = _mean([_distances("said", said[name][i], real, attributes, readable) for i in some])
        codes = own[name]
        if codes is not None:
            there = _mean([_distances("rows", codes[i], reference, attributes) for i in some])
            found = {**there, **found, **_agreement(codes, said[name], attributes, readable)}
        rows.append({"set": name, "texts": size, **{key: found.get(key) for key in floor}})
    return rows


def _agreement(
    codes: np.ndarray, said: np.ndarray, attributes: Sequence[Attribute], readable: Sequence[int]
) -> dict[str, float]:
    """Of values that are not missing."""
    there, same = agreeing(codes, said, attributes)
    counted = [i for i in readable if there[:, i].any()]
    if not counted:
        return {}
    each = {f"agreement_{attributes[i].name}": float(same[:, i].sum() / there[:, i].sum()) for i in counted}
    return {"agreement": float(same[:, counted].sum() / there[:, counted].sum()), **each}


def _distances(
    kind: str,
    some: np.ndarray,
    other: np.ndarray,
    attributes: Sequence[Attribute],
    which: Sequence[int] | None = None,
) -> dict[str, float]:
    which = range(len(attributes)) if which is None else which
    found = {}
    for ways in (1, 2):
        sets = list(itertools.combinations(which, ways))
        if sets:
            far = [total_variation_of(some[:, list(s)], other[:, list(s)], [attributes[i] for i in s]) for s in sets]
            found[f"{kind}_{ways}"] = float(np.mean(far))
    return found


def total_variation_of(some: np.ndarray, other: np.ndarray, attributes: Sequence[Attribute]) -> float:
    """Of two sets of codes (N, a); -1, no value, is a cell of its own."""
    shape = [len(attribute.values) + 1 for attribute in attributes]
    cells = [np.ravel_multi_index(tuple(codes.T + 1), shape) for codes in (some, other)]
    _, found = np.unique(np.concatenate(cells), return_inverse=True)  # the cells that hold anything
    p, q = (np.bincount(part, minlength=found.max() + 1) for part in np.split(found, [len(cells[0])]))
    return total_variation(p, q)


def _mean(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}
