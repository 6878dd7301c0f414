"""The measurements of a run, from the csv files that metric.py, downstream.py and the run itself leave.

A file beside the iterations is measured against a public reference; one in `private/` is not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from dpsda.evaluation.metrics import BY_OTHER, OTHER, PERPLEXITY
from dpsda.reference import OLD
from dpsda.report import charts, page
from dpsda.report.page import esc, number, percent, short
from dpsda.runs import whole_csv


class Figure(NamedTuple):
    """One figure of a run, as runs are compared by it; the main ones show at once."""

    name: str
    better: str
    main: bool
    reference: str


class Value(NamedTuple):
    """What a figure is, and how it is shown, with its spread."""

    value: float
    shown: str


class Metric(NamedTuple):
    """What a column measures, and which direction is better: lower, higher, or neither."""

    name: str
    better: str = ""
    about: str = ""


FIRST = 6  # charts that show at once

# in the order in which they are shown
METRICS = {
    "nn_real": Metric("Distance from real to synthetic", "lower", "mean cosine distance to the nearest synthetic text"),
    "fid": Metric("Fréchet distance (FID)", "lower", "means and spreads of the embeddings"),
    "mauve": Metric("MAUVE", "higher", "overlap of the two distributions"),
    "precision": Metric("Precision", "higher", "synthetic texts that lie among real ones"),
    "recall": Metric("Recall", "higher", "real texts that lie among synthetic ones"),
    "coverage": Metric("Coverage", "higher", "real texts that have a synthetic one near"),
    "nn_synthetic": Metric(
        "Distance from synthetic to real", "lower", "mean cosine distance to the nearest real text; near 0 means copies"
    ),
    "sinkhorn": Metric("Sinkhorn distance", "lower", "cost of moving one set onto the other"),
    "kl": Metric("KL divergence", "lower", "over clusters of embeddings"),
    "tv": Metric("Total variation", "lower", "over clusters of embeddings"),
    "wasserstein": Metric("Wasserstein distance", "lower", "over clusters of embeddings"),
    "f1": Metric("F1 of precision and recall", "higher"),
    "density": Metric("Density", "higher", "how densely real texts surround the synthetic ones"),
    "length": Metric("Distance of lengths", "lower", "Wasserstein distance, in tokens"),
    "distinct_1": Metric("Distinct words", "", "compare with real text"),
    "distinct_2": Metric("Distinct pairs of words", "", "compare with real text"),
    "distinct_3": Metric("Distinct triples of words", "", "compare with real text"),
    "self_similarity": Metric("Self-similarity", "", "compare with real text"),
    "copies_exact": Metric("Copied word for word", "lower", "compare with real text"),
    "copies_8gram": Metric("With eight copied words in a row", "lower", "compare with real text"),
    "copies_near": Metric("Nearly copied", "lower", "compare with real text"),
}
OTHERS = " (by an encoder that no vote saw)"
METRICS |= {f"{OTHER}{name}": METRICS[name]._replace(name=METRICS[name].name + OTHERS) for name in BY_OTHER}
METRICS[PERPLEXITY] = Metric("Perplexity by a language model", "", "compare with real text")
_COPIES = {
    "copies_exact": "are a text of the reference, word for word",
    "copies_8gram": "share eight words in a row with a text of the reference",
    "copies_near": "are nearly a text of the reference",
}
_TASKS = {"probe": "Linear probe", "classify": "Fine-tuned classifier", "lm": "Language model"}
_SCORES = {"accuracy": "accuracy", "macro_f1": "macro F1", "perplexity": "perplexity"}
NAMED = (
    "before",
    "release",
    "private, DP",
    "private",
)  # sets of texts that are no iteration, in the order in which they come about
_TRAINED_ON = {
    "majority": "nothing: the majority label",
    "real": "real texts, as many",
    "real, all": "all real texts",
    "before": "synthetic, before resampling",
    "release": "synthetic, as released",
    "private, DP": "all private texts, under DP",
    "private": "all private texts, without noise",
}


@dataclass(frozen=True)
class Measured:
    """One file: distances to the reference of this name, or a downstream evaluation on it, a row a set of texts."""

    reference: str
    public: bool
    columns: list[str]
    rows: list[dict[str, str]]

    @property
    def steps(self) -> list[tuple[float, dict[str, str]]]:
        """The rows of synthetic texts, each with its place: iterations by their number, other sets to their right."""
        key = self._key
        rows = [row for row in self.rows if row[key].isdigit()]
        rows = sorted(rows, key=lambda row: int(row[key]))
        after = int(rows[-1][key]) + 1 if rows else 0
        named = [row for name in NAMED for row in self.rows if row[key] == name]
        places = list(dict.fromkeys(row[key] for row in named))
        return [(float(row[key]), row) for row in rows] + [(float(after + places.index(r[key])), r) for r in named]

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The places, with their names."""
        names = {x: row[self._key] for x, row in self.steps}
        numbers = [int(x) for x, name in names.items() if name.isdigit()]
        there = charts.iteration_ticks(numbers) if numbers else []
        return there + [(x, name) for x, name in names.items() if not name.isdigit()]

    @property
    def last(self) -> list[dict[str, str]]:
        """The rows of the set that came last, which is the one that counts."""
        return [row for x, row in self.steps if x == self.steps[-1][0]]

    def rows_of(self, which: str) -> list[dict[str, str]]:
        """The rows of the `last` set, of iteration `0`, or of `real` texts in their place."""
        if which == "last":
            return self.last if self.steps else []
        keys = ("floor", "real") if which == "real" else (which,)
        return [row for row in self.rows if row[self._key] in keys]

    def behind(self, iterations: Sequence[int]) -> str:
        """A note where the run has iterations beyond those that were measured; else nothing."""
        name = self.last[0][self._key] if self.steps else ""
        if not (name.isdigit() and iterations and int(name) < max(iterations)):
            return ""
        return page.paragraph(f"Measured up to iteration {name}; the run has gone on to {max(iterations)}.", "note")

    @property
    def _key(self) -> str:
        return "set" if "set" in self.columns else "trained_on"

    @property
    def title(self) -> str:
        return f"Against {where(self.reference)}{' (public)' if self.public else ''}"


