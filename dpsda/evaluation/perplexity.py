"""How much texts surprise a language model that learnt from none of them.

Read it beside that of real texts: what is far below is too plain, and what is far above is odd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from dpsda.devices import multiplies_bfloat16
from dpsda.models import load_model, most_tokens
from dpsda.tuning.generator import openings

TOKENS = 512  # of a batch, whose logits over the vocabulary are there at once
LONGEST = 512  # tokens of a text; what is beyond is not read


class Perplexity:
    """A causal language model: a hub name, a folder, a GGUF file or an embedded asset. It is in bfloat16 where that is
    fast, as votes are; what it is surprised by is taken in float32."""

    def __init__(self, model: str, device: str) -> None:
        low = multiplies_bfloat16(device)
        self._model, self._tokenizer = load_model("AutoModelForCausalLM", model, bfloat16=low)
        self._model.eval().to(device)
        self._device = device
        [self._first] = openings([""], self._tokenizer)
        self._most = most_tokens(self._model, LONGEST)

    def of(self, texts: Sequence[str]) -> float:
        """exp of the mean of -log p(token | tokens before), in nats, over all tokens of all texts; each text begins as
        one from nothing. NaN where there is no token."""
        rows = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        rows = sorted(([*self._first, *row][: self._most] for row in rows if row), key=len)
        nats, tokens = 0.0, 0
        while rows:
            size = max(1, TOKENS // len(rows[-1]))
            batch, rows = rows[-size:], rows[:-size]
            nats += self._nats(batch)
            tokens += sum(len(row) - len(self._first) for row in batch)
        return math.exp(nats / tokens) if tokens else math.nan

    def _nats(self, batch: list[list[int]]) -> float:
        width, first = max(map(len, batch)), len(self._first)
        ids = torch.tensor([[*row, *[row[0]] * (width - len(row))] for row in batch], device=self._device)
        there = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=there).logits[:, first - 1 : -1]
            nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2).float(), ids[:, first:], reduction="none")
        return float((nats * there[:, first:]).sum(dtype=torch.float64))
