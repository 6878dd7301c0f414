"""The table of benchmarks/quality.sh: python benchmarks/quality.py results/quality"""

import sys
from pathlib import Path

import pandas as pd

METRICS = {"mauve": "MAUVE", "fid": "FID", "precision": "precision", "recall": "recall", "nn_real": "nearest text"}
SETTINGS = {
    "random": "random selection",
    **{f"eps{e}": f"Aug-PE, epsilon {e}" for e in ("1", "2", "4", "inf")},
}


def main(root: Path) -> None:
    runs = {name: sorted(root.glob(f"{name}-[0-9]*/")) for name in SETTINGS}
    everything = [run for name in SETTINGS for run in runs[name]]
    last = max(int(step) for step in measured(everything[0]).index if step.isdigit())
    rows = {
        "real texts": (everything, "floor", "real"),
        "iteration 0, no private data": (everything, "0", "0"),
        **{SETTINGS[name]: (runs[name], str(last), str(last)) for name in SETTINGS},
    }
    print(f"| | probe | classifier | {' | '.join(METRICS.values())} |\n|{'---|' * (3 + len(METRICS))}")
    print(f"| majority class | {accuracy(everything, 'probe', 'majority')} | |{' |' * len(METRICS)}")
    for title, (folders, which, trained_on) in rows.items():
        cells = [accuracy(folders, task, trained_on) for task in ("probe", "classify")]
        cells += [spread(float(measured(run).loc[which, name]) for run in folders) for name in METRICS]
        print(f"| {title} | {' | '.join(cells)} |")
    print("\na probe on all real texts: ", end="")
    print(accuracy(everything, "probe", "real, all"))


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
