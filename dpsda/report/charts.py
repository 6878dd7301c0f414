"""Charts as inline SVG: lines, histograms, points. Colours come from the page's variables, so they follow its scheme.

A chart is drawn for the width of a phone and scales up, so that its letters stay readable. Every mark has a title that
shows on hovering, and every chart one that says in words what it shows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from dpsda.report.page import esc, percent, short

WIDTH, HEIGHT = 320, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 16, 38
COLOURS = ("#c06020", "#3a7fc4", "#8a8a8a")  # of a file of its own
LETTER = 11  # the height of a name, as in page.css
VALUES, LETTERS = 12, 44  # of an attribute that has bars, and of the name of one


@dataclass(frozen=True)
class Line:
    """Points (x, y) in order of x; `spread` is (low, high) of each, or nothing; `look` is a class in page.css."""

    name: str
    points: Sequence[tuple[float, float]]
    spread: Sequence[tuple[float, float]] = field(default_factory=tuple)
    look: str = "line0"


@dataclass(frozen=True)
class Reference:
    """A level to compare with. Its name stands at the left or the right end."""

    name: str
    y: float
    look: str = "floor"
    left: bool = False


def lines(
    title: str,
    series: Sequence[Line],
    *,
    x_name: str,
    x_ticks: Sequence[tuple[float, str]],
    references: Sequence[Reference] = (),
    shown: Callable[[float], str] = short,
    from_zero: bool = False,
) -> str:
    """A line chart; the points are marked, and bars show their spread."""
    levels = [y for line in series for _, y in line.points] + [r.y for r in references]
    levels += [y for line in series for low_high in line.spread for y in low_high]
    low, high = min(levels), max(levels)
    pad = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    below = 0.0 if from_zero else low - pad
    low, high = max(below, 0.0) if low >= 0 else below, high + pad  # what is never below zero has no axis there
    first, last = min(x for x, _ in x_ticks), max(x for x, _ in x_ticks)

    def x_at(x: float) -> float:
        return LEFT + 10 + (WIDTH - LEFT - RIGHT - 20) * ((x - first) / (last - first) if last > first else 0.5)

    def y_at(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low)

    parts = [*_grid(low, high, y_at, shown), *_x_axis(x_name, [(x_at(x), name) for x, name in x_ticks])]
    above = -math.inf
    for ref in sorted(references, key=lambda ref: -ref.y):
        at, anchor = (LEFT + 4, "start") if ref.left else (WIDTH - RIGHT, "end")
        level = y_at(ref.y)
        # a name stands on its line, or below it where another line is as near as a name is high
        name_at = level - 4 if level - above > LETTER + 4 else level + LETTER
        above = level
        parts.append(f'<path class="{ref.look}" d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="name {ref.look}" x="{at}" y="{name_at:.1f}" text-anchor="{anchor}">'
            f"{esc(ref.name)} {esc(shown(ref.y))}</text>"
        )
    for line in series:
        places = [(x_at(x), y_at(y)) for x, y in line.points]
        parts.append(f'<path class="{line.look}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in places)}"/>')
        for (x, _), (a, b) in zip(places, line.spread, strict=False):
            if b > a:
                parts.append(f'<path class="spread {line.look}" d="M{x:.1f} {y_at(a):.1f}V{y_at(b):.1f}"/>')
        names = dict(x_ticks)
        for (x, y), (step, value) in zip(places, line.points, strict=True):
            label = f"{line.name}, {x_name} {names.get(step, short(step))}: {shown(value)}"
            parts.append(
                f'<circle class="{line.look}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{esc(label)}</title></circle>'
            )
    caption = [f"{line.name}: from {shown(line.points[0][1])} to {shown(line.points[-1][1])}" for line in series]
    caption += [f"{ref.name}: {shown(ref.y)}" for ref in references]
    return _svg(title, "; ".join(caption), parts)


def histogram(title: str, groups: Sequence[tuple[str, np.ndarray, str]], *, x_name: str) -> str:
    """Shares of whole numbers in bins; the first group is filled, the others are outlines. The last bin takes the rest.

    A group is its name, its numbers (N,), and a class in page.css.
    """
    together = np.concatenate([np.asarray(values) for _, values, _ in groups])
    width = max(1, math.ceil(_nice(float(np.quantile(together, 0.99)) / 24)))
    bins = max(1, math.ceil((float(np.quantile(together, 0.99)) + 1) / width))
    cut = int(together.max()) >= bins * width
    shares = [np.bincount(np.minimum(v // width, bins - 1), minlength=bins) / len(v) for _, v, _ in groups]
    high = max(float(share.max()) for share in shares) * 1.08
    step = (WIDTH - LEFT - RIGHT) / bins

    def y_at(y: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / high

    def tick(edge: int) -> str:
        return f"{edge}+" if cut and edge >= (bins - 1) * width else f"{edge}"

    every = max(1, math.ceil(bins / 6))
    ticks = [(LEFT + step * i, tick(i * width)) for i in range(0, bins, every)]
    parts = [*_grid(0.0, high, y_at, percent), *_x_axis(x_name, ticks)]
    for n, ((name, _, look), share) in enumerate(zip(groups, shares, strict=True)):
        if n:
            path = f"M{LEFT} {y_at(0):.1f}" + "".join(f"V{y_at(s):.1f}h{step:.3f}" for s in share) + f"V{y_at(0):.1f}"
            parts.append(f'<path class="outline {look}" d="{path}"/>')
            continue
        for i, s in enumerate(share):
            to = f" to {(i + 1) * width - 1}" if width > 1 else ""
            caption = f"{name}, {i * width}{' and more' if cut and i == bins - 1 else to} {x_name}: {percent(s)}"
            place = f'x="{LEFT + step * i + 0.5:.2f}" y="{y_at(s):.1f}"'
            size = f'width="{max(step - 1, 0.5):.2f}" height="{y_at(0) - y_at(s):.1f}"'
            parts.append(f'<rect class="bar {look}" {place} {size}><title>{esc(caption)}</title></rect>')
    caption = "; ".join(f"{name}: median {np.median(values):.0f} {x_name}" for name, values, _ in groups)
    return _svg(title, caption, parts)


def bars(title: str, names: Sequence[str], groups: Sequence[tuple[str, np.ndarray, str]]) -> str:
    """The share of each value that is there, a bar a group. A group is its name, its shares (V,), and a class in
    page.css. What is beyond the first `VALUES` of the first group, by its shares, is one bar."""
    there = np.flatnonzero(np.max([shares for _, shares, _ in groups], axis=0) > 0)
    order = there[np.argsort(-groups[0][1][there], kind="stable")] if len(there) > VALUES else there
    shown, rest = sorted(order[:VALUES].tolist()), order[VALUES:]
    titles = [names[i] for i in shown] + ([f"{len(rest):,} other values"] if len(rest) else [])
    shares = [np.append(s[shown], [s[rest].sum()] if len(rest) else []) for _, s, _ in groups]
    high, thick = max(float(share.max()) for share in shares) or 1.0, 11
    step = 18 + thick * len(groups) + 8
    parts = []
    for place, value in enumerate(titles):
        y = place * step + 13
        cut = value if len(value) <= LETTERS else f"{value[: LETTERS - 3]}..."
        parts.append(f'<text x="2" y="{y}">{esc(cut)}</text>')
        for n, ((name, _, look), share) in enumerate(zip(groups, shares, strict=True)):
            top, width = y + 5 + n * thick, (WIDTH - 60) * float(share[place]) / high
            caption = f"<title>{esc(f'{value}, {name}: {percent(float(share[place]))}')}</title>"
            size = f'width="{max(width, 0.5):.1f}" height="{thick - 1}"'
            parts.append(f'<rect class="bar {look}" x="2" y="{top}" {size}>{caption}</rect>')
            said = percent(float(share[place]))
            parts.append(f'<text class="small" x="{width + 6:.1f}" y="{top + thick - 2}">{said}</text>')
    caption = "; ".join(
        f"{name}: " + ", ".join(f"{value} {percent(float(s))}" for value, s in zip(titles, share, strict=True))
        for (name, _, _), share in zip(groups, shares, strict=True)
    )
    return _svg(title, caption, parts, height=len(titles) * step)


def spans(title: str, rows: Sequence[tuple[str, float, float]], most: float, shown: Callable[[float], str]) -> str:
    """What a total is made of: a bar each, from where the one before it ended, on a track that is `most` long. A row is
    its name, and where its bar begins and ends. The last bar is all of them together."""
    width, step = WIDTH - 60, 36
    parts = []
    for place, (name, start, end) in enumerate([*rows, ("Together", 0.0, max(end for _, _, end in rows))]):
        y, added = place * step, shown(end - start)
        x, long = 2 + width * start / most, max(width * (end - start) / most, 1.0)
        look, said = ("line0", f"+ {added}") if place < len(rows) else ("total", added)
        caption = f"<title>{esc(f'{name}: from {shown(start)} to {shown(end)}')}</title>"
        parts.append(f'<text class="said" x="2" y="{y + 12}">{esc(name)}</text>')
        parts.append(f'<rect class="track" x="2" y="{y + 18}" width="{width}" height="9"/>')
        parts.append(
            f'<rect class="bar {look}" x="{x:.1f}" y="{y + 18}" width="{long:.1f}" height="9">{caption}</rect>'
        )
        parts.append(f'<text class="said" x="{WIDTH - 2}" y="{y + 27}" text-anchor="end">{said}</text>')
    caption = "; ".join(f"{name}: {shown(end - start)}" for name, start, end in rows)
    return _svg(title, caption, parts, height=step * (len(rows) + 1) - 6)


def points(title: str, groups: Sequence[tuple[str, np.ndarray, str]]) -> str:
    """Dots in the plane, the groups over each other in their order; a group is its name, (N, 2), and a class."""
    together = np.concatenate([xy for _, xy, _ in groups])
    low, high = together.min(axis=0), together.max(axis=0)
    size = np.where(high > low, high - low, 1.0)
    side, pad = WIDTH, 10
    parts = [f'<rect class="frame" x="0.5" y="0.5" width="{side - 1}" height="{side - 1}" rx="6"/>']
    for _, xy, look in groups:
        at = pad + (side - 2 * pad) * (xy - low) / size
        dots = "".join(f"M{x:.1f} {side - y:.1f}h0" for x, y in at)
        parts.append(f'<path class="dots {look}" d="{dots}"/>')
    return _svg(title, "; ".join(f"{name}: {len(xy):,} points" for name, xy, _ in groups), parts, height=side)


def standalone(drawn: Sequence[str], entries: Sequence[tuple[str, str]]) -> str:
    """Charts as one SVG file, side by side below their legend, in colours that are seen on light and dark; `entries`
    are the legend's (name, class)."""
    heights = [float(re.search(r'viewBox="0 0 \d+ (\d+)"', chart)[1]) for chart in drawn]  # type: ignore[index]
    looks = {look: COLOURS[i] for i, (_, look) in enumerate(entries)}
    names = "".join(
        f'<text x="8" y="{12 * (i + 1)}" style="fill:{looks[look]}">{esc(name)}</text>'
        for i, (name, look) in enumerate(entries)
    )
    top = 12 * len(entries) + 10
    places = "".join(
        chart.replace("<svg ", f'<svg x="{i * (WIDTH + 20)}" y="{top}" width="{WIDTH}" height="{height:g}" ', 1)
        for i, (chart, height) in enumerate(zip(drawn, heights, strict=True))
    )
    style = "text{font:9px sans-serif;fill:#808080}text.small{font-size:7px}path{fill:none;stroke-width:2}"
    style += ".grid,path.floor,path.start{stroke:#aaa;stroke-width:1}path.floor,path.start{stroke-dasharray:5 3}"
    style += "".join(f"path.{c}{{stroke:{x}}}circle.{c},rect.{c}{{fill:{x}}}" for c, x in looks.items())
    width, height = len(drawn) * (WIDTH + 20) - 20, top + max(heights)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{max(640, width)}">'
        f"<style>{style}</style>{names}{places}</svg>\n"
    )


