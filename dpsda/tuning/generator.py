"""A causal language model that learns private texts, with their labels as a control prefix, and its loss."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dpsda.data import DatasetSpec
from dpsda.errors import InputError
from dpsda.tuning.tokens import Batch, Tokens

CHUNK = 256  # positions whose logits are there at a time


def prefix(label: dict[str, str]) -> str:
    """What stands before a text of this label, {column: value}; nothing where there is none."""
    return " | ".join(f"{column}: {value}" for column, value in label.items()) + "\n\n" if label else ""


def cell_prefixes(spec: DatasetSpec, *, conditional: bool) -> list[str]:
    """The prefix of every label cell, or an empty one for each."""
    return [prefix(label if conditional else {}) for label in spec.cell_labels]


def row_prefixes(spec: DatasetSpec, cells: np.ndarray, codes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The different prefixes of texts with the label cells (n,) and the rows (n, K), and which each has, (n,)."""
    different, which = np.unique(np.column_stack([cells, codes]), axis=0, return_inverse=True)
    labels = spec.cell_labels
    rows = [{a.name: a.shown(code) for a, code in zip(spec.attributes, row, strict=True)} for row in different[:, 1:]]
    return [prefix(labels[cell] | row) for cell, row in zip(different[:, 0], rows, strict=True)], which.ravel()


def longest_prefix(spec: DatasetSpec, tokenizer: Any) -> str:
    """A prefix with the longest value of each label and attribute: of public values alone."""
    values = {label.column: list(label.domain) for label in spec.labels}
    values |= {a.name: [a.shown(code) for code in range(len(a.values))] for a in spec.attributes}
    return prefix({name: max(of, key=lambda value: len(tokenizer(value)["input_ids"])) for name, of in values.items()})


def check_room(prefixes: list[str], tokenizer: Any, max_length: int) -> None:
    """InputError for public prefixes that leave no room for a text."""
    longest = max(map(len, openings(prefixes, tokenizer)))
    if longest >= max_length:
        raise InputError(
            f"the labels and attributes alone have {longest} tokens; --max_length has to be more than that"
        )


def end_token(tokenizer: Any) -> int:
    """The end-of-text token; InputError for a tokenizer without one."""
    end: int | None = tokenizer.eos_token_id
    if end is None:
        raise InputError("this model's tokenizer has no end-of-text token, so it cannot learn where a text ends")
    return end


def openings(prefixes: list[str], tokenizer: Any) -> list[list[int]]:
    """The tokens that stand before a text of each prefix; of an empty prefix, the one that HFAPI starts with."""
    blank = [tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id]
    return [tokenizer(lead)["input_ids"] or blank for lead in prefixes]


def encode(
    texts: Sequence[str], cells: np.ndarray, prefixes: list[str], tokenizer: Any, max_length: int, pad: int
) -> Tokens:
    """Prefix, text and the end-of-text token of every text, cut to `max_length`; the prefix is given, not learned.

    A prefix is tokenised alone, as a prompt is. InputError for a tokenizer without an end token.
    """
    end, first = end_token(tokenizer), openings(prefixes, tokenizer)

    def rows(some: Sequence[str], of: np.ndarray) -> tuple[list[list[int]], list[int]]:
        learned = tokenizer(list(some), add_special_tokens=False, truncation=True, max_length=max_length)["input_ids"]
        given = [first[cell] for cell in of]
        return [[*a, *b, end][:max_length] for a, b in zip(given, learned, strict=True)], list(map(len, given))

    return Tokens.of(texts, cells, rows, pad)


