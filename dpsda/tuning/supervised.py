"""Fine-tuning a generator on texts that are public, or made of what was released: without noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dpsda.tuning.generator import NextToken
from dpsda.tuning.tokens import Tokens, cut

BATCH = 32  # texts of a step
ROWS, TOKENS = 32, 2048  # computed at once
WARMUP = 0.1  # the share of steps in which the learning rate rises


def fit(model: Any, tokens: Tokens, *, epochs: int, learning_rate: float, device: str, seed: int, desc: str) -> None:
    """Train what is trainable in `model` by Adam, each text once an epoch and all alike: the loss of a text is the mean
    over its tokens."""
    from tqdm import tqdm

    loss, rng = NextToken(model), np.random.default_rng(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    steps = epochs * -(-len(tokens) // BATCH)
    rising = max(1, round(WARMUP * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / rising))
    model.train()
    with torch.random.fork_rng(), tqdm(total=steps, desc=desc, unit="step", delay=1) as bar:
        torch.manual_seed(seed)  # dropout
        for _ in range(epochs):
            order = rng.permutation(len(tokens))
            for batch in np.split(order, range(BATCH, len(order), BATCH)):
                for part in cut(tokens.lengths[batch], ROWS, TOKENS):
                    inputs = {name: x.to(device) for name, x in tokens.batch(batch[part]).items()}
                    (loss(inputs) / len(batch)).backward()
                torch.nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                bar.update()
    model.eval()
