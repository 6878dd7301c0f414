"""The models of the shards: one adapter each, trained one after the other on one resident base model.

One after the other, so that no arithmetic is shared: in a batch with other shards' blocks the rounding of a gradient
would depend on them, and a record would move the model of a shard that it is not in. Each adapter is in its folder once
it is complete; what a kill cut off is trained again from its start.
"""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dpsda.devices import is_bfloat16, pick_device
from dpsda.errors import InputError
from dpsda.models import load_model, most_tokens
from dpsda.pmixed.bank import NONE, Bank
from dpsda.pmixed.options import EnsembleOptions, HardwareOptions
from dpsda.tuning.adapter import add_lora, export_adapter
from dpsda.tuning.generator import NextToken
from dpsda.tuning.tokens import Tokens, cut

LEAST = -700.0  # of a log probability: its exponential is still a float64
MICRO_TOKENS = 2048  # computed at once, padding included


class Trainer:
    """Trains adapters of one shape on a base model, always from the same first weights."""

    def __init__(self, options: EnsembleOptions, device: HardwareOptions) -> None:
        self.options, self.device = options, pick_device(device.device)
        bfloat16 = is_bfloat16(device.dtype, self.device)
        base, self.tokenizer = load_model("AutoModelForCausalLM", options.model_type, bfloat16=bfloat16)
        self.block = most_tokens(base, options.block_length)
        # No secret, here and in `train`: what an answer costs rests on the mixture, whatever came of the training.
        torch.manual_seed(options.seed)
        self.model = add_lora(base, options).to(self.device)
        self.loss = NextToken(self.model)
        _check_head(self.loss, options.model_type)
        self.named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.first = {name: p.detach().clone() for name, p in self.named.items()}

    def train(self, tokens: Tokens, number: int, folder: Path) -> None:
        """Train shard `number`'s adapter and write it to `folder`. That of an empty shard is the public model."""
        options = self.options
        with torch.no_grad():
            for name, parameter in self.named.items():
                parameter.copy_(self.first[name])
        torch.manual_seed(options.seed * 1_000_003 + number)
        order = np.random.default_rng([options.seed, number])
        optimizer = torch.optim.AdamW(self.named.values(), lr=options.learning_rate, weight_decay=options.weight_decay)
        a_pass = -(-len(tokens) // options.batch_size)
        steps = a_pass * options.epochs
        warm = min(options.warmup_steps, steps // 10)
        self.model.train()
        for step in range(steps):
            if step % a_pass == 0:
                rows = order.permutation(len(tokens))
            at = step % a_pass * options.batch_size
            batch = rows[at : at + options.batch_size]
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * min((step + 1) / (warm + 1), (steps - step) / (steps - warm))
            for part in cut(tokens.lengths[batch], len(batch), MICRO_TOKENS):
                inputs = {name: t.to(self.device) for name, t in tokens.batch(batch[part]).items()}
                (self.loss(inputs) / len(batch)).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        export_adapter(self.model, options.model_type, folder)


class Ensemble:
    """The public model and the adapters of all shards, for next-token laws. Nothing here is protected."""

    def __init__(self, name: str, folders: list[Path], device: HardwareOptions) -> None:
        self.device = pick_device(device.device)
        bfloat16 = is_bfloat16(device.dtype, self.device)
        self.model, self.tokenizer = load_model("AutoModelForCausalLM", name, bfloat16=bfloat16)
        self.model.to(self.device).eval().requires_grad_(False)
        parts = NextToken(self.model)
        self.trunk: nn.Module = parts.trunk
        self.head: Any = parts.head
        _check_head(parts, name)
        self.takes_positions = "position_ids" in inspect.signature(self.trunk.forward).parameters
        self.shards = len(folders)
        self.bank = Bank(self.model, folders) if folders else None
        self.positions: int = getattr(self.model.config, "max_position_embeddings", None) or 2**31

    @torch.inference_mode()
    def hidden(self, ids: torch.Tensor, rows: torch.Tensor, mask: torch.Tensor | None = None, **more: Any) -> Any:
        """The trunk's output for `ids` (R, T), row r through the adapter of shard `rows`[r], or of the public model."""
        inputs: dict[str, Any] = {"input_ids": ids, **more}
        if mask is not None:
            inputs["attention_mask"] = mask
        if mask is not None and self.takes_positions:
            inputs["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with self.bank.use(rows) if self.bank else contextlib.nullcontext():
            return self.trunk(**inputs)

    @torch.inference_mode()
    def laws(self, hidden: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """(m, V) log probabilities, float64, of the next token after hidden states (m, D)."""
        return log_laws(self.head(hidden), temperature)

    def public(self, number: int) -> torch.Tensor:
        """(number,) rows of the public model."""
        return torch.full((number,), NONE, device=self.device)


def log_laws(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """(m, V) log probabilities, float64, of logits (m, V)."""
    return (logits.double() / temperature).log_softmax(dim=-1).clamp_(min=LEAST)


def _check_head(parts: NextToken, called: str) -> None:
    if not parts.frozen_head:
        raise InputError(f"{called}: its logits are more than its output head's product, which is not supported here")
