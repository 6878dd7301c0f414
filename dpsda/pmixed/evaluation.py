"""Perplexity of an ensemble's answers, and of what they are compared with, over the same texts.

The perplexity of a run is exp of the mean loss of its tokens, in nats. A token's loss is that of the law its answer is
drawn from: for the sound mechanisms the whole mixture, with no draw in between; for the published one the mean over a
sample of the shards, drawn for every token, as the paper has it. Everything here is a private figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dpsda.embedding import PRIVATE_BAR
from dpsda.errors import InputError
from dpsda.pmixed.answers import clipped, projected, usable
from dpsda.pmixed.ensemble import Ensemble, log_laws
from dpsda.privacy.mixture import ClippedLogits, Mixture, PublishedRenyi
from dpsda.tuning.tokens import Tokens

# contexts whose logits over the vocabulary are computed together, for a shard at a time, and of these the ones that are
# projected together: what a processor's cache holds. A GPU is kept busy by more.
POSITIONS, ROWS = 64, 4
GPU_POSITIONS = 256


@dataclass(frozen=True, eq=False)
class Queries:
    """Some positions of one text's block: its tokens (T,), and the run that each position after the first belongs to,
    (T - 1,), -1 where nothing is asked."""

    ids: np.ndarray
    run: np.ndarray


def ask(tokens: Tokens, queries: int, runs: int, seed: int) -> list[Queries]:
    """Blocks of test texts in an order that the seed gives; the `queries` positions of a run follow those of the run
    before it. InputError for too few."""
    order = np.random.default_rng(seed).permutation(len(tokens))
    asked, found = 0, []
    for row in order:
        ids = tokens.ids[tokens.ends[row] - tokens.lengths[row] : tokens.ends[row]].astype(np.int64)
        there = np.arange(1, len(ids)) >= tokens.given[row]
        number = asked + np.cumsum(there) - 1
        run = np.where(there & (number < runs * queries), number // queries, -1)
        found.append(Queries(ids, run))
        asked += int(there.sum())
        if asked >= runs * queries:
            return found
    raise InputError(f"--runs {runs} of --queries {queries} need more tokens than the test split has; ask for fewer")


def losses(
    ensemble: Ensemble, asked: Sequence[Queries], mechanisms: Mapping[str, Mixture | None], *, private: bool = True
) -> dict[str, np.ndarray]:
    """For each mechanism the loss, (n,), of every query in nats; None stands for the public model. Of `private` texts
    the bar has no count: how many are read follows from their lengths."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in mechanisms}
    for block in tqdm(asked, unit="text", desc="evaluate", bar_format=PRIVATE_BAR if private else None, delay=1):
        at = np.flatnonzero(block.run >= 0)
        if not len(at):
            continue
        ids = torch.from_numpy(block.ids[: at[-1] + 1]).to(ensemble.device)[None]
        truth = torch.from_numpy(block.ids[at + 1]).to(ensemble.device)
        hidden = ensemble.hidden(ids, ensemble.public(1), use_cache=False).last_hidden_state[0, at]
        draws = {
            name: _Sample(mechanism, len(at))
            for name, mechanism in mechanisms.items()
            if isinstance(mechanism, PublishedRenyi)
        }
        everywhere = any(mechanism is not None and name not in draws for name, mechanism in mechanisms.items())
        samples = None if everywhere else list(draws.values())
        shards = [_read(ensemble, ids, at, shard, samples) for shard in range(ensemble.shards)]
        positions, rows = (POSITIONS, ROWS) if ensemble.device == "cpu" else (GPU_POSITIONS, GPU_POSITIONS)
        for start in range(0, len(at), positions):
            part = slice(start, start + positions)
            chunk = _Chunk(ensemble.laws(hidden[part]), truth[part], rows)
            for name, loss in chunk.losses(ensemble, mechanisms, draws, shards, part).items():
                found[name].append(loss.cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def perplexities(losses: np.ndarray, asked: Sequence[Queries]) -> np.ndarray:
    """(runs,) exp of the mean loss of each run."""
    run = np.concatenate([block.run[block.run >= 0] for block in asked])
    return np.exp(np.bincount(run, losses) / np.bincount(run))


class _Sample:
    """For each of n queries the shards of its sample, (n, N), and how many they are, (n,)."""

    def __init__(self, mechanism: PublishedRenyi, queries: int) -> None:
        self.there = np.zeros((queries, mechanism.shards), dtype=bool)
        for row in self.there:
            row[mechanism.sample()] = True
        self.sizes = self.there.sum(axis=1)


Read = tuple[np.ndarray, Tensor] | None  # queries that a shard has a part in, (m,), and its hidden states there, (m, D)


def _read(ensemble: Ensemble, ids: Tensor, at: np.ndarray, shard: int, samples: list[_Sample] | None) -> Read:
    """With `samples`, a shard has a part where it is in one of them, and its model reads no further than that."""
    there = np.arange(len(at))
    if samples is not None:
        there = np.flatnonzero(np.any([sample.there[:, shard] for sample in samples], axis=0))
    if not len(there):
        return None
    row = torch.tensor([shard], device=ensemble.device)
    read = ids[:, : at[there[-1]] + 1]
    return there, ensemble.hidden(read, row, use_cache=False).last_hidden_state[0, at[there]]


class _Chunk:
    """Some queries of a block: the public law at each, and the token that came."""

    def __init__(self, log_public: Tensor, truth: Tensor, together: int) -> None:
        self.log_public, self.truth, self.together = log_public, truth, together
        self.public = self._of(log_public).exp()

    def _of(self, rows: Tensor, at: Tensor | slice = slice(None)) -> Tensor:
        return rows.gather(1, self.truth[at][:, None])[:, 0]

    def losses(self, ensemble, mechanisms, draws, shards, part: slice) -> dict[str, Tensor]:
        """The loss of every mechanism, (m,): shard by shard, so that the memory does not grow with their number."""
        sums = {name: torch.zeros_like(self.public) for name in mechanisms}
        logits = {
            name: torch.zeros_like(self.log_public)
            for name, mechanism in mechanisms.items()
            if isinstance(mechanism, ClippedLogits)
        }
        for number, shard in enumerate(shards):
            if shard is None:
                continue
            there = np.flatnonzero((shard[0] >= part.start) & (shard[0] < part.stop))
            own = ensemble.head(shard[1][there])
            for start in range(0, len(there), self.together):
                places = shard[0][there[start : start + self.together]] - part.start
                rows = torch.from_numpy(places)
                log_public = self.log_public[rows]
                log_p = usable(log_laws(own[start : start + self.together]), log_public)
                for name, mechanism in mechanisms.items():
                    if isinstance(mechanism, ClippedLogits):
                        logits[name][rows] += (log_p - log_public).clamp_(-mechanism.clip, mechanism.clip)
                    elif isinstance(mechanism, PublishedRenyi):
                        mine = np.flatnonzero(draws[name].there[part][places, number])
                        if len(mine):
                            at, sizes = rows[mine], draws[name].sizes[part][places[mine]]
                            near = projected(mechanism, log_p[mine], log_public[mine], sizes.tolist())
                            sums[name][at] += self._of(near, at) / torch.from_numpy(sizes).to(near)
                    elif mechanism is not None:
                        sums[name][rows] += self._of(projected(mechanism, log_p, log_public, []), rows)
        return {
            name: -self._law(mechanism, sums[name], logits.get(name), draws.get(name), part).log()
            for name, mechanism in mechanisms.items()
        }

    def _law(self, mechanism, total: Tensor, logits: Tensor | None, sample: _Sample | None, part: slice) -> Tensor:
        """The probability of the tokens that came."""
        if mechanism is None:
            return self.public
        if logits is not None:
            return self._of(clipped(mechanism, logits, self.log_public))
        if sample is not None:
            empty = torch.from_numpy(sample.sizes[part] == 0).to(total.device)
            return torch.where(empty, self.public, total)
        return (1 - mechanism.private_share) * self.public + mechanism.weight * total
