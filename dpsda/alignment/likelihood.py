"""A judge whose verdict is read off the next token's probabilities: for models too small to give it in words."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dpsda.alignment.judge import QUESTION, SYSTEM, Comparison, Verdict
from dpsda.embedding import PRIVATE_BAR
from dpsda.errors import InputError
from dpsda.models import most_tokens

LETTERS = ("A", "B")
TOKENS = 2048  # of a forward pass
LEAD = "The better answer is"  # how the judge's own turn begins, so that the letter comes next


class LikelihoodJudge:
    """`model` compares answers by log p("A") - log p("B") after the question.

    A small model prefers one place far more than one answer, so that its raw verdicts would all be ties. What it says
    of the place is the same for every pair: the median over all comparisons that it is given, each in both orders, is
    taken off first (after Zhao et al. 2021, contextual calibration). `first_share` is that of the raw verdicts.
    """

    def __init__(self, model, tokenizer, max_length: int = 2048) -> None:
        self.model, self.tokenizer, self.max_length = model.eval(), tokenizer, most_tokens(model, max_length)
        self.first_share = math.nan
        # after white space, as the letter comes in a sentence; a tokenizer by whole words has no such pieces
        self.letters = [tokenizer(" " + letter, add_special_tokens=False)["input_ids"][-1] for letter in LETTERS]
        if self.letters[0] == self.letters[1]:
            raise InputError("the judge's tokenizer has no different tokens for A and B; take another --model_type")

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        odds = self.log_odds(comparisons)
        self.first_share = float((odds > 0).mean())
        signs = np.sign(odds - np.median(odds))
        return [Verdict(int(sign), float(value)) for sign, value in zip(signs, odds, strict=True)]

    def log_odds(self, comparisons: Sequence[Comparison]) -> np.ndarray:
        """(n,) log p("A") - log p("B"), before any calibration."""
        import torch
        from tqdm import tqdm

        rows = [self._tokens(comparison) for comparison in comparisons]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        odds = np.zeros(len(rows))
        pad = self.tokenizer.pad_token_id or 0
        with (
            torch.inference_mode(),
            tqdm(total=len(rows), desc="judge", bar_format=PRIVATE_BAR, delay=1, leave=False) as bar,
        ):
            while order:
                batch = order[: max(1, TOKENS // len(rows[order[0]]))]
                del order[: len(batch)]
                lengths = torch.tensor([len(rows[i]) for i in batch])
                ids = torch.full((len(batch), int(lengths.max())), pad)
                for place, i in enumerate(batch):
                    ids[place, : lengths[place]] = torch.tensor(rows[i])
                mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
                device = self.model.device
                hidden = self.model.base_model(input_ids=ids.to(device), attention_mask=mask.to(device))[0]
                last = hidden[torch.arange(len(batch)), lengths.to(device) - 1]  # (B, D): the head reads no more
                two = self.model.get_output_embeddings()(last)[:, self.letters].float()
                odds[batch] = (two[:, 0] - two[:, 1]).cpu().numpy()
                bar.update(len(batch))
        return odds

    def _tokens(self, comparison: Comparison) -> list[int]:
        """The question up to the verdict. Where it is too long, both answers are cut to one length."""
        keep = max(len(comparison.first), len(comparison.second))
        while True:
            shown = Comparison(comparison.instruction, comparison.first[:keep], comparison.second[:keep])
            ids = self._render(shown.question(QUESTION))
            if len(ids) <= self.max_length or not keep:
                return ids[-self.max_length :]
            keep = keep * 2 // 3

    def _render(self, question: str) -> list[int]:
        if not self.tokenizer.chat_template:
            return self.tokenizer(f"{question}\n{LEAD}")["input_ids"]
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return self.tokenizer(text + LEAD, add_special_tokens=False)["input_ids"]