class NextToken:
    """The loss of a batch: for each sample the mean over its tokens to be learned, in nats, and the sum over samples.

    Where the output head is frozen and plain, logits exist only at positions that have something to predict, a chunk at
    a time. Otherwise the model's own logits are taken, whose batch dimension opacus needs.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.trunk, self.head = self.causal.base_model, self.causal.get_output_embeddings()
        self.inputs = extra_inputs(model, self.causal)
        plain = type(self.head) is nn.Linear and self.head.bias is None
        self.frozen_head = plain and not self.head.weight.requires_grad and self._head_is_all()

    def __call__(self, batch: Batch) -> Tensor:
        wanted, ids = batch["wanted"][:, 1:], batch["input_ids"][:, 1:]  # a position predicts the next token
        share = wanted / wanted.sum(dim=1, keepdim=True).clamp(min=1)  # (B, T - 1)
        if "weight" in batch:
            share = share * batch["weight"][:, None]
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]} | self.inputs(batch)
        if self.frozen_head:
            hidden = self.trunk(**inputs, use_cache=False).last_hidden_state[:, :-1]
            return _HeadLoss.apply(hidden[wanted], self.head.weight, ids[wanted], share[wanted])
        logits = self.model(**inputs, use_cache=False).logits[:, :-1].float()
        losses = nn.functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")
        return (losses * share).sum()

    @torch.no_grad()
    def _head_is_all(self) -> bool:
        """Whether the logits are the head's product and nothing else, as a cap or a scale would be."""
        batch, training = made_up(self.causal.config.vocab_size, self.head.weight.device), self.model.training
        self.model.eval()
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        logits = self.model(**inputs).logits.float()
        own = self.head(self.trunk(**inputs).last_hidden_state).float()
        self.model.train(training)
        return bool((logits - own).norm() <= 1e-3 * logits.norm())


class _HeadLoss(torch.autograd.Function):
    """Weighted cross entropy of a frozen output head. The gradient of the hidden states is taken with the loss, while
    the logits of a chunk are there; those of all positions never are."""

    @staticmethod
    def forward(
        context: Any,
        hidden: Tensor,  # (N, D)
        weight: Tensor,  # (V, D)
        target: Tensor,  # (N,)
        share: Tensor,  # (N,)
    ) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            logits = (hidden[part] @ weight.T).float()
            logits -= logits.logsumexp(dim=-1, keepdim=True)
            at = target[part, None]
            total -= (logits.gather(1, at)[:, 0] * share[part]).sum()
            probabilities = logits.exp_()
            probabilities.scatter_add_(1, at, torch.full_like(at, -1, dtype=probabilities.dtype))
            probabilities *= share[part, None]
            gradient[part] = probabilities.to(weight.dtype) @ weight
        context.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(context: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (gradient,) = context.saved_tensors
        return gradient * upstream.to(gradient.dtype), None, None, None


def extra_inputs(model: nn.Module, inner: nn.Module):
    """A function from a batch to inputs that a model would make itself, once for all rows: the gradient of a trained
    embedding of positions or token types needs a row for each sample. Nothing for a model that trains neither."""
    trained = {
        name.rpartition(".")[2]
        for name, m in model.named_modules()
        if isinstance(m, nn.Embedding) and m.weight.requires_grad
    }
    known = inspect.signature(inner.forward).parameters
    positions = "position_ids" in known and bool(trained & {"wpe", "position_embeddings", "embed_positions"})
    kinds = "token_type_ids" in known and "token_type_embeddings" in trained
    if positions and "roberta" in str(getattr(inner.config, "model_type", "")):
        positions = False  # its positions come from the tokens, a row for each sample

    def inputs(batch: Batch) -> Batch:
        ids = batch["input_ids"]
        more = {}
        if positions:
            more["position_ids"] = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
        if kinds:
            more["token_type_ids"] = torch.zeros_like(ids)
        return more

    return inputs


def made_up(vocabulary: int, device: torch.device | str, classes: int = 1) -> Batch:
    """Three samples of 5, 9 and 12 random tokens, for checks of a model that are to see no private text."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 9, 12])
    mask = torch.arange(16) < lengths[:, None]
    batch = {
        "input_ids": torch.randint(vocabulary, mask.shape, generator=draw) * mask,
        "attention_mask": mask.long(),
        "wanted": mask & (torch.arange(16) > 0),
        "label": torch.arange(3) % classes,
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}
