"""Sums of clipped per-sample gradients. opacus computes the gradient of every sample; the rest is here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dpsda.errors import InputError
from dpsda.tuning.tokens import Batch

Loss = Callable[[Batch], Tensor]  # the sum over a batch of each sample's own loss
PIECE = 1 << 16  # weights of a sample that are in float64 at a time
# What is left of the clipping norm for the arithmetic: sums are rounded, and so is a sample's gradient, in another way
# with other samples beside it. Without it, removing a record moved a sum by up to 1.000007 clipping norms.
MARGIN = 5e-5
TOLERANCE = 1e-3  # of `check_per_sample`, in float32; in bfloat16, samples move each other by more


class GradientSums:
    """Sums over batches of the gradients of `model`'s trainable weights, each sample's clipped to `clip_norm`.

    Privacy: with `clip_norm`, a sample adds a vector of L2 norm at most its weight times `clip_norm`, over all weights
    together; one whose gradient is not finite adds nothing. Without (None), nothing is bounded.
    """

    def __init__(self, model: nn.Module, loss: Loss, clip_norm: float | None) -> None:
        self.model, self.loss, self.clip_norm = model, loss, clip_norm
        self.weights: list[Any] = [p for p in model.parameters() if p.requires_grad]
        self.totals = [torch.zeros_like(p, dtype=torch.float32) for p in self.weights]
        if clip_norm is not None:
            from opacus import GradSampleModule

            parameter: Any
            for parameter in model.parameters():
                parameter.grad_sample = None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                GradSampleModule(model, loss_reduction="sum", strict=False)  # its hooks stay on the model

    def clear(self) -> None:
        for total in self.totals:
            total.zero_()

    def add(self, batch: Batch, weights: Tensor) -> None:
        """Add the samples of a batch, sample i `weights`[i] times, (B,) of at most 1."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hooks on inputs that need no gradient
            if self.clip_norm is None:
                self.loss({**batch, "weight": weights}).backward()
            else:
                self.loss(batch).backward()
        if self.clip_norm is None:
            for total, parameter in zip(self.totals, self.weights, strict=True):
                if parameter.grad is not None:
                    total += parameter.grad
        else:
            self._add_clipped(weights)
        for parameter in self.weights:
            parameter.grad = None

    def _add_clipped(self, weights: Tensor) -> None:
        assert self.clip_norm is not None
        samples = [parameter.grad_sample for parameter in self.weights]  # (B, ...), None where not part of the loss
        for parameter in self.weights:
            parameter.grad_sample = None
        norms = norms_of([sample for sample in samples if sample is not None])
        shrink = (self.clip_norm * (1 - MARGIN) / norms).clamp(max=1)
        finite = norms.isfinite()
        factors = torch.where(finite, weights * shrink.float(), 0.0)
        for total, sample in zip(self.totals, samples, strict=True):
            if sample is not None:
                if not finite.all():
                    sample = torch.where(finite.view(-1, *[1] * (sample.ndim - 1)), sample, 0.0)
                total += torch.tensordot(factors, sample.float(), dims=1)


def norms_of(samples: Sequence[Tensor]) -> Tensor:
    """(B,) float64 L2 norms over tensors of (B, ...) together. In float32 the sum of an embedding's 28 million squares
    would come out too small by 0.3%, and what is clipped by it would be longer than the bound."""
    squares = torch.zeros(len(samples[0]), dtype=torch.float64, device=samples[0].device)
    for sample in samples:
        for piece in sample.flatten(1).split(PIECE, dim=1):
            squares += torch.linalg.vector_norm(piece, dim=1, dtype=torch.float64).square()
    return squares.sqrt()


@contextmanager
def deterministic(model: nn.Module) -> Iterator[None]:
    """No dropout inside the block, though opacus still sees the modules that it watches as training."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    for module in model.modules():
        if any(p.requires_grad for p in module.parameters(recurse=False)):
            module.training = True
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was


def check_per_sample(sums: GradientSums, batch: Batch, tolerance: float = TOLERANCE) -> None:
    """Compare the clipped sum over a batch of made-up samples with one by autograd, each sample alone; InputError where
    they differ, as they do for a model whose weights meet in a way that opacus does not see, and for one in which a
    sample's gradient depends on those beside it."""
    assert sums.clip_norm is not None
    rows = len(batch["label"])
    wanted = [torch.zeros_like(total) for total in sums.totals]
    with deterministic(sums.model):
        sums.clear()
        sums.add(batch, torch.ones(rows, device=batch["label"].device))
        for row in range(rows):
            for parameter in sums.weights:
                parameter.grad_sample = None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sums.loss({name: tensor[row : row + 1] for name, tensor in batch.items()}).backward()
            grads = [torch.zeros_like(p) if p.grad is None else p.grad.float() for p in sums.weights]
            factor = (sums.clip_norm * (1 - MARGIN) / norms_of([grad[None] for grad in grads])).clamp(max=1)
            for total, grad in zip(wanted, grads, strict=True):
                total += factor.float() * grad
            for parameter in sums.weights:
                parameter.grad = parameter.grad_sample = None
    apart = torch.stack([(a - b).norm() for a, b in zip(sums.totals, wanted, strict=True)]).norm()
    size = torch.stack([b.norm() for b in wanted]).norm()
    sums.clear()
    if not apart <= tolerance * size:  # a NaN is no less wrong
        raise InputError(
            "the per-sample gradients of this model come out wrong, as with some tied weights or with layers that mix "
            "samples, so that nothing could be promised of a training; train adapters (without --full), or take "
            "another model"
        )
