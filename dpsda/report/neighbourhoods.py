"""What the owner's page shows of where texts lie: a map that can be searched, and neighbourhoods with real and released
texts side by side, which tell what is covered, what is missed, and what is made up.

It shows private records as they are, so it is for `private/` alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dpsda.evaluation.clusters import Clusters
from dpsda.neighbors import usable
from dpsda.report import charts, page
from dpsda.report.page import esc, percent
from dpsda.wording import terms

TITLE = "Where the texts lie"
DOTS = 1000  # texts of each set
MOST, TEXTS = 20, 15  # neighbourhoods, and how many texts of the smaller set each has on average; fewer tell of chance
LEAST = 0.01  # of the texts of a set, by which a neighbourhood that is missed or made up differs
NAMED = 4  # words that a neighbourhood is called by
VERDICTS = ("missed", "made up", "covered")
SIDES = (("real texts", "line1", "show-real"), ("released texts", "line0", "show-released"))
START = ("iteration 0, before any vote", "start", "show-start")


@dataclass(frozen=True)
class Placed:
    """Texts (n,) with their embeddings (n, D)."""

    texts: Sequence[str]
    vectors: np.ndarray

    @classmethod
    def drawn(cls, texts: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray]) -> Placed:
        """A fixed draw of at most `DOTS` of them."""
        some = [texts[int(i)] for i in np.random.default_rng(0).permutation(len(texts))[:DOTS]]
        vectors = embed(some)
        return cls(some, vectors).of(np.flatnonzero(usable(vectors)))

    def of(self, rows: np.ndarray) -> Placed:
        return Placed([self.texts[int(i)] for i in rows], self.vectors[rows])


def section(real: Placed, released: Placed, start: Placed | None) -> str:
    """The map and the neighbourhoods; `start` are the texts from before any vote."""
    if not (real.texts and released.texts):
        return page.section(TITLE, page.paragraph("This part is left out: the encoder can place no text of one side."))
    cells = _cells(real.vectors, released.vectors)
    shares = np.stack([np.bincount(of, minlength=1 + np.concatenate(cells).max()) / len(of) for of in cells])  # (2, K)
    verdicts = [_verdict(*pair) for pair in shares.T]
    order = sorted(range(len(verdicts)), key=lambda k: (VERDICTS.index(verdicts[k]), -shares[:, k].sum()))
    place = np.argsort(order)  # of each cell on the page
    real, near_real = _typical_first(real, place[cells[0]])
    released, near_released = _typical_first(released, place[cells[1]])
    names = _names([*real.texts, *released.texts], np.concatenate([near_real, near_released]), len(order))
    cards = [_card(name, verdicts[k], shares[:, k], shares.max()) for name, k in zip(names, order, strict=True)]
    other = len(cards) - verdicts.count("covered")
    plot, explained = _map(real, released, start)
    return page.section(
        TITLE,
        page.paragraph(
            "Every dot is a text, and dots that are near to each other tend to be alike. Neighbourhoods are groups of "
            "like texts, called by words that are frequent there: "
            f"{', '.join(f'{verdicts.count(verdict)} {verdict}' for verdict in VERDICTS)}. One is missed if its share "
            "of the real texts is more than twice that of the released ones, and made up if it is the other way "
            f"round; what differs by less than {percent(LEAST)} counts as covered. The name of one marks it on the map."
        ),
        f'<div class="places">\n<div class="map">{plot}</div>\n<div>{"".join(cards[:other])}'
        f"<details{'' if other else ' open'}><summary>{len(cards) - other} covered</summary>\n"
        f"{''.join(cards[other:])}</details></div>\n</div>",
        page.paragraph(
            "The plane of the map is that of the two directions in which the real texts' embeddings differ most "
            f"({percent(explained)} of the variance), so texts that are far apart may still fall together; "
            f"neighbourhoods go by all directions. Of each set, a draw of at most {DOTS:,} texts is shown.",
            "note",
        ),
        page.json_block(
            "map-data",
            [
                {"texts": real.texts, "near": near_real.tolist()},
                {"texts": released.texts, "near": near_released.tolist()},
            ],
        ),
    )


def _cells(*sides: np.ndarray) -> list[np.ndarray]:
    """The neighbourhood of each text of both sides; as many of each are cut, so that neither decides alone."""
    fewer = min(map(len, sides))
    count = min(MOST, fewer // TEXTS)
    try:
        clusters = Clusters.fit(np.concatenate([side[:fewer] for side in sides]), max(count, 1), seed=0)
    except ValueError:  # fewer different texts than neighbourhoods
        return [np.zeros(len(side), np.int64) for side in sides]
    return [clusters.cells(side) for side in sides]


def _verdict(real: float, released: float) -> str:
    if abs(real - released) < LEAST:
        return "covered"
    return "missed" if real > 2 * released else "made up" if released > 2 * real else "covered"


def _typical_first(side: Placed, near: np.ndarray) -> tuple[Placed, np.ndarray]:
    """The texts in the order of how near they are to the middle of their neighbourhood, and its number of each."""
    likeness = np.zeros(len(near))
    for k in np.unique(near):
        those = near == k
        likeness[those] = side.vectors[those] @ side.vectors[those].mean(axis=0)
    order = np.argsort(-likeness, kind="stable")
    return side.of(order), near[order]


def _names(texts: Sequence[str], near: np.ndarray, count: int) -> list[str]:
    """The words by which each neighbourhood is told from all texts: those that add most to the divergence."""
    everywhere: Counter[str] = Counter()
    there: list[Counter[str]] = [Counter() for _ in range(count)]
    for text, k in zip(texts, near, strict=True):
        own = {term for term in terms(text.lower()) if len(term) > 2 or not term.isascii()}
        everywhere.update(own)
        there[k].update(own)

    def named(k: int) -> str:
        size = np.count_nonzero(near == k) / len(texts)
        gain = {w: n * np.log(n / (everywhere[w] * size)) for w, n in there[k].items()}
        return ", ".join(sorted(gain, key=lambda w: (-gain[w], w))[:NAMED])

    return [named(k) for k in range(count)]


def _card(name: str, verdict: str, shares: np.ndarray, most: float) -> str:
    """A neighbourhood: its name, which marks its dots, and a column of texts for each side, which the script fills."""
    columns = "".join(
        f'<div><h4>{percent(float(share))} <small>of the {side}</small></h4><svg class="share" viewBox="0 0 100 4" '
        f'preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="4"/>'
        f'<rect class="bar {look}" width="{100 * share / most:.1f}" height="4"/></svg><ul></ul></div>'
        for (side, look, _), share in zip(SIDES, shares, strict=True)
    )
    return (
        f'<article><h3><button type="button" aria-pressed="false">{esc(name)}</button> '
        f'<span class="verdict {verdict.split()[0]}">{verdict}</span></h3>\n'
        f'<div class="sides">{columns}</div></article>\n'
    )


def _map(real: Placed, released: Placed, start: Placed | None) -> tuple[str, float]:
    """The map with its controls, and which share of the variance of the real texts it shows."""
    centre = real.vectors.mean(axis=0)
    variances, axes = np.linalg.eigh((real.vectors - centre).T @ (real.vectors - centre))  # (D,) upwards, (D, D)
    sets = [(SIDES[0], real), *([(START, start)] if start else []), (SIDES[1], released)]
    groups = [(name, (side.vectors - centre) @ axes[:, :-3:-1], look) for (name, look, _), side in sets]
    boxes = "".join(
        f'<label><input type="checkbox" id="{box}"{"" if look == "start" else " checked"}>'
        f"{charts.dot(look)}{name}</label>"
        for (name, look, box), _ in sets
    )
    return (
        '<div class="controls"><label>Search real and released texts'
        '<input type="search" id="find" autocomplete="off"></label></div>\n'
        f'<p class="toggles">{boxes}</p>\n<div class="plot">'
        f"{charts.points('Real and released texts in the plane', groups)}</div>\n"
        '<p class="note" id="found" aria-live="polite"></p>'
    ), float(variances[-2:].sum() / max(variances.sum(), 1e-12))
