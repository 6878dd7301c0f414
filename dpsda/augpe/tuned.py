"""Votes as a reward: the model that writes, tuned on the texts that the votes kept, is what makes the next candidates.

Every kept text counts once. With their counts as weights a few texts would be all that is learnt, and the run collapses
(docs/results.md). The weights see no private text, but texts that noisy votes chose, so an adapter costs nothing more
than these votes, and may be shared. (POPri, ICML 2025, learns from preferences; a text that is kept is one over those
that are not.)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from apis.api import Prompt, TextAPI
from dpsda.augpe import planning
from dpsda.augpe.population import Population
from dpsda.devices import is_bfloat16, pick_device
from dpsda.errors import InputError
from dpsda.label_counts import LABEL_COUNTS
from dpsda.models import load_model, load_tokenizer, most_tokens
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder
from dpsda.stages import AUGPE
from dpsda.tuning.adapter import add_lora, check_lora, export_adapter, merge
from dpsda.tuning.generator import encode, end_token, openings
from dpsda.tuning.options import LoraOptions
from dpsda.tuning.supervised import fit

LEARNING_RATE = 5e-4
LONGEST = 512  # tokens of a text that are learnt


@dataclass(frozen=True)
class TunedModel:
    """`lora.model_type`, with an adapter for each iteration in the run's `state/tuned`; `prefixes` stand before the
    texts of each label cell, and `load` makes an engine of the folder of a model."""

    folder: RunFolder
    ledger: Ledger
    lora: LoraOptions
    device: str
    dtype: str
    epochs: int
    prefixes: list[str]
    load: Callable[[str], TextAPI]
    seed: int

    def check(self) -> None:
        """InputError for a model that could not be tuned, or not on these labels: before anything is spent."""
        check_lora(self.lora)
        tokenizer = load_tokenizer(self.lora.model_type)
        end_token(tokenizer)
        most = max(map(len, openings(self.prefixes, tokenizer)))
        if 2 * most > LONGEST:
            raise InputError(f"--new_texts tuned: the labels alone have {most} tokens; give them shorter names")

    def writer(self, t: int, kept: Population) -> TextAPI:
        """The model of iteration `t`, tuned on the texts that were kept at `t` - 1; not again, if it is there."""
        adapter = self.folder.state / "tuned" / str(t)
        if not self.ledger.holds(adapter, noted=True):
            self._train(t, kept, adapter)
        with tempfile.TemporaryDirectory(dir=self.folder.state, prefix=".tuned-", suffix=".tmp") as scratch:
            base, tokenizer = load_model("AutoModelForCausalLM", self.lora.model_type)
            merge(base, tokenizer, adapter, Path(scratch) / "model")
            return self.load(str(Path(scratch) / "model"))

    def prompt(self, cell: int, tokens: int) -> Prompt:
        """What the tuned model goes on from to write a text of a label."""
        return Prompt(self.prefixes[cell], max_new_tokens=tokens)

    def _train(self, t: int, kept: Population, adapter: Path) -> None:
        device = pick_device(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)  # the adapters' first weights
            low = is_bfloat16(self.dtype, device)
            model, tokenizer = load_model("AutoModelForCausalLM", self.lora.model_type, bfloat16=low)
            most = most_tokens(model, LONGEST)
            tuned = add_lora(model, self.lora).to(device)
        pad = tokenizer.pad_token_id
        tokens = encode(kept.texts, kept.cells, self.prefixes, tokenizer, most, pad)
        fit(
            tuned,
            tokens,
            epochs=self.epochs,
            learning_rate=LEARNING_RATE,
            device=device,
            seed=self.seed + t,
            desc=f"tune on the texts of iteration {t - 1}",
        )
        adapter.parent.mkdir(parents=True, exist_ok=True)
        export_adapter(tuned, self.lora.model_type, adapter)
        made_of = [x for x in (LABEL_COUNTS, planning.votes_name(t - 1)) if self.ledger.result(x) is not None]
        self.ledger.note(AUGPE, adapter, of=made_of)
