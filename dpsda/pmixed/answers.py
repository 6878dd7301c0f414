"""Texts written an answer at a time: each token is one query, drawn from the mixture that its context gives.

Drawing a component first, an answer takes one shard's model and the public one, whatever the number of shards. The
public model keeps its keys and values; a shard, which is met again only after many tokens, reads the context anew.
Which component an answer came from is not stored: a block of answers is its tokens.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dpsda.pmixed import projection
from dpsda.pmixed.ensemble import LEAST, Ensemble
from dpsda.pmixed.options import AnswerOptions
from dpsda.privacy.mixture import (
    PUBLIC,
    ClippedLogits,
    MaxDivergence,
    Mixture,
    PrivatePrediction,
    PublishedRenyi,
    Renyi,
    draw,
)


@dataclass(eq=False)
class Text:
    """A text that is being written: the tokens it begins after, its own, and whether it has ended."""

    number: int
    opening: list[int]
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def context(self) -> list[int]:
        return [*self.opening, *self.tokens]


@dataclass(eq=False)
class Writer:
    """Writes `texts`, numbered from 0, with `ensemble`, `options.together` of them side by side, by answers of
    `mechanism`."""

    ensemble: Ensemble
    mechanism: PrivatePrediction
    options: AnswerOptions
    texts: Sequence[Text]

    def __post_init__(self) -> None:
        # that of clipped logits comes after the clipping, and the mechanism has it
        self.temperature = 1.0 if isinstance(self.mechanism, ClippedLogits) else self.options.temperature
        end: Any = self.ensemble.model.generation_config.eos_token_id
        self.ends = {self.ensemble.tokenizer.eos_token_id, *(end if isinstance(end, list) else [end])} - {None}

    @property
    def unfinished(self) -> int:
        """The most answers that are still to be given."""
        return sum(self.options.length - len(text.tokens) for text in self.texts if not text.ended)

    def answer(self, queries: int) -> bytes:
        """The next `queries` answers as JSON, [[text, tokens], ...]; fewer only where all texts are at their end. The
        texts are as they were: `take` gives them what is stored."""
        texts = [dataclasses.replace(text, tokens=list(text.tokens)) for text in self.texts if not text.ended]
        before = [len(text.tokens) for text in texts]
        cache = _Cache(self.ensemble)
        for step in self._steps(texts, queries):
            for text, token in zip(step, self._draw(step, cache), strict=True):
                self._append(text, token)
        new = [[text.number, text.tokens[n:]] for text, n in zip(texts, before, strict=True)]
        return json.dumps([row for row in new if row[1]]).encode()

    def take(self, stored: bytes) -> None:
        """Take the answers of a block."""
        for number, tokens in json.loads(stored):
            for token in tokens:
                self._append(self.texts[number], token)

    def _append(self, text: Text, token: int) -> None:
        text.tokens.append(token)
        text.ended = token in self.ends or len(text.tokens) == self.options.length

    def _steps(self, texts: list[Text], queries: int) -> Iterator[list[Text]]:
        """The texts that get the next token, step by step: those of a wave that have the fewest, until it has ended."""
        together = self.options.together
        for number in range(len(self.texts) // together + 1):
            own = [text for text in texts if text.number // together == number]
            while wave := [text for text in own if not text.ended]:
                fewest = min(len(text.tokens) for text in wave)
                step = [text for text in wave if len(text.tokens) == fewest][:queries]
                if not step:
                    return
                queries -= len(step)
                yield step

    def _draw(self, step: list[Text], cache: _Cache) -> list[int]:
        """One answer for each text."""
        log_public = self.ensemble.laws(cache.read(step), self.temperature)
        tokens = self._likeliest(log_public) if self.options.top_k else None
        if tokens is not None:
            log_public = tokens.of(log_public)
        if isinstance(self.mechanism, ClippedLogits):
            law = self._clipped(step, log_public, tokens)
        else:
            law = self._mixed(step, log_public, tokens)
        if tokens is None:
            return [draw(row) for row in law.cpu().numpy()]
        places = [draw(row) for row in law.masked_fill(tokens.left_out, 0).cpu().numpy()]
        return [int(tokens.chosen[i, place]) for i, place in enumerate(places)]

    def _mixed(self, step: list[Text], log_public: Tensor, tokens: _Tokens | None) -> Tensor:
        """(R, V) the law of each text's drawn component."""
        law = log_public.exp()
        components, drawn = zip(*(self._component() for _ in step), strict=True)
        own = [i for i, shard in enumerate(components) if shard != PUBLIC]
        if own:
            at = torch.tensor(own, device=law.device)
            shards = torch.tensor([components[i] for i in own], device=law.device)
            sizes = [drawn[i] for i in own]
            log_p = self._shard_laws([step[i] for i in own], shards, log_public[at], tokens and tokens.rows(at))
            law[at] = projected(self.mechanism, log_p, log_public[at], sizes)
        return law

    def _component(self) -> tuple[int, int]:
        """A shard or PUBLIC, and how many shards are in the query's sample, where the mechanism asks for that."""
        if not isinstance(self.mechanism, PublishedRenyi):
            return self.mechanism.component(), 1
        sample = self.mechanism.sample()
        if not len(sample):
            return PUBLIC, 0
        return int(secrets.choice(sample)), len(sample)

    def _clipped(self, step: list[Text], log_public: Tensor, tokens: _Tokens | None) -> Tensor:
        assert isinstance(self.mechanism, ClippedLogits)
        total = torch.zeros_like(log_public)
        for shard in range(self.mechanism.shards):
            shards = torch.full((len(step),), shard, device=log_public.device)
            log_p = self._shard_laws(step, shards, log_public, tokens)
            total += (log_p - log_public).clamp(-self.mechanism.clip, self.mechanism.clip)
        return clipped(self.mechanism, total, log_public)

    def _shard_laws(self, step: list[Text], shards: Tensor, log_public: Tensor, tokens: _Tokens | None) -> Tensor:
        ids, mask = _padded(step, self.ensemble)
        hidden = self.ensemble.hidden(ids, shards, mask, use_cache=False).last_hidden_state[:, -1]
        log_p = self.ensemble.laws(hidden, self.temperature)
        return usable(log_p if tokens is None else tokens.of(log_p), log_public)

    def _likeliest(self, log_public: Tensor) -> _Tokens:
        """The k likeliest tokens of each row; with clipped logits all within 2 C / N of the k-th, which is how far a
        shard could move one (InvisibleInk)."""
        k = min(self.options.top_k, log_public.shape[1])
        slack = 2 * self.mechanism.clip / self.mechanism.shards if isinstance(self.mechanism, ClippedLogits) else 0.0
        least = log_public.topk(k, dim=1).values[:, -1:] - slack
        most = max(k, int((log_public >= least).sum(dim=1).max()) if slack else k)
        values, chosen = log_public.topk(most, dim=1)
        return _Tokens(chosen, values < least)


