"""What released instructions are for: answers, fine-tuning, win rates, reinforcement learning. docs/instructions.md

    python align.py pairs   --dataset chat --split test --result_folder RUN --name held_out
    python align.py answers --config data/chat/align/answers.yaml --instructions RUN/release/synthetic.csv \\
                            --result_folder RUN --name released
    python align.py sft     --config data/chat/align/sft.yaml --pairs RUN/alignment/released/answers.csv \\
                            --result_folder RUN --name sft_resampled
    python align.py judge   --config data/chat/align/judge.yaml --answers RUN/alignment/resampled/answers.csv \\
                            --against RUN/alignment/unfiltered/answers.csv --result_folder RUN --name win_rate
    python align.py reward  --config data/chat/align/reward.yaml --verdicts RUN/alignment/preferred/verdicts.csv \\
                            --result_folder RUN --name reward
    python align.py rlhf    --config data/chat/align/rlhf.yaml --instructions RUN/release/synthetic.csv \\
                            --reward RUN/alignment/reward/adapter --result_folder RUN --name policy

`python align.py STEP --help` has the options of a step. A step that is complete is not done again, and one that was
stopped goes on with the same command. What no run with noise vouches for is taken as private: it is not sent to an API,
and what comes of it lies in RUN/private.
"""

from dpsda.commands import COMMANDS

if __name__ == "__main__":
    COMMANDS["align"].main("python align.py", __doc__)
