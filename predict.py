"""Private next-token prediction (PMixED): an ensemble of models of disjoint shards answers, a token a query.

    python predict.py train    --config data/news/ensemble.yaml --result_folder RUN
    python predict.py evaluate --result_folder RUN --epsilons 8 4 --queries 1024 --runs 8
    python predict.py generate --result_folder RUN --epsilon 8 --queries 1024
    python predict.py generate --result_folder RUN --epsilon 8 --queries 1024 --prompts public_prompts.csv

`python predict.py STEP --help` has the options of a step. Training and evaluating spend nothing, as what they leave
lies in RUN/private. generate charges each block of answers before the first of them, stops when its queries are spent,
and goes on with the same command where it was stopped.
"""

from dpsda.commands import COMMANDS

if __name__ == "__main__":
    COMMANDS["predict"].main("python predict.py", __doc__)
