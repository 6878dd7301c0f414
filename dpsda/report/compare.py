"""Runs beside each other on one page: a table, and quality against epsilon. It needs no network.

dpsda compare RUN RUN ...                    private/comparison.html in the first one, for the owner: never share it
dpsda compare RUN RUN ... --output FILE      from figures on public references alone, which may be shared

What is compared is what `dpsda metric` and `dpsda downstream` measured.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from dpsda.arg_utils import Parser, run, typed
from dpsda.errors import InputError


def main() -> None:
    parser = Parser("dpsda compare", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --result_folder of a finished run")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the page that may be shared goes")
    args = parser.parse_args()
    for line in compare(args.runs, args.output):
        print(line)


def compare(roots: list[Path], output: Path | None = None) -> list[str]:
    """Write the page; where it lies, and which runs it has no figure of."""
    from dpsda.report import comparison, measurements, page
    from dpsda.report.finished import FinishedRun

    if len(roots) < 2:
        raise InputError(f"{roots[0]}: is one run; name those to compare it with, too")
    runs = [FinishedRun.read(root) for root in roots]
    path = output or runs[0].folder.private / "comparison.html"
    folders = {one.folder.root: (one.folder.shared, *([] if output else [one.folder.private])) for one in runs}
    bare = [
        str(root)
        for root, places in folders.items()
        if not any(measurements.metrics(p, public=False) or measurements.downstream(p, public=False) for p in places)
    ]
    public = "a public page needs figures against a split that spec.yaml calls public"
    told = [
        f"nothing is measured of {root}; "
        + (public if output else f"`{typed(f'metric --result_folder {shlex.quote(root)}')}` does that")
        for root in bare
    ]
    if len(bare) == len(runs):
        raise InputError("there is nothing to compare: " + ", and ".join(told))
    page.write(path, comparison.build(runs, public=output is not None), private=output is None)
    return [*told, str(path)]


if __name__ == "__main__":
    run(main)
