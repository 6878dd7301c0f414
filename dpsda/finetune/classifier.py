"""An encoder that learns a label column of private texts (DP-FT-Downstream of Xie et al. 2024), and its test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpsda.data import PrivateCorpus
from dpsda.errors import InputError
from dpsda.finetune.gradients import Batch
from dpsda.tuning.generator import extra_inputs
from dpsda.tuning.tokens import Tokens, cut


def target_column(corpus: PrivateCorpus, wanted: str | None) -> tuple[str, tuple[str, ...]]:
    """The label column that is predicted, and its domain."""
    labels = {label.column: label.domain for label in corpus.spec.labels}
    column = wanted or next(iter(labels), None)
    if column not in labels:
        there = f"there are: {', '.join(labels)}" if labels else "it has none"
        raise InputError(f"{corpus.spec.name} has no label column {column or ''}; {there}")
    return column, labels[column]


def classes(corpus: PrivateCorpus, column: str) -> np.ndarray:
    """(n,) the position of each record's value in the domain of `column`."""
    at = corpus.spec.label_columns.index(column)
    return np.unravel_index(corpus.cells, [len(label.domain) for label in corpus.spec.labels])[at]


def encode(texts: Sequence[str], labels: np.ndarray, tokenizer: Any, max_length: int, pad: int) -> Tokens:
    def rows(some: Sequence[str], _: np.ndarray) -> tuple[list[list[int]], list[int]]:
        ids = tokenizer(list(some), truncation=True, max_length=max_length)["input_ids"]
        return ids, [0] * len(ids)

    return Tokens.of(texts, labels, rows, pad)


class Classification:
    """Cross entropy, summed over the samples of a batch."""

    def __init__(self, model: Any) -> None:
        self.model = model
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.inputs = extra_inputs(model, inner)

    def logits(self, batch: Batch) -> Tensor:
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]} | self.inputs(batch)
        return self.model(**inputs).logits.float()

    def __call__(self, batch: Batch) -> Tensor:
        losses = nn.functional.cross_entropy(self.logits(batch), batch["label"], reduction="none")
        return (losses * batch["weight"]).sum() if "weight" in batch else losses.sum()


def predict(loss: Classification, tokens: Tokens, device: str, most_rows: int, most_tokens: int) -> np.ndarray:
    """(n,) the likeliest class of each text; dropout is off."""
    loss.model.eval()
    found = np.zeros(len(tokens), dtype=np.int64)
    with torch.inference_mode():
        for rows in cut(tokens.lengths, most_rows, most_tokens):
            batch = {name: tensor.to(device) for name, tensor in tokens.batch(rows).items()}
            found[rows] = loss.logits(batch).argmax(dim=1).cpu().numpy()
    return found