def legend(*entries: tuple[str, str]) -> str:
    """What the marks of a chart mean: (name, class)."""
    marks = [
        f'<span><svg class="key" viewBox="0 0 22 10" aria-hidden="true"><path class="{look}" d="M1 5H21"/></svg>'
        f"{esc(name)}</span>"
        for name, look in entries
    ]
    return f'<p class="legend">{"".join(marks)}</p>'


def dot(look: str) -> str:
    """One dot of a map, as its key."""
    return f'<svg class="key" viewBox="0 0 22 10" aria-hidden="true"><path class="dots {look}" d="M11 5h0"/></svg>'


def figure(chart: str, title: str, note: str = "") -> str:
    small = f" <small>{esc(note)}</small>" if note else ""
    return f"<figure><figcaption>{esc(title)}{small}</figcaption>\n{chart}</figure>"


def grid(figures: Sequence[str]) -> str:
    return '<div class="charts">\n' + "\n".join(figures) + "\n</div>" if figures else ""


def iteration_ticks(steps: Sequence[int]) -> list[tuple[float, str]]:
    """A tick for every iteration, or for every few where there are many; the last one always."""
    last = max(steps)
    every = max(1, math.ceil(last / 10))
    return [
        (float(t), str(t)) for t in range(min(steps), last + 1) if t == last or (t % every == 0 and last - t >= every)
    ]