def where(reference: str) -> str:
    """What a reference is, in words."""
    return "the file that was given" if reference == "file" else f"the split {reference}"


def metrics(folder: Path, *, public: bool) -> list[Measured]:
    """The distances in a folder: metrics_REFERENCE.csv, or what the run itself noted where there is none."""
    found = _read(folder, "metrics", ["set"], public)
    known = {measured.reference for measured in found}
    for noted in _read(folder, "distances", ["iteration"], public):
        if noted.reference not in known:
            names = {"iteration": "set", **OLD}
            columns = [names.get(c, c) for c in noted.columns]
            rows = [{names.get(c, c): cell for c, cell in row.items()} for row in noted.rows]
            found.append(Measured(noted.reference, public, columns, rows))
    return found


def downstream(folder: Path, *, public: bool) -> list[Measured]:
    return _read(folder, "downstream", ["task", "model", "target", "trained_on"], public)


def _read(folder: Path, kind: str, needed: list[str], public: bool) -> list[Measured]:
    found = []
    for path in sorted(folder.glob(f"{kind}_*.csv")):
        frame = whole_csv(path, needed)
        reference = path.stem.removeprefix(f"{kind}_")
        found.append(Measured(reference, public, list(frame.columns), frame.to_dict("records")))
    return found


def metric_names(measured: Measured) -> list[str]:
    """The columns that hold a metric, the known ones first and in their order."""
    others = ("set", "texts", "runs", "why")
    names = [c for c in measured.columns if c not in others and not c.endswith("_std")]
    known = list(METRICS)
    return sorted(names, key=lambda name: known.index(name) if name in METRICS else len(known))


def shown(metric: str, value: float) -> str:
    return percent(value) if metric.startswith("copies_") else short(value)


def note(metric: str) -> str:
    """The direction that is better, and what is measured."""
    about = METRICS.get(metric, Metric(metric))
    return "; ".join(part for part in (f"{about.better} is better" if about.better else "", about.about) if part)


def title(metric: str) -> str:
    return METRICS.get(metric, Metric(metric)).name


