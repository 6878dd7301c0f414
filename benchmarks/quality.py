"""The table of benchmarks/quality.sh, and a picture of it: python benchmarks/quality.py results/quality

iterations.svg beside the runs shows where the iterations of plain and of corrected votes lead. quality.csv has the
table: a row a setting, with how many runs it is of, and the mean and deviation of each figure. What stands in the docs
is made of that by docs/figures.py.
"""

import sys
from pathlib import Path

import pandas as pd

from dpsda.report import charts

TITLES = {"majority": "majority class", "real": "real texts", "start": "iteration 0, no private data"}
METRICS = {
    **{"mauve": "MAUVE", "fid": "FID", "precision": "precision", "recall": "recall", "nn_real": "nearest text"},
    **{"other_mauve": "MAUVE, other encoder", "other_fid": "FID, other", "other_recall": "recall, other"},
    "other_perplexity": "perplexity",
}
SETTINGS = {
    "random": "random selection",
    **{f"eps{e}": f"Aug-PE, epsilon {e}" for e in ("1", "2", "4", "inf")},
    "none": "epsilon 4, hubs not corrected",
    "prompts": "epsilon 4, labels from the prompts",
    "global": "epsilon 4, hubs corrected by `global`",
    "centred": "epsilon 4, hubs corrected by `centred`",
    "rewritten": "epsilon 4, all new texts by rewriting",
    "composed": "epsilon 4, a generator trained under DP, and one vote",
    "paper": "epsilon 4, hubs not corrected, three iterations",
}
TITLES |= SETTINGS


def main(root: Path) -> None:
    """Columns that not every run has are left out, and so are runs that are not measured yet."""
    runs = {name: [run for run in sorted(root.glob(f"{name}-[0-9]*/")) if is_measured(run)] for name in SETTINGS}
    everything = [run for name in SETTINGS for run in runs[name]]
    rows = {
        "real": (everything, "floor", "real"),
        "start": ([run for name in ("eps4", "paper") for run in runs[name]], "0", "0"),
        **{name: (runs[name], last(runs[name]), last(runs[name])) for name in SETTINGS if runs[name]},
    }
    metrics = [name for name in METRICS if all(name in measured(run) for run in everything)]
    tasks = ("probe", "classify", "lm")
    table = [
        figures("majority", everything, {"probe": [v for run in everything for v in trained(run, "probe", "majority")]})
    ]
    for name, (folders, which, trained_on) in rows.items():
        found = {task: [value for run in folders for value in trained(run, task, trained_on)] for task in tasks}
        found |= {metric: [float(measured(run).loc[which, metric]) for run in folders] for metric in metrics}
        table.append(figures(name, folders, found))
    pd.DataFrame(table).to_csv(root / "quality.csv", index=False)
    shown_metrics = ["probe", "classify", *metrics]
    print(
        f"| | runs | {' | '.join({'probe': 'probe', 'classify': 'classifier', **METRICS}[m] for m in shown_metrics)} |"
    )
    print(f"|{'---|' * (2 + len(shown_metrics))}")
    for row in table:
        cells = [spread(row.get(m), row.get(f"{m}_std")) for m in shown_metrics]
        print(f"| {TITLES.get(row['row'], row['row'])} | {row['runs']} | {' | '.join(cells)} |")
    shown = {"paper": "votes as published", "none": "the same, two iterations", "eps4": "votes without hubs"}
    picture(root / "iterations.svg", {shown[name]: runs[name] for name in shown if runs.get(name)})


def picture(path: Path, runs: dict[str, list[Path]]) -> None:
    """Nearest text against recall, iteration by iteration, the mean of the runs of each setting."""
    series = []
    for look, (name, folders) in enumerate(runs.items()):
        tables = [measured(run).filter(regex=r"^\d+$", axis=0)[["recall", "nn_real"]].astype(float) for run in folders]
        mean = sum(tables) / len(tables)
        points = list(mean.sort_index(key=lambda index: index.astype(int)).itertuples(index=False, name=None))
        series.append(charts.Line(name, points, look=f"line{look}"))
    ticks = charts.number_ticks([x for line in series for x, _ in line.points])
    svg = charts.lines("Nearest text against recall", series, x_name="recall (right: more is covered)", x_ticks=ticks)
    path.write_text(charts.standalone([svg], [(line.name, line.look) for line in series]))


def last(runs: list[Path]) -> str:
    return max((step for step in measured(runs[0]).index if step.isdigit()), key=int)


def is_measured(run: Path) -> bool:
    return any(path.exists() for path in tables(run)) and (run / "private/downstream_test.csv").exists()


def tables(run: Path) -> tuple[Path, Path]:
    """Of a run without noise, all lies in private/; the reference is public here."""
    return run / "metrics_test.csv", run / "private/metrics_test.csv"


def measured(run: Path) -> pd.DataFrame:
    return pd.read_csv(next(path for path in tables(run) if path.exists()), dtype=str).set_index("set")


def trained(run: Path, task: str, trained_on: str) -> list[float]:
    table = pd.read_csv(run / "private/downstream_test.csv", dtype={"trained_on": str})
    return list(table[(table.task == task) & (table.trained_on == trained_on)]["accuracy"])


def figures(row: str, runs: list[Path], found: dict[str, list[float]]) -> dict[str, object]:
    """A row of quality.csv; without a figure that no run has."""
    series = {name: pd.Series(values, dtype=float) for name, values in found.items() if values}
    means = {name: round(values.mean(), 5) for name, values in series.items()}
    return {"row": row, "runs": len(runs), **means, **{f"{n}_std": round(v.std(), 5) for n, v in series.items()}}


def spread(mean: object, std: object) -> str:
    if mean is None:
        return ""
    return f"{mean:.3f}" + (f" ± {std:.3f}" if std == std else "")  # one run has none


if __name__ == "__main__":
    main(Path(sys.argv[1]))