@dataclass(frozen=True)
class _Tokens:
    """The tokens that are drawn from, (R, K), and which of these a row leaves out; the public laws alone decide it."""

    chosen: Tensor
    left_out: Tensor

    def rows(self, at: Tensor) -> _Tokens:
        return _Tokens(self.chosen[at], self.left_out[at])

    def of(self, laws: Tensor) -> Tensor:
        """(R, K) the log probabilities of laws (R, V), given that it is one of these tokens."""
        return laws.gather(1, self.chosen).masked_fill(self.left_out, LEAST).log_softmax(dim=-1).clamp(min=LEAST)


def usable(log_p: Tensor, log_public: Tensor) -> Tensor:
    """The shards' laws, with the public one in place of one that is no law: the model of a shard whose training went to
    infinity. No bound would hold for it, and to stop because of it would tell that it is there."""
    return torch.where(log_p.sum(dim=-1, keepdim=True).isfinite(), log_p, log_public)


def projected(mechanism: Mixture, log_p: Tensor, log_public: Tensor, drawn: Sequence[int]) -> Tensor:
    """(m, V) probabilities: each row of the shards' laws projected as `mechanism` has it. `drawn` (m) is the size of
    the query's sample, which the published projection depends on."""
    match mechanism:
        case MaxDivergence(bound=bound):
            return projection.onto_max_divergence(log_p, log_public, bound)
        case Renyi(order=order, cap=cap, bound=bound):
            return projection.mixed(log_p, log_public, projection.onto_renyi(log_p, log_public, order, cap, bound))
        case PublishedRenyi(order=order):
            betas = {size: mechanism.beta(size) for size in set(drawn)}
            bounds = torch.tensor([[betas[size] * order] for size in drawn], dtype=log_p.dtype, device=log_p.device)
            return projection.mixed(log_p, log_public, projection.onto_published(log_p, log_public, order, bounds))
        case ClippedLogits():
            raise ValueError("clipped logits are not projected")
        case _:  # a mixture without a bound
            return log_p.exp()


def clipped(mechanism: ClippedLogits, total: Tensor, log_public: Tensor) -> Tensor:
    """(m, V) the law of clipped logits, from the sum of the clipped differences of all shards."""
    return ((log_public + total / mechanism.shards) / mechanism.temperature).softmax(dim=-1)


class _Cache:
    """Keys and values of the public model for texts that are read together, for as long as they are in step."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble, self.length = ensemble, -1
        self.texts: list[Text] = []
        self.mask: Tensor | None = None
        self.past: Any = None

    def read(self, step: list[Text]) -> Tensor:
        """(R, D) the hidden state after each context."""
        if self._keep(step):
            ids = torch.tensor([[text.tokens[-1]] for text in step], device=self.ensemble.device)
            assert self.mask is not None
            self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        else:
            ids, self.mask = _padded(step, self.ensemble)
            self.past = None
        out = self.ensemble.hidden(
            ids, self.ensemble.public(len(step)), self.mask, use_cache=True, past_key_values=self.past
        )
        self.past, self.texts, self.length = out.past_key_values, list(step), len(step[0].tokens)
        return out.last_hidden_state[:, -1]

    def _keep(self, step: list[Text]) -> bool:
        """Whether what was read last is one token behind `step`; rows of texts that have ended are dropped."""
        places = {text: i for i, text in enumerate(self.texts)}
        if self.past is None or len(step[0].tokens) != self.length + 1 or any(text not in places for text in step):
            return False
        if len(step) < len(self.texts):
            rows = torch.tensor([places[text] for text in step], device=self.ensemble.device)
            self.past.batch_select_indices(rows)
            assert self.mask is not None
            self.mask = self.mask[rows]
        return True


def _padded(step: list[Text], ensemble: Ensemble) -> tuple[Tensor, Tensor]:
    """(R, T) the contexts of texts, padded on the left, and the mask of what is theirs."""
    contexts = [text.context for text in step]
    width = max(map(len, contexts))
    pad = ensemble.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(c)) + c for c in contexts], device=ensemble.device)
    mask = torch.tensor([[0] * (width - len(c)) + [1] * len(c) for c in contexts], device=ensemble.device)
    return ids, mask
