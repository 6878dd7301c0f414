"""What a model learns from synthetic texts: train on them, test on real ones.

    python downstream.py --result_folder results/quickstart
    python downstream.py --result_folder results/quickstart --task classify --synthetic_iteration last
    python downstream.py --config data/pubmed/downstream.yaml --synthetic_iteration 10

Every table has rows to read the others by: the majority class, a model trained on as many real texts, and iteration 0,
which never saw private data. What was trained on private texts, or tested on them, goes to RUN/private and is not
printed; the same command, stopped or repeated, trains no model twice.
"""

from dpsda.commands import COMMANDS

if __name__ == "__main__":
    COMMANDS["downstream"].main("python downstream.py", __doc__)
