"""The table of benchmarks/quality.sh: python benchmarks/quality.py results/quality"""

import sys
from pathlib import Path

import pandas as pd

METRICS = {
    **{"mauve": "MAUVE", "fid": "FID", "precision": "precision", "recall": "recall", "nn_real": "nearest text"},
    **{"other_mauve": "MAUVE, other encoder", "other_fid": "FID, other", "other_recall": "recall, other"},
}
SETTINGS = {
    "random": "random selection",
    **{f"eps{e}": f"Aug-PE, epsilon {e}" for e in ("1", "2", "4", "inf")},
    "none": "epsilon 4, hubs not corrected",
    "global": "epsilon 4, hubs corrected by `global`",
    "centred": "epsilon 4, hubs corrected by `centred`",
    "example": "epsilon 4, half of the new texts by example",
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
