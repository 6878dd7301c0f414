"""DP fine-tuning: train a language model on private texts by DP-SGD or DP-Adam, and sample texts from it.

    python finetune.py --config data/rotten_tomatoes/finetune.yaml
    python finetune.py --dataset my_data --epsilon 4 --result_folder runs/tuned --dry_run
    python finetune.py --dataset my_data --epsilon 4 --histogram_noise 10 --result_folder runs/tuned
    python finetune.py --dataset my_data --dp none --result_folder runs/reference
    python finetune.py --dataset my_data --epsilon 4 --task classifier --model_type embedded:all-minilm-l6-v2 \\
        --learning_rate 5e-4 --result_folder runs/classifier

The same command continues a run that was stopped; a larger --epochs or --epsilon extends one that is complete, and a
larger --num_samples, which costs no privacy, its texts.
"""

from dpsda.commands import COMMANDS

if __name__ == "__main__":
    COMMANDS["finetune"].main("python finetune.py", __doc__)
