"""Fine-tuning an encoder to predict a label (the classifiers of Xie et al. 2024, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from dpsda.evaluation.training import Example, Recipe, autocast, batches, fit
from dpsda.models import load_model, most_tokens


def classify(
    name: str,
    train: tuple[Sequence[str], np.ndarray],  # texts, and their classes (N,) as numbers from 0
    validation: tuple[Sequence[str], np.ndarray],
    test: Sequence[str],
    *,
    classes: int,
    max_length: int,
    recipe: Recipe,
    seed: int,
    desc: str,
) -> np.ndarray:
    """The classes (M,) that model `name`, fine-tuned on `train`, gives `test`; its epoch is the one with the highest
    accuracy on `validation`."""
    torch.manual_seed(seed)
    model, tokenizer = load_model("AutoModelForSequenceClassification", name, num_labels=classes)
    pad = tokenizer.pad_token_id

    def examples(texts: Sequence[str], labels: np.ndarray) -> list[Example]:
        rows = tokenizer(list(texts), truncation=True, max_length=most_tokens(model, max_length))["input_ids"]
        return [Example(row, int(label)) for row, label in zip(rows, labels, strict=True)]

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(_logits(model, batch), batch["label"])

    def predict(model: torch.nn.Module, rows: list[Example]) -> np.ndarray:
        out = np.zeros(len(rows), dtype=np.int64)
        with torch.inference_mode(), autocast(recipe):
            for batch in batches(rows, recipe.batch_size, pad):
                moved = {name: tensor.to(recipe.device) for name, tensor in batch.items()}
                out[batch["row"].numpy()] = _logits(model, moved).argmax(dim=1).cpu().numpy()
        return out

    held = examples(*validation)
    fit(
        model,
        examples(*train),
        pad,
        loss,
        lambda model: float((predict(model, held) == validation[1]).mean()),
        recipe,
        seed,
        desc,
    )
    return predict(model, examples(test, np.zeros(len(test), dtype=np.int64)))


def _logits(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
