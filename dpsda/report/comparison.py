"""Several runs beside each other: a table, and quality against epsilon."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from dpsda.privacy.accounting import shown
from dpsda.report import charts, measurements, page
from dpsda.report.finished import FinishedRun
from dpsda.report.measurements import Figure, Measured, Value
from dpsda.report.page import esc

_LOOKS = 4  # how many methods page.css tells apart


class Compared(NamedTuple):
    """A run, and its distances and downstream scores, as far as the page may show them."""

    run: FinishedRun
    metrics: list[Measured]
    scores: list[Measured]

    def figures(self, which: str = "last") -> dict[Figure, Value]:
        return measurements.figures_of(self.metrics, self.scores, which)

    @property
    def is_behind(self) -> bool:
        return any(of.behind(self.run.folder.steps()) for of in (*self.metrics, *self.scores))


def build(runs: list[FinishedRun], *, public: bool) -> str:
    """The page of all figures, or of those against public references alone."""
    here = [_compared(run, public=public) for run in runs if run.folder.protected or not public]
    references = {figure.reference for one in here for figure in one.figures()}
    if public:
        kind, note = "Runs compared, on public references", _public_note(runs)
        banner = ""
    else:
        kind = "For the owner of the data"
        note = (
            "Choosing a run by these figures uses the private records once more, and no certificate covers that. What "
            "the runs spend adds up: <code>dpsda total RUN RUN ...</code> says how much."
        )
        banner = page.banner(
            "Computed from private data without noise: do not share.",
            "With <code>--output FILE</code>, a comparison on public references alone is made, which may be shared.",
        )
    sets = list(dict.fromkeys(run.data_set for run in runs))
    alone = len(sets) == 1
    behind = [one.run.name for one in here if one.is_behind]
    caption = "Figures are those of the last set that was measured, and of iteration 0, before any vote."
    caption += f" All are against {esc(measurements.where(*references))}." if len(references) == 1 else ""
    caption += f" Older than the last iteration: some of {esc(', '.join(behind))}." if behind else ""
    body = [
        page.header(kind, ", ".join(sets), f"{len(here)} run{'s' if len(here) != 1 else ''} beside each other."),
        banner,
        page.paragraph(note),
        page.section("The runs", page.paragraph(caption), _tables(here, alone=alone)) if here else "",
        *(_plots(name, [one for one in here if one.run.data_set == name], alone=alone) for name in sets),
        *(_paths(name, [one for one in here if one.run.data_set == name], alone=alone) for name in sets),
    ]
    return page.document("Runs compared", body)


def _compared(run: FinishedRun, *, public: bool) -> Compared:
    folder = run.folder
    metrics = measurements.metrics(folder.shared, public=folder.protected)
    scores = measurements.downstream(folder.shared, public=folder.protected)
    if not public and folder.protected:
        metrics += measurements.metrics(folder.private, public=False)
        scores += measurements.downstream(folder.private, public=False)
    return Compared(run, metrics, scores)


def _public_note(runs: list[FinishedRun]) -> str:
    silent = [run.name for run in runs if not run.folder.protected]
    if not silent:
        return "Every figure is measured against public texts."
    return (
        "Every figure is measured against public texts. Nothing is shown of runs that were made without noise, as "
        f"nothing protects their texts: {len(silent)} left out."
    )


def _names(runs: Iterable[FinishedRun]) -> list[str]:
    """The folders' names; with their parents where two are alike."""
    runs = list(runs)
    names = [run.name for run in runs]
    return [
        f"{run.folder.root.resolve().parent.name}/{name}" if names.count(name) > 1 else name
        for run, name in zip(runs, names, strict=True)
    ]


def _columns(figures: Iterable[dict[Figure, Value]]) -> list[Figure]:
    """Every figure that a run has, the main ones first."""
    return sorted(dict.fromkeys(figure for of in figures for figure in of), key=lambda figure: not figure.main)


def _title(figure: Figure, columns: Iterable[Figure]) -> str:
    """The figure's name; with its reference where figures have several."""
    alone = len({other.reference for other in columns}) == 1
    return figure.name if alone else f"{figure.name}, {figure.reference}"


def _tables(here: list[Compared], *, alone: bool) -> str:
    """A row a run; and beside it, as references, its first texts and real texts in the place of synthetic ones. The
    main figures show at once. `alone`: there is one data set, which no row has to name."""
    heads: list[list[str]] = []
    rows: list[dict[Figure, Value]] = []
    marked = []
    for name, one in zip(_names(one.run for one in here), here, strict=True):
        run = one.run
        epsilon = "inf" if math.isinf(run.epsilon) else f"{run.epsilon:g}"
        texts = f"{len(run.frame):,}" if len(run.frame) else "n/a"
        heads.append([name, run.data_set, epsilon, run.method, shown(float(run.certificate["delta"])), texts])
        rows.append(one.figures())
        before = one.figures("0")
        if before and before != rows[-1]:
            marked.append(len(rows))
            heads.append([f"{name}, iteration 0", run.data_set, "", "", "", ""])
            rows.append(before)
    reals: dict[str, dict[Figure, Value]] = defaultdict(dict)
    for one in here:
        reals[one.run.data_set] = one.figures("real") | reals[one.run.data_set]
    for data_set, real in reals.items():
        if real:
            marked.append(len(rows))
            heads.append(["real against real", data_set, "", "", "", ""])
            rows.append(real)
    titles = ["run", "data set", "epsilon", "method", "delta", "texts"]
    first, last = [0, 2] if alone else [0, 1, 2], [3, 4, 5]
    columns = _columns(rows)

    def table(some: list[Figure], first: list[int], last: list[int]) -> str:
        cells = [
            [*(head[i] for i in first), *(row[c].shown if c in row else "n/a" for c in some), *(head[i] for i in last)]
            for head, row in zip(heads, rows, strict=True)
        ]
        names = [*(titles[i] for i in first), *(_title(c, columns) for c in some), *(titles[i] for i in last)]
        return page.table(names, cells, sortable=True, marked=marked)

    more = [c for c in columns if not c.main]
    rest = page.more(f"{len(more)} more figures", table(more, [0], [])) if more else ""
    return table([c for c in columns if c.main], first, last) + rest


