"""What the owner's page shows of the rows that texts belong to: how often a value is there, and which pairs differ."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from dpsda.data.attributes import Attribute
from dpsda.evaluation.rows import total_variation_of
from dpsda.report import charts, page
from dpsda.report.page import esc

PAIRS = 10  # that are named, those that differ most


LEGEND = (("the records", "line1"), ("the released rows", "line0"), ("what the texts say", "line2"))


def bars(attributes: Sequence[Attribute], *sets: np.ndarray) -> list[str]:
    """A chart of the values of each attribute: their shares in each of the `sets` of LEGEND that tells it, (N, K) codes
    with -1 where there is no value."""
    drawn = []
    for i, attribute in enumerate(attributes):
        names, groups = [value or "(missing)" for value in attribute.values], []
        for (name, look), codes in zip(LEGEND, sets, strict=True):
            own = codes[:, i][codes[:, i] >= 0]
            if len(own):
                groups.append((name, np.bincount(own, minlength=len(names)) / len(own), look))
        drawn.append(charts.bars(attribute.name, names, groups) if groups else "")
    return drawn


def section(
    title: str, attributes: Sequence[Attribute], records: np.ndarray, rows: np.ndarray, said: np.ndarray
) -> str:
    """The shares of the values of each attribute, and the pairs in which the rows differ most from the records."""
    drawn = zip(bars(attributes, records, rows, said), attributes, strict=True)
    figures = [charts.figure(chart, attribute.name) for chart, attribute in drawn if chart]
    pairs = sorted(
        (
            (total_variation_of(rows[:, [i, j]], records[:, [i, j]], (attributes[i], attributes[j])), i, j)
            for i, j in itertools.combinations(range(len(attributes)), 2)
        ),
        reverse=True,
    )
    table = page.table(
        ["pair", "total variation"],
        [[esc(f"{attributes[i].name}, {attributes[j].name}"), f"{far:.3f}"] for far, i, j in pairs[:PAIRS]],
    )
    caption = "How often each value is there among the records, and in the release."
    tells = bool((said >= 0).any())
    if tells:
        caption = (
            "How often each value is there: among the records, in the released rows, and as the texts say it, where a "
            "text tells it. Where texts differ from their rows, the language model wrote something else than it was "
            "asked for."
        )
    told = "The pairs of columns in which the rows differ most from the records: half of the sum of the differences "
    return page.section(
        title,
        page.paragraph(f"{caption} What the two differ by is noise, and what the noisy counts leave out."),
        charts.legend(*LEGEND[: 2 + tells]),
        charts.grid(figures),
        *([page.paragraph(f"{told}of their shares, 0 where they are alike."), table] if pairs else []),
    )
