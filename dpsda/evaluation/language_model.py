"""Fine-tuning a causal language model, and how well it predicts the next token of real text (Xie et al. 2024, 4.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from dpsda.errors import InputError
from dpsda.evaluation.results import NotAvailable
from dpsda.evaluation.training import Example, Recipe, autocast, batches, fit
from dpsda.models import load_model, most_tokens


def next_token(
    name: str,
    train: Sequence[str],
    validation: Sequence[str],
    test: Sequence[str],
    *,
    max_length: int,
    recipe: Recipe,
    seed: int,
    desc: str,
) -> tuple[float, float]:
    """(accuracy, perplexity) over all next tokens of `test` of model `name`, fine-tuned on `train`; its epoch is the
    one with the lowest perplexity on `validation`. What the tokenizer puts around a text counts as tokens, too: of
    BERT's, the closing [SEP]. Raises InputError if the model sees later tokens."""
    torch.manual_seed(seed)
    model, tokenizer = load_causal(name)
    pad = tokenizer.pad_token_id

    def examples(texts: Sequence[str]) -> list[Example]:
        rows = tokenizer(list(texts), truncation=True, max_length=most_tokens(model, max_length))["input_ids"]
        return [Example(row) for row in rows if len(row) > 1]

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        total, _, count = predicted(model, batch)
        return total / count

    def score(model: torch.nn.Module, rows: list[Example]) -> tuple[float, float]:
        total, right, count = 0.0, 0.0, 0.0
        with torch.inference_mode(), autocast(recipe):
            for batch in batches(rows, recipe.batch_size, pad):
                moved = {name: tensor.to(recipe.device) for name, tensor in batch.items()}
                sums = [float(x) for x in predicted(model, moved)]
                total, right, count = total + sums[0], right + sums[1], count + sums[2]
        return right / count, math.exp(min(total / count, 700.0))  # which a training that diverged can exceed

    trained, held, tested = examples(train), examples(validation), examples(test)
    if not (trained and held and tested):
        raise NotAvailable("no text of two tokens or more to train on, to validate or to test")
    fit(model, trained, pad, loss, lambda model: -score(model, held)[1], recipe, seed, desc)
    return score(model, tested)


def load_causal(name: str):
    """(model, tokenizer): a model that predicts each token from those before it, whatever it was trained as.

    An encoder such as BERT becomes causal by `is_decoder` in the configuration that it is built from; set afterwards,
    as the paper's code does, its attention still sees later tokens, and accuracy is inflated.
    """
    model, tokenizer = load_model("AutoModelForCausalLM", name, is_decoder=True)
    if not is_causal(model):
        raise InputError(f"{name}: this model sees later tokens, which inflates its accuracy; take a causal one")
    return model, tokenizer


def is_causal(model: Any) -> bool:
    """Whether changing later tokens leaves the logits of earlier ones as they were."""
    length, keep = 12, 8
    tokens = torch.arange(1, length + 1)[None] % model.config.vocab_size
    changed = tokens.clone()
    changed[:, keep:] = (changed[:, keep:] + 7) % model.config.vocab_size
    training = model.training
    model.eval()
    with torch.inference_mode():
        one, other = (model(input_ids=x, attention_mask=torch.ones_like(x)).logits for x in (tokens, changed))
    model.train(training)
    return bool(torch.allclose(one[:, :keep], other[:, :keep], rtol=1e-4, atol=1e-4))


def predicted(
    model: torch.nn.Module, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum of the losses in nats, number of right first guesses, and number of next tokens."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    there = batch["attention_mask"][:, 1:].bool()  # padding is neither predicted nor counted
    logits, wanted = logits[there].float(), batch["input_ids"][:, 1:][there]
    total = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
    return total, (logits.argmax(dim=1) == wanted).sum(), there.sum()
