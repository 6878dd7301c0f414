"""What the owner's page shows of the rows that texts belong to: how often a value is there, and which pairs differ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dpsda.data.attributes import Attribute
from dpsda.evaluation.rows import total_variation_of
from dpsda.report import charts, page
from dpsda.report.page import esc

PAIRS = 10  # that are named, those that differ most


@dataclass(frozen=True)
class Set:
    """Rows as codes (N, K), -1 where one has no value, and how they are drawn."""

    name: str
    codes: np.ndarray
    look: str


def section(attributes: Sequence[Attribute], sets: Sequence[Set]) -> str:
    """The shares of the values of each attribute, in each set that tells it; and the pairs of attributes in which the
    second set differs most from the first."""
    figures = []
    for i, attribute in enumerate(attributes):
        names = [value or "(missing)" for value in attribute.values]
        groups = []
        for one in sets:
            own = one.codes[:, i][one.codes[:, i] >= 0]
            if len(own):
                groups.append((one.name, np.bincount(own, minlength=len(names)) / len(own), one.look))
        figures.append(charts.figure(charts.bars(attribute.name, names, groups), attribute.name))
    real, rows = sets[:2]
    pairs = sorted(
        (
            (total_variation_of(rows.codes[:, [i, j]], real.codes[:, [i, j]], (attributes[i], attributes[j])), i, j)
            for i, j in itertools.combinations(range(len(attributes)), 2)
        ),
        reverse=True,
    )
    table = page.table(
        ["pair", "total variation"],
        [[esc(f"{attributes[i].name}, {attributes[j].name}"), f"{far:.3f}"] for far, i, j in pairs[:PAIRS]],
    )
    told = "The pairs of attributes in which the rows differ most from the records: half of the sum of the differences "
    return page.section(
        "Rows",
        page.paragraph(
            "How often each value is there: among the records, in the released rows, and as the texts say it, where a "
            "text tells it. What rows differ by is noise, and what the model of the noisy counts leaves out. Where "
            "texts differ from their rows, the language model wrote something else than it was asked for."
        ),
        charts.legend(*((one.name, one.look) for one in sets)),
        charts.grid(figures),
        *([page.paragraph(f"{told}of their shares, 0 where they are alike."), table] if pairs else []),
    )