def metric_charts(measured: Measured) -> str:
    """One small chart a metric, with real against real and the start to compare with."""
    figures, absent = [], []
    floor = next((row for row in measured.rows if row["set"] == "floor"), {})
    for metric in metric_names(measured):
        values = [(x, number(row[metric]), number(row.get(f"{metric}_std", ""))) for x, row in measured.steps]
        line = [(x, value) for x, value, _ in values if value is not None]
        if not line:
            absent.append(metric)
            continue
        spread = [(value - (std or 0.0), value + (std or 0.0)) for _, value, std in values if value is not None]
        real = number(floor.get(metric, ""))
        references = [charts.Reference("real", real, left=True)] if real is not None else []
        if measured.ticks[0] == (0.0, "0") and line[0][0] == 0:
            references.append(charts.Reference("start", line[0][1], "start"))
        chart = charts.lines(
            f"{title(metric)} by iteration",
            [charts.Line("synthetic", line, spread)],
            x_name="iteration",
            x_ticks=measured.ticks,
            references=references,
            shown=functools.partial(shown, metric),
        )
        figures.append(charts.figure(chart, title(metric), note(metric)))
    if not figures:
        return ""
    key = charts.legend(
        ("synthetic texts", "line0"),
        *([("real against real: as near as it gets", "floor")] if floor else []),
        *([("start: iteration 0, before any vote", "start")] if measured.ticks[0] == (0.0, "0") else []),
    )
    whys = "; ".join(dict.fromkeys(row["why"] for row in measured.rows if row.get("why")))
    absences = f"Not available: {', '.join(map(title, absent))}{f' ({whys})' if whys else ''}."
    left_out = page.paragraph(esc(absences), "note") if absent else ""
    more = page.more(f"{len(figures) - FIRST} more", charts.grid(figures[FIRST:]))
    return key + charts.grid(figures[:FIRST]) + more + left_out


def distances(found: Iterable[Measured], iterations: Sequence[int]) -> list[str]:
    """The charts of every file that has some, under its title; `iterations` are those of the run."""
    drawn = [(m, metric_charts(m)) for m in found]
    return [f"<h3>{esc(m.title)}</h3>\n{m.behind(iterations)}{charts}" for m, charts in drawn if charts]


def scores(found: Iterable[Measured], iterations: Sequence[int]) -> list[str]:
    """The charts and the table of every downstream file, under its title; `iterations` are those of the run."""
    return [
        f"<h3>{esc(m.title)}</h3>\n{m.behind(iterations)}{downstream_charts(m)}{downstream_table(m)}" for m in found
    ]


def metric_table(measured: Measured) -> str:
    """Every figure of the file, with what may be said of those that are not available."""
    names = metric_names(measured)
    first = [c for c in ("set", "texts", "runs") if c in measured.columns]
    last = ["why"] if any(row.get("why") for row in measured.rows) else []
    head = [*first, *(title(name) for name in names), *last]
    sets = {"floor": "real against real"}
    rows = [
        [sets.get(row["set"], row["set"]), *(row[c] for c in first[1:])]
        + [_with_spread(name, row[name], row.get(f"{name}_std", "")) for name in names]
        + [row[c] for c in last]
        for row in measured.rows
    ]
    marked = [i for i, row in enumerate(measured.rows) if not (row["set"].isdigit() or row["set"] in NAMED)]
    return page.table(head, rows, sortable=True, marked=marked)


def _with_spread(metric: str, cell: str, spread: str) -> str:
    value, std = number(cell), number(spread)
    if value is None:
        return cell or "n/a"
    if not std:
        return shown(metric, value)
    digits = len(shown(metric, value).partition(".")[2])
    beside = shown(metric, std) if metric.startswith("copies_") else f"{std:.{digits}f}"
    return f"{shown(metric, value)} ± {beside}"


def copies(measured: Measured) -> str:
    """What part of the last set's texts copies the reference, in sentences."""
    floor = next((row for row in measured.rows if row["set"] == "floor"), {})
    sentences = []
    for column, what in _COPIES.items():
        share = number(measured.last[0].get(column, "")) if measured.steps else None
        if share is not None:
            real = number(floor.get(column, ""))
            beside = f"; of real texts, {percent(real)} do so" if real is not None else ""
            sentences.append(f"{percent(share)} of the synthetic texts {esc(what)}{beside}.")
    return page.bullets(sentences) if sentences else ""


