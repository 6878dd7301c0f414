"""Several runs beside each other: a table, and quality against epsilon."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from dpsda.privacy.accounting import shown
from dpsda.report import charts, measurements, page
from dpsda.report.finished import FinishedRun
from dpsda.report.measurements import Figure, Measured
from dpsda.report.page import esc, short

_LOOKS = 4  # how many methods page.css tells apart


def build(runs: list[FinishedRun], *, public: bool) -> str:
    """The page of all figures, or of those against public references alone."""
    measured = [_measured(run, public=public) for run in runs]
    figures = [measurements.last_figures(*of) for of in measured]
    if public:
        kind, note = "Runs compared, on public references", _public_note(runs)
        banner = ""
    else:
        kind, note = "For the owner of the data", ""
        banner = page.banner(
            "Computed from private data without noise: do not share.",
            "With <code>--output FILE</code>, a comparison on public references alone is made, which may be shared.",
        )
    sets = list(dict.fromkeys(run.data_set for run in runs))
    here = [(run, of) for run, of in zip(runs, figures, strict=True) if run.folder.protected or not public]
    behind = [run.name for run, of in zip(runs, measured, strict=True) if _is_behind(run, *of)]
    caption = "Figures are those of the last set that was measured."
    caption += f" Older than the last iteration: some of {esc(', '.join(behind))}." if behind else ""
    body = [
        page.header(kind, ", ".join(sets), f"{len(here)} run{'s' if len(here) != 1 else ''} beside each other."),
        banner,
        page.paragraph(note) if note else "",
        page.section("The runs", page.paragraph(caption), _table(here)) if here else "",
        *(_plots(name, [pair for pair in here if pair[0].data_set == name], alone=len(sets) == 1) for name in sets),
        *(_paths(name, list(zip(runs, measured, strict=True)), alone=len(sets) == 1) for name in sets),
    ]
    return page.document("Runs compared", body)


def _measured(run: FinishedRun, *, public: bool) -> tuple[list[Measured], list[Measured]]:
    """Distances and downstream scores of a run, as far as the page may show them."""
    folder = run.folder
    if public and not folder.protected:
        return [], []
    metrics = measurements.metrics(folder.shared, public=folder.protected)
    scores = measurements.downstream(folder.shared, public=folder.protected)
    if not public and folder.protected:
        metrics += measurements.metrics(folder.private, public=False)
        scores += measurements.downstream(folder.private, public=False)
    return metrics, scores


def _is_behind(run: FinishedRun, metrics: list[Measured], scores: list[Measured]) -> bool:
    return any(of.behind(run.folder.steps()) for of in (*metrics, *scores))


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


def _columns(figures: Iterable[dict[Figure, float]]) -> list[Figure]:
    """Every figure that a run has, the main ones first."""
    return sorted(dict.fromkeys(figure for of in figures for figure in of), key=lambda figure: not figure.main)


def _table(here: list[tuple[FinishedRun, dict[Figure, float]]]) -> str:
    columns = _columns(of for _, of in here)
    rows = [
        [
            name,
            run.data_set,
            run.method,
            "inf" if math.isinf(run.epsilon) else f"{run.epsilon:g}",
            shown(float(run.certificate["delta"])),
            f"{len(run.frame):,}" if len(run.frame) else "n/a",
            *(short(of[c]) if c in of else "n/a" for c in columns),
        ]
        for name, (run, of) in zip(_names(run for run, _ in here), here, strict=True)
    ]
    head = ["run", "data set", "method", "epsilon", "delta", "texts", *(figure.name for figure in columns)]
    return page.table(head, rows, sortable=True)


def _plots(name: str, here: list[tuple[FinishedRun, dict[Figure, float]]], *, alone: bool) -> str:
    """One small chart a figure: epsilon to the right, a line a method, bars from the least to the largest seed."""
    methods = list(dict.fromkeys(run.method for run, _ in here))
    looks = {method: f"line{i % _LOOKS}" for i, method in enumerate(methods)}
    drawn: dict[bool, list[str]] = {True: [], False: []}
    for figure in _columns(of for _, of in here):
        values: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        for run, of in here:
            if figure in of:
                values[run.method][_nominal(run)].append(of[figure])
        places = _places({epsilon for by in values.values() for epsilon in by})
        series = []
        for method, by in values.items():
            ordered = sorted(by)
            means = [(places[e], sum(by[e]) / len(by[e])) for e in ordered]
            spread = [(min(by[e]), max(by[e])) for e in ordered]
            series.append(charts.Line(method, means, spread, looks[method]))
        ticks = [(x, "inf" if math.isinf(e) else f"{e:g}") for e, x in places.items()]
        title, better, main = figure
        chart = charts.lines(f"{title} against epsilon", series, x_name="epsilon", x_ticks=ticks)
        drawn[main].append(charts.figure(chart, title, f"{better} is better" if better else ""))
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


def _paths(name: str, here: list[tuple[FinishedRun, tuple[list[Measured], list[Measured]]]], *, alone: bool) -> str:
    """Where the iterations of a method lead: nearest text against recall, a chart a budget, the mean over its runs."""
    found: dict[float, dict[str, list[dict[int, tuple[float, float]]]]] = defaultdict(lambda: defaultdict(list))
    for run, (metrics, _) in here:
        rows = next((m.rows for m in metrics if {"recall", "nn_real"} <= set(m.columns)), [])
        places = {
            int(row["set"]): (recall, distance)
            for row in rows
            if row["set"].isdigit()
            and (recall := page.number(row["recall"])) is not None
            and (distance := page.number(row["nn_real"])) is not None
        }
        if len(places) > 1 and run.data_set == name:
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
