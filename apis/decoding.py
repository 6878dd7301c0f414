"""The decode loop: many prompts through one causal model, in a batch that stays full.

A row is admitted when a slot is free and leaves at its stop token or its cap, so no step is spent on finished rows.
Prompts are read without the output head: all tokens but the last go through the model's trunk, and the last one is
the row's first decode step. A prefix that several prompts share is read once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AttentionInterface, Cache, DynamicCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from dpsda.errors import InputError

ATTENTION = "grouped"  # the name under which `attend` is known to transformers
PREFILL_TOKENS = 1024  # prompt tokens read in one forward pass: no slower than more, and its activations stay small
ALIGN = 16  # decoding looks at a multiple of so many columns, which vector units read faster


def attend(module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling: float, **options):
    """Attention whose key heads are shared by groups of query heads, without copies of the keys.

    On a CPU two batched products are two to three times faster than the fused kernel at these sizes.
    """
    if options.get("softcap") is not None or options.get("s_aux") is not None:
        raise InputError("this model caps its attention scores or adds sinks to them, which the engine does not do")
    if query.device.type != "cpu":
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling)
    key, value = key.contiguous(), value.contiguous()  # a product with strided keys is slower than this and the product
    batch, heads, length, size = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, size)  # (B, key heads, group * L, D)
    scores = (grouped @ key.transpose(2, 3)).mul_(scaling)  # (B, key heads, group * L, S)
    scores.view(batch, -1, length, key.shape[2]).add_(attention_mask)  # the mask is (B or 1, 1, L, S)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    out = (weights @ value).view(batch, heads, length, -1)
    return out.transpose(1, 2), None  # (B, L, heads, D)


AttentionInterface.register(ATTENTION, attend)


@dataclass(frozen=True)
class Request:
    """`ids` are the prompt's tokens, of which the first `shared` are also those of the other requests of `group`; an
    answer has at most `cap` tokens, and its draws come from the stream of randomness `draws`."""

    ids: Sequence[int]
    cap: int
    group: int = -1
    shared: int = 0
    draws: tuple[int, ...] = (0,)


class SlotCache(Cache):
    """Keys and values of the rows being decoded.

    Row i holds its tokens at columns 0, 1, ...; whatever lies right of its position is masked until overwritten. The
    tensors are as wide as what is looked at, so that a matrix product reads them as they lie. Of wider ones it would
    copy a part in every step; these are copied when the width changes, which it does every `ALIGN` steps.
    """

    def __init__(self, slots: int):
        super().__init__(layers=[])
        self.slots, self.width = slots, 0
        self.memory: list[tuple[Tensor, Tensor]] = []  # per layer, keys and values (slots, key heads, width, D)

    def reserve(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Allocate `layer` like these keys and values (B, key heads, L, D), the first time they are seen."""
        if layer == len(self.memory):
            shapes = [(self.slots, x.shape[1], self.width, x.shape[3]) for x in (keys, values)]
            self.memory.append((keys.new_zeros(shapes[0]), values.new_zeros(shapes[1])))

    def resize(self, width: int) -> None:
        """Make every row `width` columns wide; what lies left of that is kept."""
        if width != self.width:
            more = (0, 0, 0, width - self.width)  # or fewer
            for i, (keys, values) in enumerate(self.memory):
                self.memory[i] = pad(keys, more).contiguous(), pad(values, more).contiguous()
            self.width = width

    def admit(self, slots: Tensor, read: DynamicCache) -> None:
        """Take over the rows of `read` into `slots`."""
        layers: list[Any] = read.layers
        if layers:
            self.resize(max(self.width, align(read.get_seq_length())))
        for i, layer in enumerate(layers):
            self.reserve(i, layer.keys, layer.values)
            for memory, new in zip(self.memory[i], (layer.keys, layer.values), strict=True):
                memory[slots, :, : new.shape[2]] = new

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy the rows `source` over the rows `target`."""
        for pair in self.memory:
            for memory in pair:
                memory[target] = memory[source]

    def aim(self, positions: Tensor, width: int) -> None:
        """The next `update` writes row i at column positions[i] and shows `width` columns."""
        self.resize(width)
        self.rows, self.positions = torch.arange(len(positions), device=positions.device), positions

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_, **__) -> tuple[Tensor, Tensor]:
        self.reserve(layer_idx, key_states, value_states)
        for memory, new in zip(self.memory[layer_idx], (key_states, value_states), strict=True):
            memory[self.rows, :, self.positions] = new[:, :, 0]
        keys, values = self.memory[layer_idx]
        return keys[: len(self.rows)], values[: len(self.rows)]


class Sampler:
    """Draws one token per row from its logits and its own random number."""

    def __init__(self, *, temperature, top_k, top_p, repetition_penalty, do_sample):
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        self.penalty, self.do_sample = repetition_penalty, do_sample

    def distribution(self, logits: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor]:
        """Probabilities (B, k) of the k tokens that may be drawn, most likely first, and their ids (B, k).

        The k best are taken from the raw logits: a float32 softmax over the vocabulary would cost more than the rest.
        """
        if seen is not None:
            logits = logits.float()
            logits = torch.where(seen, torch.where(logits < 0, logits * self.penalty, logits / self.penalty), logits)
        size = logits.shape[-1]
        best, ids = logits.topk(min(self.top_k or size, size) if self.do_sample else 1)
        probabilities = (best.float() / self.temperature).softmax(-1)
        if self.top_p < 1:
            # the mass of all likelier tokens: 0 for the first, which is always kept
            before = probabilities.cumsum(-1) - probabilities
            probabilities = probabilities.masked_fill(before >= self.top_p, 0)
        return probabilities, ids

    def __call__(self, logits: Tensor, seen: Tensor | None, uniform: Tensor) -> Tensor:  # (B, V), .., (B,) -> (B,)
        """Tokens by the inverse of the cumulative distribution at `uniform`, which is in [0, 1)."""
        probabilities, ids = self.distribution(logits, seen)
        if not self.do_sample:
            return ids[:, 0]
        reached = probabilities.cumsum(-1, dtype=torch.float64)
        goal = (1 - uniform[:, None]) * reached[:, -1:]  # above 0: no token of probability 0 is the first to reach it
        return ids.gather(1, (reached < goal).sum(-1, keepdim=True))[:, 0]


def causal_mask(length: int, past: int, like: Tensor) -> Tensor:
    """(1, 1, length, past + length), 0 where a token may look and -inf where not."""
    mask = torch.full((length, past + length), -torch.inf, dtype=like.dtype, device=like.device)
    return mask.triu_(past + 1)[None, None]


def align(width: int) -> int:
    """`width` rounded up to a multiple of `ALIGN`."""
    return -(-width // ALIGN) * ALIGN


def _uniform(requests: Sequence[Request], width: int) -> Tensor:
    """(len(requests), width) numbers in [0, 1), each request's own at the positions that its tokens are drawn at: they
    do not depend on what else is decoded, nor on when."""
    out = np.zeros((len(requests), width))
    for row, request in zip(out, requests, strict=True):
        first = len(request.ids) - 1
        row[first : first + request.cap] = np.random.default_rng(request.draws).random(request.cap)
    return torch.from_numpy(out)


class Decoder:
    """Decodes requests with `model`, whose attention must be `ATTENTION`."""

    def __init__(self, model: PreTrainedModel, stops: set[int], sampler: Sampler):
        self.model, self.stops, self.sampler = model, stops, sampler
        self.weight = cast(Tensor, model.get_input_embeddings().weight)

    def read(self, rows: list[Sequence[int]], past: list[tuple[Tensor, Tensor]]) -> DynamicCache:
        """Keys and values of `rows` of tokens, right-padded, behind the same `past` of one row."""
        cache = DynamicCache()
        for i, (keys, values) in enumerate(past):
            cache.update(keys.expand(len(rows), -1, -1, -1), values.expand(len(rows), -1, -1, -1), i)
        start, length = cache.get_seq_length(), max(map(len, rows))
        if length:
            ids = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows], device=self.weight.device)
            self.model.base_model(
                input_ids=ids,
                position_ids=torch.arange(start, start + length, device=ids.device)[None].expand(len(rows), -1),
                attention_mask=causal_mask(length, start, self.weight),
                past_key_values=cache,
                use_cache=True,
            )
        return cache

    @torch.inference_mode()
    def run(self, requests: Sequence[Request], batch: int) -> Iterator[tuple[int, list[int]]]:
        """Yield (index of the request, its answer's tokens), in the order in which they finish.

        Group by group, so that its prompts are read together, and the widest group first, as a step is as wide as its
        widest row. In a group the longest answers come first: the short ones fill the gaps at the end.
        """
        device = self.weight.device
        widest = defaultdict[int, int](int)
        for r in requests:
            widest[r.group] = max(widest[r.group], len(r.ids) + r.cap)
        order = [(widest[r.group], r.group, r.cap, len(r.ids)) for r in requests]
        queue = sorted(range(len(requests)), key=order.__getitem__)  # taken from the end
        batch = min(batch, len(queue))
        slots = SlotCache(batch)
        tokens = torch.zeros(batch, dtype=torch.long, device=device)  # the token each slot reads next
        positions = torch.zeros(batch, dtype=torch.long, device=device)  # and where
        most = max(len(r.ids) + r.cap for r in requests)
        uniform = torch.zeros(batch, most, dtype=torch.float64, device=device)  # decides the token after each position
        seen = None
        if self.sampler.penalty != 1:
            vocabulary = self.model.get_output_embeddings().out_features
            seen = torch.zeros(batch, vocabulary, dtype=torch.bool, device=device)
        active: list[tuple[int, list[int]]] = []  # per used slot: request, answer so far

        @lru_cache(maxsize=16)
        def prefix(group: int, length: int) -> list[tuple[Tensor, Tensor]]:
            head = next(r.ids[:length] for r in requests if r.group == group)
            layers: list[Any] = self.read([head], []).layers
            return [(layer.keys, layer.values) for layer in layers]

        def admit(new: list[int]) -> None:
            """Read the prompts `new`, all of one group, into the slots after the active ones."""
            first = requests[new[0]]
            where = torch.arange(len(active), len(active) + len(new), device=device)
            past = prefix(first.group, first.shared) if first.shared else []
            slots.admit(where, self.read([requests[i].ids[first.shared : -1] for i in new], past))
            tokens[where] = torch.tensor([requests[i].ids[-1] for i in new], device=device)
            positions[where] = torch.tensor([len(requests[i].ids) - 1 for i in new], device=device)
            uniform[where] = _uniform([requests[i] for i in new], most).to(device)
            if seen is not None:
                seen[where] = False
                for slot, i in zip(where.tolist(), new, strict=True):
                    seen[slot, torch.tensor(requests[i].ids, device=device)] = True
            active.extend((i, []) for i in new)

        while queue or active:
            if queue and (not active or batch - len(active) >= max(1, batch // 8)):
                while queue and len(active) < batch:
                    new = [queue.pop()]
                    first = requests[new[0]]
                    room = min(batch - len(active), max(1, PREFILL_TOKENS // max(1, len(first.ids) - first.shared)))
                    while queue and len(new) < room and requests[queue[-1]].group == first.group:
                        new.append(queue.pop())
                    admit(new)

            n = len(active)
            width = align(max(len(requests[i].ids) + len(answer) for i, answer in active))
            slots.aim(positions[:n], width)
            mask = torch.zeros(n, 1, 1, width, dtype=self.weight.dtype, device=device)
            mask.masked_fill_((torch.arange(width, device=device) > positions[:n, None])[:, None, None], -torch.inf)
            logits = self.model(
                input_ids=tokens[:n, None],
                position_ids=positions[:n, None],
                attention_mask=mask,
                past_key_values=slots,
                use_cache=True,
            ).logits[:, -1]
            drawn = uniform[:n].gather(1, positions[:n, None])[:, 0]
            tokens[:n] = self.sampler(logits, None if seen is None else seen[:n], drawn)
            positions[:n] += 1
            if seen is not None:
                seen[:n].scatter_(1, tokens[:n, None], True)

            stay = []
            for slot, (token, (i, answer)) in enumerate(zip(tokens[:n].tolist(), active, strict=True)):
                if token not in self.stops:
                    answer.append(token)
                if token in self.stops or len(answer) == requests[i].cap:
                    yield i, answer
                else:
                    stay.append(slot)
            # the last rows move into the slots that became free, so that the active ones stay side by side
            holes = sorted(set(range(len(stay))) - set(stay))
            movers = stay[len(stay) - len(holes) :]
            if holes:
                source, target = torch.tensor(movers, device=device), torch.tensor(holes, device=device)
                slots.move(source, target)
                for state in (tokens, positions, uniform, seen):
                    if state is not None:
                        state[target] = state[source]
                for hole, slot in zip(holes, movers, strict=True):
                    active[hole] = active[slot]
            del active[len(stay) :]