def number_ticks(values: Sequence[float]) -> list[tuple[float, str]]:
    """Round numbers, a few, the first and the last of which hold all values between them."""
    low, high = min(values), max(values)
    step = _nice((high - low) / 4 or abs(high) / 4 or 1.0)
    digits = max(0, math.ceil(-math.log10(step) - 1e-9)) + (f"{step:e}"[:3] == "2.5")
    places = range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)
    return [(i * step, f"{i * step:,.{digits}f}") for i in places]


def _grid(low: float, high: float, y_at: Callable[[float], float], shown: Callable[[float], str]) -> list[str]:
    step = _nice((high - low) / 4)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) + (f"{step:e}"[:3] == "2.5")
    parts = []
    for i in range(math.ceil(low / step), math.floor(high / step) + 1):
        y = i * step
        name = f"{100 * y:.{max(0, digits - 2)}f} %" if shown is percent else f"{y:,.{digits}f}"
        parts.append(f'<path class="grid" d="M{LEFT} {y_at(y):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y_at(y) + 3.5:.1f}" text-anchor="end">{name}</text>')
    return parts


def _x_axis(name: str, ticks: Sequence[tuple[float, str]]) -> list[str]:
    parts = [
        f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{esc(label)}</text>' for x, label in ticks
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    return [*parts, f'<text class="axis" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{esc(name)}</text>']


def _nice(step: float) -> float:
    """The least of 1, 2, 2.5, 5, 10 times a power of ten that is not below `step`."""
    power = 10.0 ** math.floor(math.log10(step)) if step > 0 else 1.0
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= step * (1 - 1e-9))


def _svg(title: str, caption: str, parts: Sequence[str], height: int = HEIGHT) -> str:
    head = f"<title>{esc(title)}</title><desc>{esc(caption)}</desc>"
    return f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img">{head}{"".join(parts)}</svg>'
