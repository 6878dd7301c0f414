"""The pages of a finished run, each one file that needs no network.

    python -m dpsda.report RUN                      RUN/release/report.html: share it with the data
                                                    RUN/private/report.html: for the owner, never share it
    python -m dpsda.report RUN RUN ...              those of every run, and private/comparison.html in the first one
    python -m dpsda.report RUN ... --output FILE    only a comparison on public references, which may be shared

The released page is made of what lies outside private/ alone. A run without noise protects nothing, so all its pages
are private.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from dpsda.arg_utils import Parser, run


def main() -> None:
    parser = Parser("python -m dpsda.report", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --result_folder of a finished run")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write a comparison that may be shared, and no more"
    )
    args = parser.parse_args()
    report(args.runs, args.output)


def report(roots: list[Path], output: Path | None = None) -> None:
    """Write the pages of these runs, and print where each lies."""
    from dpsda.privacy import certificate
    from dpsda.privacy.ledger import Ledger
    from dpsda.report import comparison, owner, page, released
    from dpsda.report.finished import FinishedRun

    runs = [FinishedRun.read(root) for root in roots]
    if output is not None:
        page.write(output, comparison.build(runs, public=True), private=False)
        print(output)
        return
    for finished in runs:
        folder = finished.folder
        for path, build in (
            (folder.release / certificate.PAGE, released.build),
            (folder.private / "report.html", owner.build),
        ):
            page.write(path, build(finished), private=folder.private in path.parents)
            print(path)
        # the page of the release belongs to it: the ledger notes it as it is now
        with contextlib.closing(Ledger(folder.root, protected=folder.shared == folder.root)) as ledger:
            ledger.note("report", folder.release / certificate.PAGE)
    if len(runs) > 1:
        path = runs[0].folder.private / "comparison.html"
        page.write(path, comparison.build(runs, public=False), private=True)
        print(path)


if __name__ == "__main__":
    run(main)
