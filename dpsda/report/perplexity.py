"""What the perplexity of private answers depends on: the ablations of Flemings et al. 2024, as charts.

    dpsda perplexity RUN [RUN ...]      RUN/private/perplexity.html in the first one: never share it

It reads the tables that `dpsda predict evaluate` left in the private/ of each run. It draws a chart for every setting
that was varied while all others stayed the same: the budget, the queries, the models, the inclusion probability, and
the order of the published projection. What is drawn is the perplexity over that of the public model on the same texts,
since tables of more queries or runs have more texts.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dpsda.arg_utils import Parser, run
from dpsda.errors import InputError
from dpsda.report import charts, page
from dpsda.runs import read_table, whole_json

SETTINGS = {
    "epsilon": "epsilon",
    "queries": "queries T",
    "shards": "models N",
    "inclusion": "inclusion probability p",
    "order": "order of the published projection",
}
SAME = ("data", "delta", "runs")  # have to be the same in a chart, and are not an axis
NUMBERS = [*SETTINGS, "delta", "runs"]
CONFIG = ("dataset", "private_share", "model_type")  # what `data` says
METHODS = {"max": "max-divergence", "renyi": "Renyi", "paper": "as published, no guarantee", "dclip": "clipped logits"}
LOOKS = {method: f"line{number}" for number, method in enumerate(METHODS)}


def read(roots: list[Path]) -> pd.DataFrame:
    """The rows of private mechanisms in all tables of these runs, with `ratio`, their perplexity over the public one's.

    Raises InputError where there is none.
    """
    found = []
    for root in roots:
        config = whole_json(root / "state" / "ensemble.json", CONFIG)
        for path in sorted((root / "private").glob("*.csv")):
            table = read_table(path)
            if not {"model", "perplexity", *NUMBERS} <= {*table.columns}:
                continue  # another table
            public = float(table.loc[table.model == "public", "perplexity"].iloc[0])
            table["method"] = table.model.str.split(" ").str[0]
            table["ratio"] = table.perplexity.astype(float) / public
            table["data"] = " ".join(str(config[key]) for key in CONFIG)
            found.append(table[table.method.isin(METHODS)])
    if not found:
        raise InputError(f"{roots[0]}: no table of `dpsda predict evaluate` is here; run it first")
    rows = pd.concat(found, ignore_index=True)
    rows[NUMBERS] = rows[NUMBERS].apply(pd.to_numeric)
    return rows


def build(rows: pd.DataFrame) -> str:
    """The page. Raises InputError where no setting was varied alone."""
    figures = [chart for setting in SETTINGS for chart in _charts(rows, setting)]
    if not figures:
        raise InputError("no setting was varied while the others stayed the same: see scripts/pmixed/ablations.sh")
    shown = [method for method in METHODS if (rows.method == method).any()]
    body = [
        page.header(
            "For the owner of the data",
            "Perplexity of private answers",
            "Each chart varies one setting. Below 1, the private texts help; the public model alone is 1.",
        ),
        page.banner("Computed from private models without noise: do not share.", "No guarantee covers a perplexity."),
        page.section(
            "Perplexity over the public model's, on the same texts",
            charts.grid(figures),
            charts.legend(*((METHODS[method], LOOKS[method]) for method in shown)),
        ),
    ]
    return page.document("Private: perplexity of private answers", body)


def _charts(rows: pd.DataFrame, setting: str) -> list[str]:
    """A chart for every combination of the other settings for which `setting` has two values or more."""
    if setting == "order":
        rows = rows[rows.method == "paper"]
    others = [name for name in (*SETTINGS, *SAME) if name not in (setting, "order")]
    # what was measured twice once; of several orders the lowest, which is what `evaluate` takes by itself
    rows = rows.sort_values("order", kind="stable").drop_duplicates(["method", setting, *others])
    found = []
    for same, group in rows.groupby(others):
        at = {value: float(place) for place, value in enumerate(sorted(group[setting].unique()))}
        if len(at) < 2:
            continue
        series = [
            charts.Line(
                METHODS[method], [(at[x], y) for x, y in zip(line[setting], line.ratio, strict=True)], look=look
            )
            for method, look in LOOKS.items()
            if len(line := group[group.method == method].sort_values(setting))
        ]
        chart = charts.lines(
            f"Perplexity by {SETTINGS[setting]}",
            series,
            x_name=SETTINGS[setting],
            x_ticks=[(place, f"{value:g}") for value, place in at.items()],
            references=[charts.Reference("public model", 1.0)],
        )
        kept = ", ".join(f"{name} {value:g}" for name, value in zip(others, same, strict=True) if name in SETTINGS)
        found.append(charts.figure(chart, f"By {SETTINGS[setting]}", kept))
    return found


def main() -> None:
    parser = Parser("dpsda perplexity", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --result_folder of an ensemble")
    roots = parser.parse_args().runs
    path = roots[0] / "private" / "perplexity.html"
    page.write(path, build(read(roots)), private=True)
    print(path)


if __name__ == "__main__":
    run(main)
