"""Attack what a run released: a lower bound on the epsilon that it really has, beside the one that it claims.

    python audit.py mechanism  --result_folder RUN
    python audit.py plant      --dataset rotten_tomatoes --output AUDIT --canaries 1000
    python main.py --config data/rotten_tomatoes/quickstart.yaml --train_data_file AUDIT/private/corpus.parquet \\
        --result_folder RUN
    python audit.py score      --result_folder RUN --planted AUDIT --log_private
    python audit.py membership --result_folder RUN --log_private

`mechanism` draws from the mechanisms of a run's ledger alone, on neighbours that are easy to tell apart. `plant` puts
made-up records into a private corpus, each by the toss of a coin; any route can be run on that, with users too, and
`score` guesses them from what it released. `membership` needs none: it tells the private records of any run from those
of another split, by the synthetic texts and by what the generator knew before. `python audit.py STEP --help` has the
options of a step. Exit code 3 says that a claim is refuted, of `score` only with --log_private.
"""

from dpsda.commands import COMMANDS

if __name__ == "__main__":
    COMMANDS["audit"].main("python audit.py", __doc__)