def _plots(name: str, here: list[Compared], *, alone: bool) -> str:
    """One small chart a figure: epsilon to the right, a line a method, bars from the least to the largest seed. There
    is nothing to see where all runs have one epsilon."""
    if len({_nominal(one.run) for one in here}) < 2:
        return ""
    methods = list(dict.fromkeys(one.run.method for one in here))
    looks = {method: f"line{i % _LOOKS}" for i, method in enumerate(methods)}
    drawn: dict[bool, list[str]] = {True: [], False: []}
    found = [(one.run, one.figures()) for one in here]
    columns = _columns(of for _, of in found)
    for figure in columns:
        values: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        for run, of in found:
            if figure in of:
                values[run.method][_nominal(run)].append(of[figure].value)
        places = _places({epsilon for by in values.values() for epsilon in by})
        series = []
        for method, by in values.items():
            ordered = sorted(by)
            means = [(places[e], sum(by[e]) / len(by[e])) for e in ordered]
            spread = [(min(by[e]), max(by[e])) for e in ordered]
            series.append(charts.Line(method, means, spread, looks[method]))
        ticks = [(x, "inf" if math.isinf(e) else f"{e:g}") for e, x in places.items()]
        title = _title(figure, columns)
        chart = charts.lines(f"{title} against epsilon", series, x_name="epsilon", x_ticks=ticks)
        drawn[figure.main].append(charts.figure(chart, title, f"{figure.better} is better" if figure.better else ""))
    if not any(drawn.values()):
        return ""
    caption = "A point is the mean of the runs of one method and epsilon; a bar goes from the least to the largest."
    return page.section(
        "Quality against epsilon" if alone else f"Quality against epsilon: {name}",
        page.paragraph(caption),
        charts.legend(*((method, looks[method]) for method in methods)),
        charts.grid(drawn[True]),
        page.more(f"{len(drawn[False])} more", charts.grid(drawn[False])),
    )


def _paths(name: str, here: list[Compared], *, alone: bool) -> str:
    """Where the iterations of a method lead: nearest text against recall, a chart a budget, the mean over its runs."""
    found: dict[float, dict[str, list[dict[int, tuple[float, float]]]]] = defaultdict(lambda: defaultdict(list))
    for run, metrics, _ in here:
        rows = next((m.rows for m in metrics if {"recall", "nn_real"} <= set(m.columns)), [])
        places = {
            int(row["set"]): (recall, distance)
            for row in rows
            if row["set"].isdigit()
            and (recall := page.number(row["recall"])) is not None
            and (distance := page.number(row["nn_real"])) is not None
        }
        if len(places) > 1:
            found[_nominal(run)][run.method].append(places)
    looks = {
        method: f"line{i % _LOOKS}" for i, method in enumerate(dict.fromkeys(m for by in found.values() for m in by))
    }
    drawn = []
    for epsilon in sorted(found):
        series = []
        for method, runs in found[epsilon].items():
            steps = sorted(set.intersection(*(set(places) for places in runs)))
            means = [tuple(sum(of) / len(of) for of in zip(*(p[t] for p in runs), strict=True)) for t in steps]
            series.append(charts.Line(method, means, look=looks[method]))
        ticks = charts.number_ticks([x for line in series for x, _ in line.points])
        title = f"Nearest text against recall, epsilon {epsilon:g}"
        chart = charts.lines(title, series, x_name="recall", x_ticks=ticks)
        drawn.append(charts.figure(chart, title, "lower and to the right is better"))
    if not drawn:
        return ""
    return page.section(
        "Where the iterations lead" if alone else f"Where the iterations lead: {name}",
        page.paragraph(
            "A line goes from the first texts, before any vote, to the last ones. To the right the real texts are "
            "better covered, and downwards each has a nearer synthetic one."
        ),
        charts.legend(*looks.items()),
        charts.grid(drawn),
    )


def _nominal(run: FinishedRun) -> float:
    """The epsilon that was asked for, which seeds share, or else what was spent."""
    budget = run.certificate.get("budget")
    return run.epsilon if math.isinf(run.epsilon) or budget is None else float(budget)


def _places(epsilons: set[float]) -> dict[float, float]:
    """Where each epsilon stands: by its logarithm, and `inf` as a last place of its own."""
    finite = sorted(e for e in epsilons if math.isfinite(e))
    places = {e: math.log10(e) if e > 0 else -3.0 for e in finite}
    if math.inf in epsilons:
        last = max(places.values(), default=0.0)
        places[math.inf] = last + max(0.3, 0.25 * (last - min(places.values(), default=last)))
    return places
