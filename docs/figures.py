"""The figures of README.md and docs/results.md, from the files of results beside this: python docs/figures.py

quality.csv is what benchmarks/quality.sh leaves. It becomes quality.svg, and the tables between `<!-- quality -->` and
`<!-- end -->`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from dpsda.report import charts

DOCS = Path(__file__).parent
BETTER = {
    **{"probe": "probe", "mauve": "MAUVE", "fid": "FID", "precision": "precision", "recall": "recall"},
    **{
        "nn_real": "nearest text",
        "other_mauve": "other MAUVE",
        "other_fid": "other FID",
        "other_recall": "other recall",
    },
    "other_perplexity": "perplexity",
    **{"classify": "classifier", "lm": "next token"},
}
TITLES = {
    "majority": "majority class",
    "real": "real texts",
    "start": "the first texts, no private data",
    "random": "the control: texts kept at random",
    "paper": "Aug-PE, the paper's votes, three iterations",
    "none": "the quickstart, hubs not corrected",
    "global": "the quickstart, hubs corrected by `global`",
    "centred": "the quickstart, hubs corrected by `centred`",
    "prompts": "the quickstart, labels from the prompts",
    "rewritten": "the quickstart, no text by example (`--in_context_share 0`)",
    "eps1": "the quickstart at epsilon 1",
    "eps2": "the quickstart at epsilon 2",
    "eps4": "**the quickstart**: Aug-PE, votes without hubs",
    "epsinf": "the quickstart without noise",
    "composed": "DP fine-tuning, then one vote",
}
PAGES = {  # which rows and columns the table of a page has
    "README.md": (("majority", "real", "start", "paper", "eps4", "composed"), [*BETTER][:6]),
    "docs/results.md": (tuple(TITLES), [*BETTER]),
}


def table(quality: pd.DataFrame, rows: tuple[str, ...], columns: list[str]) -> str:
    there = [column for column in columns if column in quality]
    lines = [f"| | runs | {' | '.join(BETTER[c] for c in there)} |", f"|{'---|' * (2 + len(there))}"]
    for row in (row for row in rows if row in quality.index):
        found = quality.loc[row]
        runs = "" if row in ("majority", "real") else f"{found['runs']:.0f}"
        cells = [_cell(c, found[c], found[f"{c}_std"], alone=row in ("majority", "real")) for c in there]
        lines.append(f"| {TITLES[row]} | {runs} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(column: str, mean: float, std: float, *, alone: bool) -> str:
    if mean != mean:
        return ""
    digits = 0 if column == "other_perplexity" else 1 if column == "other_fid" else 3
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std == std and not alone else "")


def picture(quality: pd.DataFrame) -> str:
    """MAUVE and recall against epsilon."""
    ticks = [(0.0, "1"), (1.0, "2"), (2.0, "4"), (3.0, "no noise")]
    asked = ("Aug-PE: a model is only asked for text", "line0", {0: "eps1", 1: "eps2", 2: "eps4", 3: "epsinf"})
    trained = ("DP fine-tuning, then one vote", "line1", {2: "composed"})
    paper = ("Aug-PE with the paper's votes", "line2", {2: "paper"})
    drawn = []
    for column, name in (
        ("mauve", "MAUVE (1: like real texts)"),
        ("recall", "recall: how much of the real texts is covered"),
    ):
        lines = []
        for title, look, at in (asked, trained, paper):
            there = {x: row for x, row in at.items() if row in quality.index}
            points = [(float(x), float(quality.loc[row, column])) for x, row in there.items()]
            around = [quality.loc[row, [column, f"{column}_std"]].fillna(0) for row in there.values()]
            spread = [(float(m - s), float(m + s)) for m, s in around]
            lines += [charts.Line(title, points, spread, look)] if points else []
        references = [
            charts.Reference("real texts", float(quality.loc["real", column])),
            charts.Reference("no private data", float(quality.loc["start", column]), "start", left=True),
        ]
        drawn.append(charts.lines(name, lines, x_name=f"epsilon: {name}", x_ticks=ticks, references=references))
    return charts.standalone(drawn, [(title, look) for title, look, _ in (asked, trained, paper)])


def pages() -> dict[Path, str]:
    """What each file has to hold."""
    quality = pd.read_csv(DOCS / "quality.csv").set_index("row")
    found = {DOCS / "quality.svg": picture(quality)}
    for page, (rows, columns) in PAGES.items():
        path = DOCS.parent / page
        made = f"<!-- quality -->\n\n{table(quality, rows, columns)}\n\n<!-- end -->"
        found[path] = re.sub(
            r"<!-- quality -->.*?<!-- end -->", lambda _, made=made: made, path.read_text(), flags=re.DOTALL
        )
    return found


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
