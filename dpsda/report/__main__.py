"""The pages of a finished run, each one file that needs no network.

    dpsda report RUN [RUN ...]      RUN/release/report.html: share it with the data
                                    RUN/private/report.html: for the owner, never share it

The released page is made of what lies outside private/ alone. A run without noise protects nothing, so all its pages
are private.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from dpsda.arg_utils import Parser, run


def main() -> None:
    parser = Parser("dpsda report", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --result_folder of a finished run")
    report(parser.parse_args().runs)


def report(roots: list[Path]) -> None:
    """Write the pages of these runs, and print where each lies."""
    from dpsda.privacy import certificate
    from dpsda.privacy.ledger import Ledger
    from dpsda.report import owner, page, released
    from dpsda.report.finished import FinishedRun

    for finished in [FinishedRun.read(root) for root in roots]:
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


if __name__ == "__main__":
    run(main)
