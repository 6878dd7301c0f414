"""The table of benchmarks/quality.sh, and a picture of it: python benchmarks/quality.py results/quality

iterations.svg beside the runs shows where the iterations of plain and of corrected votes lead.
"""

import sys
from pathlib import Path

import pandas as pd

from dpsda.report import charts

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
    "example": "epsilon 4, half of the new texts by example",
    "tuned": "epsilon 4, new texts of the model tuned on kept ones",
    "composed": "epsilon 4, a generator trained under DP, and one vote",
    "paper": "epsilon 4, hubs not corrected, three iterations",
}


def main(root: Path) -> None:
    """Columns that not every run has are left out."""
    runs = {name: sorted(root.glob(f"{name}-[0-9]*/")) for name in SETTINGS}
    everything = [run for name in SETTINGS for run in runs[name]]
    rows = {
        "real texts": (everything, "floor", "real"),
        "iteration 0, no private data": (everything, "0", "0"),
        **{SETTINGS[name]: (runs[name], last(runs[name]), last(runs[name])) for name in SETTINGS if runs[name]},
    }
    metrics = [name for name in METRICS if all(name in measured(run) for run in everything)]
    print(f"| | probe | classifier | {' | '.join(METRICS[name] for name in metrics)} |\n|{'---|' * (3 + len(metrics))}")
    print(f"| majority class | {accuracy(everything, 'probe', 'majority')} | |{' |' * len(metrics)}")
    for title, (folders, which, trained_on) in rows.items():
        cells = [accuracy(folders, task, trained_on) for task in ("probe", "classify")]
        cells += [spread(float(measured(run).loc[which, name]) for run in folders) for name in metrics]
        print(f"| {title} | {' | '.join(cells)} |")
    print("\na probe on all real texts: ", end="")
    print(accuracy(everything, "probe", "real, all"))
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


def measured(run: Path) -> pd.DataFrame:
    """Of a run without noise, all lies in private/; the reference is public here."""
    path = next(path for path in (run / "metrics_test.csv", run / "private/metrics_test.csv") if path.exists())
    return pd.read_csv(path, dtype=str).set_index("set")


def trained(run: Path, task: str, trained_on: str) -> list[float]:
    table = pd.read_csv(run / "private/downstream_test.csv", dtype={"trained_on": str})
    return list(table[(table.task == task) & (table.trained_on == trained_on)]["accuracy"])


def accuracy(runs: list[Path], task: str, trained_on: str) -> str:
    return spread(value for run in runs for value in trained(run, task, trained_on))


def spread(values) -> str:
    series = pd.Series(list(values), dtype=float)
    if series.empty:
        return ""
    return f"{series.mean():.3f}" + (f" ± {series.std():.3f}" if len(series) > 1 else "")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
