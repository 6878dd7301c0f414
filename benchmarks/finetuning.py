"""Fine-tuning for an evaluation: batches by length against padding every text to 512 tokens, in one run.

python benchmarks/finetuning.py [--data FILE.csv --column text --texts 256]

Training steps of a classifier on the embedded MiniLM, on Rotten Tomatoes snippets or the texts of FILE: the same loop
and the same texts, in float32 and with bfloat16 products where the processor has them.
"""

import argparse
import time

import numpy as np
import pandas as pd
from figures import record

from dpsda.data import DatasetSpec, load
from dpsda.devices import multiplies_bfloat16
from dpsda.evaluation import training
from dpsda.evaluation.training import Example, Recipe, fit
from dpsda.models import load_model


def seconds(texts: list[str], multiple: int, bfloat16: bool) -> float:
    import torch

    torch.manual_seed(0)
    model, tokenizer = load_model("AutoModelForSequenceClassification", "embedded:all-minilm-l6-v2", num_labels=2)
    rows = tokenizer(texts, truncation=True, max_length=512)["input_ids"]
    examples = [Example(row, i % 2) for i, row in enumerate(rows)]

    def loss(model, batch):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
        return torch.nn.functional.cross_entropy(logits, batch["label"])

    training.MULTIPLE = multiple
    start = time.monotonic()
    fit(
        model,
        examples,
        tokenizer.pad_token_id,
        loss,
        lambda model: 0.0,
        Recipe(1, 3e-5, 0.01, 32, "cpu", bfloat16),
        0,
        "",
    )
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data")
    parser.add_argument("--column", default="text")
    parser.add_argument("--texts", type=int, default=256)
    args = parser.parse_args()
    if args.data:
        texts = list(pd.read_csv(args.data)[args.column])
    else:
        texts = list(load(DatasetSpec.read("rotten_tomatoes"), "test").texts)
    texts = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[: args.texts]]
    words = np.array([len(text.split()) for text in texts])
    print(f"{len(texts)} texts of {np.median(words):.0f} words (median; {words.max()} at most)\n")
    print("| batches | texts/s | against 512 |\n|---|---:|---:|")
    for bfloat16 in (False, True) if multiplies_bfloat16("cpu") else (False,):
        name = "bfloat16" if bfloat16 else "float32"
        padded = len(texts[:64]) / seconds(texts[:64], 512, bfloat16)
        dynamic = len(texts) / seconds(texts, 8, bfloat16)
        print(f"| padded to 512, {name} | {padded:.1f} | |")
        print(f"| by length, {name} | {dynamic:.1f} | {dynamic / padded:.1f}x |", flush=True)
    record(f"fine-tuning of a classifier, {name}", dynamic, padded, "texts/s", "batches padded to 512")


if __name__ == "__main__":
    main()
