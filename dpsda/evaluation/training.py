"""Fine-tuning a small transformer for an evaluation: the loop, and the batches that keep it from computing padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dpsda.embedding import PRIVATE_BAR

WARMUP = 0.06  # the share of steps in which the learning rate rises
POOL = 64  # batches whose rows are sorted by length together
MULTIPLE = 8  # tokens of a batch are rounded up to this


@dataclass(frozen=True)
class Recipe:
    """How long, how fast and where."""

    epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    device: str
    bfloat16: bool
    private: bool = False  # how many texts there are is not shown


@dataclass(frozen=True)
class Example:
    """The tokens of a text, and its class where there is one."""

    tokens: list[int]
    label: int = 0


def batches(
    examples: Sequence[Example], size: int, pad: int, rng: np.random.Generator | None = None
) -> Iterator[dict[str, torch.Tensor]]:
    """All examples, `size` at a time: input_ids and attention_mask (n, tokens), label (n,), row (n,).

    A batch is as wide as its longest text and holds texts of about one length. With `rng` the order is random: rows are
    shuffled, sorted by length within pools of `POOL` batches, and the batches shuffled; without, they go by length.
    """
    lengths = np.array([len(example.tokens) for example in examples])
    order = np.arange(len(examples)) if rng is None else rng.permutation(len(examples))
    pool = len(examples) if rng is None else POOL * size
    order = np.concatenate(
        [part[np.argsort(lengths[part], kind="stable")] for part in np.split(order, range(pool, len(order), pool))]
    )
    starts = np.arange(0, len(order), size)
    for start in starts if rng is None else rng.permutation(starts):
        rows = order[start : start + size]
        width = -(-lengths[rows].max() // MULTIPLE) * MULTIPLE
        ids, mask = np.full((len(rows), width), pad), np.zeros((len(rows), width), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : lengths[row]], mask[i, : lengths[row]] = examples[row].tokens, 1
        arrays = {"input_ids": ids, "attention_mask": mask, "row": rows}
        arrays["label"] = np.array([examples[row].label for row in rows])
        yield {name: torch.from_numpy(array) for name, array in arrays.items()}


def fit(
    model: torch.nn.Module,
    examples: Sequence[Example],
    pad: int,
    loss: Callable[[torch.nn.Module, dict[str, torch.Tensor]], torch.Tensor],
    score: Callable[[torch.nn.Module], float],
    recipe: Recipe,
    seed: int,
    desc: str,
) -> None:
    """Train `model` on `examples`, and leave it as it was after the epoch with the highest `score`, which is to come
    from validation texts. AdamW; the learning rate rises over the first steps and falls to 0 along a line."""
    from tqdm import tqdm

    model.to(recipe.device)
    rng = np.random.default_rng(seed)
    steps = recipe.epochs * -(-len(examples) // recipe.batch_size)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    other = [p for p in model.parameters() if p.ndim <= 1]  # biases and norms
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": other, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    warm = max(1, int(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(steps - warm, 1))
    )
    best, kept = -np.inf, None
    layout = PRIVATE_BAR if recipe.private else None
    total = recipe.epochs * len(examples)
    with tqdm(total=total, desc=desc, unit="text", bar_format=layout, delay=1, leave=False) as bar:
        for _ in range(recipe.epochs):
            model.train()
            for batch in batches(examples, recipe.batch_size, pad, rng):
                with autocast(recipe):
                    value = loss(model, {name: tensor.to(recipe.device) for name, tensor in batch.items()})
                optimizer.zero_grad()
                value.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                bar.update(len(batch["row"]))
            model.eval()
            now = score(model)
            if now > best:
                best, kept = now, {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if kept is not None:
        model.load_state_dict(kept)
    model.eval()


def autocast(recipe: Recipe) -> torch.autocast:
    """bfloat16 matrix products where the hardware has them; the weights stay in float32."""
    return torch.autocast(recipe.device.split(":")[0], dtype=torch.bfloat16, enabled=recipe.bfloat16)
