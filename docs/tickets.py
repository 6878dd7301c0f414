"""The picture of own_data.md: python docs/tickets.py results/tickets > docs/tickets.svg

The tickets are made up, so that their shares may be shown. Those of a real data set are on the owner's page alone.
"""

import sys
from pathlib import Path

from dpsda.report import charts, owner, rows
from dpsda.report.finished import FinishedRun

if __name__ == "__main__":
    run = FinishedRun.read(Path(sys.argv[1]))
    print(charts.standalone([*filter(None, owner.row_bars(run))], rows.LEGEND), end="")