def downstream_charts(measured: Measured) -> str:
    """How well a model does that was trained on each iteration's texts: one small chart a model and target."""
    figures = []
    for task, model, target in dict.fromkeys((r["task"], r["model"], r["target"]) for r in measured.rows):
        rows = [r for r in measured.rows if (r["task"], r["model"], r["target"]) == (task, model, target)]
        score, better = ("perplexity", "lower") if task == "lm" else ("accuracy", "higher")
        values = {r["trained_on"]: value for r in rows if (value := number(r.get(score, ""))) is not None}
        steps = [(x, r) for x, r in replace(measured, rows=rows).steps if r["trained_on"] in values]
        if not steps:
            continue
        line = [(x, values[r["trained_on"]]) for x, r in steps]
        stds = [number(r.get(f"{score}_std", "")) or 0.0 for _, r in steps]
        spread = [(value - std, value + std) for (_, value), std in zip(line, stds, strict=True)]
        looks = {"real": "floor", "majority": "start"}
        references = [charts.Reference(n, values[n], look, left=True) for n, look in looks.items() if n in values]
        if "0" in values and not references:
            references.append(charts.Reference("start", values["0"], "start"))
        chart = charts.lines(
            f"{score} by iteration",
            [charts.Line("trained on synthetic texts", line, spread)],
            x_name="iteration",
            x_ticks=measured.ticks,
            references=references,
        )
        figures.append(
            charts.figure(chart, f"{_TASKS.get(task, task)}: {target}", f"{score}, {better} is better; {model}")
        )
    return charts.grid(figures)


def downstream_table(measured: Measured) -> str:
    """The scores of models that were trained on each set; what is no synthetic set is marked as a reference."""
    scores = [c for c in _SCORES if any(number(row.get(c, "")) is not None for row in measured.rows)]
    optional = [c for c in ("texts", "seeds", "why") if any(row.get(c) for row in measured.rows)]
    first, last = [c for c in optional if c != "why"], [c for c in optional if c == "why"]
    rows = [
        [_TASKS.get(row["task"], row["task"]), row["model"], row["target"], trained_on(row["trained_on"])]
        + [row[c] for c in first]
        + [_with_spread(c, row.get(c, ""), row.get(f"{c}_std", "")) for c in scores]
        + [row[c] for c in last]
        for row in measured.rows
    ]
    head = ["task", "model", "target", "trained on", *first, *(_SCORES[c] for c in scores), *last]
    synthetic = [row["trained_on"].isdigit() or row["trained_on"] in NAMED for row in measured.rows]
    marked = [i for i, row in enumerate(measured.rows) if not synthetic[i] or row["trained_on"] == "0"]
    return page.table(head, rows, sortable=True, marked=marked)


def trained_on(name: str) -> str:
    if name.isdigit():
        return f"synthetic, iteration {name}{' (before any vote)' if name == '0' else ''}"
    return _TRAINED_ON.get(name, name)


def figures_of(metrics: Iterable[Measured], scores: Iterable[Measured], which: str = "last") -> dict[Figure, Value]:
    """What a set of texts reached, by figure; those that matter most come first. `which`: the last set; `0`, the texts
    before any vote; or `real`, real texts in their place."""
    found: dict[Figure, Value] = {}
    main = list(METRICS)[:FIRST]
    for measured in metrics:
        for row in measured.rows_of(which):
            for metric in metric_names(measured):
                about = METRICS.get(metric, Metric(metric))
                figure = Figure(about.name, about.better, metric in main, measured.reference)
                found |= _value(figure, row, metric)
    for measured in scores:
        for row in measured.rows_of(which):
            for score, name in _SCORES.items():
                task = f"{_TASKS.get(row['task'], row['task'])} ({row['model']})"
                better = "lower" if score == "perplexity" else "higher"
                main_score = score == ("perplexity" if row["task"] == "lm" else "accuracy")
                caption = f"{name[0].upper()}{name[1:]} of {row['target']}, {task}"
                found |= _value(Figure(caption, better, main_score, measured.reference), row, score)
    return dict(sorted(found.items(), key=lambda item: not item[0].main))


def _value(figure: Figure, row: dict[str, str], column: str) -> dict[Figure, Value]:
    value = number(row.get(column, ""))
    shown = _with_spread(column, row.get(column, ""), row.get(f"{column}_std", ""))
    return {} if value is None else {figure: Value(value, shown)}
