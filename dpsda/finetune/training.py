"""The loop of DP-SGD and DP-Adam (Abadi et al. 2016; Li et al. 2022), one checkpoint at a time.

A checkpoint is a release of the ledger: its steps are charged before the first of them runs, and the steps of a process
that was killed are taken anew, with fresh batches and noise: nobody saw what came of them. Losses are never shown.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from dpsda.finetune.gradients import GradientSums
from dpsda.finetune.membership import Members
from dpsda.finetune.options import TrainingOptions
from dpsda.finetune.planning import Plan, done_steps, intervals, open_intervals
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import GradientSum
from dpsda.privacy.reservation import span
from dpsda.runs import RunFolder
from dpsda.stages import FINETUNE
from dpsda.tuning.tokens import Tokens, cut

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


@dataclass(eq=False)
class Trainer:
    """Trains the weights of `model` that require a gradient, through `sums`, which knows how."""

    model: nn.Module
    sums: GradientSums
    tokens: Tokens
    members: Members
    options: TrainingOptions
    plan: Plan
    device: str
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        make = OPTIMIZERS[self.options.optimizer]
        self.named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        self.optimizer = make(
            [p for _, p in self.named], lr=self.options.learning_rate, weight_decay=self.options.weight_decay
        )

    def run(self, folder: RunFolder, ledger: Ledger) -> None:
        """Take the steps that are still to be taken, from the last checkpoint on."""
        from tqdm import tqdm

        if self.sums.clip_norm is not None:
            # masks of dropout that a seed decides would move with who is in the batch, and be known to everybody
            torch.manual_seed(secrets.randbits(63))
        done, before = done_steps(ledger), None
        if done:
            before = next(x.name for x in intervals(ledger) if x.stop == done)
            self.load(ledger.stored(before))
        with tqdm(total=self.plan.steps, initial=done, unit="step", desc="train") as bar:
            for name, mechanism in open_intervals(ledger, self.plan, self.options):
                start, stop = span(name)
                trained = False

                def draw(mechanism: GradientSum = mechanism, start: int = start, stop: int = stop) -> bytes:
                    nonlocal trained
                    trained = True
                    for number in range(start, stop):
                        self.step(mechanism, number)
                        bar.update()
                    return self.checkpoint()

                file = folder.relative(folder.state / "checkpoints" / f"{start}-{stop}.safetensors")
                stored = ledger.release(FINETUNE, name, file, mechanism, mechanism.event, draw, continues=before)
                if not trained:  # it was stored by a process that was killed before it could say so
                    self.load(stored)
                    bar.update(stop - start)
                del stored
                ledger.drop_superseded()
                before = name

    def step(self, mechanism: GradientSum, number: int) -> None:
        """Step `number`: one noisy sum over a fresh batch, which may be empty, divided by the expected batch size.

        Privacy: see GradientSum. What the optimizer does with the result is post-processing.
        """
        self.model.train()
        self.sums.clear()
        rows, weights = self.members.draw(mechanism)
        for part in cut(self.tokens.lengths[rows], self.options.physical_batch_size, self.options.physical_tokens):
            batch = {name: tensor.to(self.device) for name, tensor in self.tokens.batch(rows[part]).items()}
            self.sums.add(batch, torch.from_numpy(weights[part]).to(self.device))
        for (_, parameter), total in zip(self.named, self.sums.totals, strict=True):
            if mechanism.noise_multiplier:
                noise = torch.from_numpy(mechanism.noise(total.numel()))
                total += noise.view(total.shape).to(total.device)
            parameter.grad = (total / self.plan.expected).to(parameter.dtype)
        warm = min(1.0, (number + 1) / max(1, self.options.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * warm
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    # checkpoints: trained weights and the optimizer's state, as named tensors

    def checkpoint(self) -> bytes:
        from safetensors.torch import save

        tensors = {}
        for name, parameter in self.named:
            tensors[f"weight/{name}"] = parameter.detach()
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if value is not None:
                    tensors[f"{key}/{name}"] = value
        return save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})

    def load(self, data: bytes) -> None:
        from safetensors.torch import load

        tensors = load(data)
        for name, parameter in self.named:
            with torch.no_grad():
                parameter.copy_(tensors.pop(f"weight/{name}"))
        places = dict(self.named)
        state: dict[nn.Parameter, dict[str, Any]] = {p: {} for p in places.values()}
        for full, tensor in tensors.items():
            key, _, name = full.partition("/")
            state[places[name]][key] = tensor if key == "step" else tensor.to(self.device)
        self.optimizer.state.update({p: values for p, values in state.items() if values})
