"""The mechanisms of the privacy core, attacked alone on the neighbours that are easiest to tell apart.

A mechanism is drawn from as the routes draw from it: histograms by `release`, DP-SGD by a step of the trainer of
finetune.py, answers by the projections of predict.py. One draw holds many independent attacks, as every canary has a
bin, or a direction of the gradient, of its own: half of these canaries are there. What the attacker sees is compared
with what the accountant claims for the mechanism's event, at the run's delta and at a larger one: a guarantee is a
curve, and few draws show more at a large delta.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dpsda.audit.bounds import Array, Bound, from_laws, from_scores, log_delta
from dpsda.privacy import accounting
from dpsda.privacy.accounting import Event
from dpsda.privacy.mechanism import GradientSum, Histogram, UserHistogram
from dpsda.privacy.mixture import ClippedLogits, PrivatePrediction, PublishedRenyi

if TYPE_CHECKING:
    from dpsda.finetune.gradients import Loss

FAILURE = 1e-3  # the probability that an audit of a sound mechanism raises a false alarm
DELTAS = (1e-2,)  # looked at beside the run's
BINS = 160_000  # noisy bins of an audit, a few seconds
RECORDS = 3  # of a canary, where the unit is a user
QUERIES = 512  # answers of an audit, at most: all their counts are gone through
STEPS, CANARIES = 8, 4000  # of the audit of a training
LOUD = 100.0  # the norm of a canary's gradient, in clipping norms
RARE = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)  # probabilities of a public model
SURE = 1 - 1e-12  # the probability of the token that a canary's shard is sure of


@dataclass(frozen=True)
class Finding:
    """What an attack shows beside the claim, both at `delta`."""

    mechanism: str
    delta: float
    claimed: float
    bound: Bound

    @property
    def caught(self) -> bool:
        """Whether the claim is refuted."""
        return self.bound.epsilon > self.claimed


def histogram(mechanism: Histogram, releases: int, delta: float, failure: float = FAILURE) -> list[Finding]:
    """Attack `releases` of a histogram in which a canary's record, or user, casts all of its votes."""
    draws = max(100, BINS // (4 * mechanism.votes * releases))
    there, gone = histogram_scores(mechanism, releases, draws)
    names = ("sum of the voted bins", "change of a bin that is voted for once")
    return _findings(
        mechanism, [mechanism.event] * releases, delta, lambda d, f: from_scores(there, gone, d, f, names), failure
    )


def histogram_scores(mechanism: Histogram, releases: int, draws: int) -> tuple[Array, Array]:
    """Scores of `draws` canaries that vote, and of as many that are not there: the sum of a canary's bins over all
    releases; and how much its bins of the first release are above what they are in the second, where it votes for
    others. That has no noise if the second release replays the first one's.
    """
    votes, per_user = mechanism.votes, 1
    bins = np.arange(2 * draws * 2 * votes).reshape(2 * draws, 2, votes)  # of each canary, for even and odd releases
    users = None
    if isinstance(mechanism, UserHistogram):
        per_user = RECORDS
        users = np.repeat(np.arange(draws), per_user)
    seen = []
    for release in range(releases):
        cast = np.repeat(bins[:draws, release % 2], per_user, axis=0)
        seen.append(mechanism.release(cast, users, bins.size).reshape(bins.shape).sum(axis=2))
    scores = [sum(counts[:, release % 2] for release, counts in enumerate(seen))]
    if releases > 1:
        scores.append(seen[0][:, 0] - seen[1][:, 0])
    both = np.stack(scores, axis=1).astype(np.float64)
    return both[:draws], both[draws:]


def gradients(mechanism: GradientSum, delta: float, failure: float = FAILURE) -> list[Finding]:
    """Attack the first steps of a stretch of DP-SGD in which a canary's gradient is a hundred clipping norms long."""
    steps = min(mechanism.steps, STEPS)
    stretch = type(mechanism)(mechanism.noise_multiplier, mechanism.clip_norm, mechanism.sampling_rate, steps)
    there, gone = gradient_scores(stretch, CANARIES)
    return _findings(stretch, [stretch.event], delta, lambda d, f: from_scores(there, gone, d, f), failure)


def gradient_scores(mechanism: GradientSum, canaries: int) -> tuple[Array, Array]:
    """Scores, (canaries, 1), of canaries in the corpus and of as many that are not: how far the weight that only this
    canary has a gradient of was moved. Each is a token of its own in an embedding, trained by plain gradient steps."""
    import torch

    from dpsda.finetune.gradients import GradientSums
    from dpsda.finetune.membership import Records
    from dpsda.finetune.options import TrainingOptions
    from dpsda.finetune.planning import Plan
    from dpsda.finetune.training import Trainer
    from dpsda.tuning.tokens import Tokens

    model = torch.nn.Embedding(2 * canaries, 1)
    torch.nn.init.zeros_(model.weight)
    tokens = Tokens.rows(
        [[canary] for canary in range(canaries)], [0] * canaries, np.zeros(canaries, dtype=np.int64), 0
    )
    trainer = Trainer(
        model,
        GradientSums(model, _loud(model, mechanism.clip_norm), mechanism.clip_norm),
        tokens,
        Records(canaries),
        TrainingOptions(optimizer="sgd", learning_rate=1.0, warmup_steps=0, physical_batch_size=16),
        Plan(mechanism.steps, mechanism.sampling_rate, 1, mechanism.noise_multiplier, None, None),
        "cpu",
    )
    for number in range(mechanism.steps):
        trainer.step(mechanism, number)
    moved = -model.weight.detach().double().numpy() / mechanism.clip_norm
    return moved[:canaries], moved[canaries:]


def _loud(model: Callable, clip_norm: float) -> Loss:
    def loss(batch):
        return LOUD * clip_norm * model(batch["input_ids"])[:, 0].sum()

    return loss


def answers(mechanism: PrivatePrediction, queries: int, delta: float) -> list[Finding]:
    """Attack `queries` answers over a vocabulary of three tokens: exact laws, so that there are no false alarms."""
    claimed = accounting.epsilon([mechanism.event(queries)], delta)
    one, other = max(neighbouring_laws(mechanism), key=lambda laws: log_delta(laws[0], laws[1], queries, claimed))
    return _findings(
        mechanism, [mechanism.event(queries)], delta, lambda d, _: from_laws(one, other, queries, d), FAILURE
    )


def neighbouring_laws(mechanism: PrivatePrediction) -> Iterator[tuple[Array, Array]]:
    """Laws of an answer, (3,) each, that differ in the model of one shard: it is sure of a rare token, or it is the
    public model or sure of another token; the other shards are the public model, or sure of another token. As in an
    ensemble of which one unit was added or removed."""
    for rare in RARE:
        public = np.array([rare, rare, 1 - 2 * rare])
        sure = [np.where(np.arange(3) == token, SURE, (1 - SURE) / 2) for token in range(3)]
        for others in (public, sure[1], sure[2]):
            mine = _answer(mechanism, public, sure[0], others)
            for replaced in (public, sure[1], sure[2]):
                yield mine, _answer(mechanism, public, replaced, others)


def _answer(mechanism: PrivatePrediction, public: Array, mine: Array, others: Array) -> Array:
    """The law of an answer: one shard's model is `mine`, all others are `others`."""
    import torch
    from scipy.stats import binom

    from dpsda.pmixed.answers import clipped, projected

    n = mechanism.shards
    log_public, *models = (torch.from_numpy(np.log(law))[None] for law in (public, mine, others))
    if isinstance(mechanism, ClippedLogits):
        own, other = ((law - log_public).clamp(-mechanism.clip, mechanism.clip) for law in models)
        return clipped(mechanism, own + (n - 1) * other, log_public)[0].numpy()
    if not isinstance(mechanism, PublishedRenyi):
        q, rest = (projected(mechanism, law, log_public, [])[0].numpy() for law in models)
        return (1 - mechanism.private_share) * public + mechanism.weight * (q + (n - 1) * rest)
    # its projection depends on how many shards are in the sample; each is in one of a given size alike
    sizes = binom.pmf(np.arange(n + 1), n, mechanism.inclusion)
    drawn = [size for size in range(1, n + 1) if sizes[size] > 1e-15]
    rows = len(drawn), 3
    q, rest = (projected(mechanism, law.expand(rows), log_public.expand(rows), drawn).numpy() for law in models)
    law = sizes[0] * public + sizes[drawn] @ (q + (n - 1) * rest) / n
    return law / law.sum()


def _findings(
    mechanism: Histogram | GradientSum | PrivatePrediction,
    events: Sequence[Event],
    delta: float,
    attack: Callable[[float, float], Bound],
    failure: float,
) -> list[Finding]:
    """One finding a delta; they share `failure`."""
    deltas = [delta, *(other for other in DELTAS if other > delta)]
    return [
        Finding(type(mechanism).__name__, d, accounting.epsilon(events, d), attack(d, failure / len(deltas)))
        for d in deltas
    ]
