"""How much texts surprise a language model that learnt from none of them.

Read it beside that of real texts: what is far below is too plain, and what is far above is odd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from dpsda.devices import multiplies_bfloat16
from dpsda.evaluation.language_model import predicted
from dpsda.evaluation.training import Example, batches
from dpsda.models import load_model, most_tokens
from dpsda.tuning.generator import openings
from dpsda.tuning.tokens import cut

ROWS, TOKENS = 64, 512  # of a batch, whose logits over the vocabulary are there at once
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
        examples = [Example([*self._first, *row][: self._most]) for row in rows if row]
        nats, tokens = 0.0, 0
        for part in cut(np.array([len(example.tokens) for example in examples]), ROWS, TOKENS):
            [batch] = batches([examples[i] for i in part], len(part), self._tokenizer.pad_token_id)
            with torch.inference_mode():
                total, _, count = predicted(self._model, {name: x.to(self._device) for name, x in batch.items()})
            nats, tokens = nats + float(total), tokens + int(count)
        return math.exp(nats / tokens) if tokens else math.nan
