"""Resample synthetic text towards the private data by one noisy histogram over clusters (Yu et al. 2024, Algorithm 2).

    python resample.py --dataset my_data --result_folder runs/mine --epsilon 5
    python resample.py --config data/rotten_tomatoes/resample.yaml --num_clusters 30 --num_samples 100 --seed 1
    python resample.py --dataset my_data --result_folder runs/new --noise 10 --synthetic_file x.csv --synthetic_public

--result_folder is the run of any other command, whose ledger goes on: --epsilon is for both together. The histogram is
drawn once; the same command with another --num_samples, --seed or --ratio_cap costs nothing.
"""

from dpsda.commands import COMMANDS

if __name__ == "__main__":
    COMMANDS["resample"].main("python resample.py", __doc__)
