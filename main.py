"""Aug-PE: differentially private synthetic text from a language model that is only asked for text.

    python main.py --config data/rotten_tomatoes/quickstart.yaml
    python main.py --dataset my_data --epsilon 4 --result_folder runs/mine --model_type embedded:smollm2-135m-instruct
    python main.py --dataset my_data --epsilon 4 --result_folder runs/mine --dry_run
    python main.py --config data/my_data/run.yaml --engine ray --ray_workers 2
    python main.py --config data/yelp/gpt-3.5-turbo.yaml --api_base http://localhost:8000/v1 --model_type my-model

The same command continues a run that was stopped; a larger --epochs or --epsilon extends one that is complete.
"""

from dpsda.commands import COMMANDS

if __name__ == "__main__":
    COMMANDS["augpe"].main("python main.py", __doc__)
