"""How far synthetic texts are from real ones: FID, MAUVE, precision and recall, and what else the papers report.

    python metric.py --result_folder results/quickstart
    python metric.py --result_folder results/quickstart --reference_split test
    python metric.py --config data/yelp/metric.yaml --synthetic_iteration 10

Every table has two rows to read the others by: the floor, real texts against other real texts, and iteration 0, which
never saw private data. Figures on a private reference go to RUN/private and are not printed; the same command, stopped
or repeated, computes no row twice.
"""

from dpsda.commands import COMMANDS

if __name__ == "__main__":
    COMMANDS["metric"].main("python metric.py", __doc__)
