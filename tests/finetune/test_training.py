"""The loop: its noise, its empty batches, its checkpoints."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dpsda.finetune.gradients import GradientSums
from dpsda.finetune.membership import Records
from dpsda.finetune.options import TrainingOptions
from dpsda.finetune.planning import Plan
from dpsda.finetune.training import Trainer
from dpsda.privacy.mechanism import GradientSum
from dpsda.tuning.generator import NextToken
from tests.finetune.test_gradients import model_of, texts
from tests.finetune.tiny import tiny


class Nobody(Records):
    def draw(self, mechanism):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)


class Everybody(Records):
    def draw(self, mechanism):
        return np.arange(self.units), np.ones(self.units, dtype=np.float32)


def trainer(members, model=None, expected=8, **options) -> Trainer:
    model = model or model_of("llama", True, False)
    tokens = texts(12)
    given = {"learning_rate": 0.1, "warmup_steps": 0, "clip_norm": 0.5, "batch_size": expected, **options}
    plan = Plan(10, expected / 12, expected, 1.0, None, None)
    sums = GradientSums(model, NextToken(model), given["clip_norm"])
    return Trainer(model, sums, tokens, members, TrainingOptions(**given), plan, "cpu")


def weights(made: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for _, p in made.named])


def test_noise_of_zero_gradients_has_the_scale_that_is_charged():
    """Of about 80,000 coordinates the standard deviation is within 6 standard errors of sigma C / B (one false alarm in
    10^8 runs), and so far from 2/3 and 3/2 of it; mean 0, and normal as far as the fourth moment tells."""
    made = trainer(Nobody(12), optimizer="sgd", learning_rate=1.0)
    moves = []
    while sum(map(len, moves)) < 80_000:
        before = weights(made)
        made.step(GradientSum(1.7, 0.5, 8 / 12, 1), 0)
        moves.append((weights(made) - before).double().numpy())
    drawn = np.concatenate(moves) / (1.7 * 0.5 / 8)
    error = 1 / math.sqrt(2 * len(drawn))
    assert abs(drawn.std() - 1) < 6 * error < 0.02
    assert abs(drawn.mean()) < 6 / math.sqrt(len(drawn))
    assert abs((drawn**4).mean() - 3) < 6 * math.sqrt(96 / len(drawn))
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 6 / math.sqrt(len(drawn))


def test_every_weight_gets_noise():
    model = tiny("gpt2", tied=True)
    made = trainer(Nobody(12), model=model, optimizer="sgd")
    before = {name: p.detach().clone() for name, p in made.named}
    made.step(GradientSum(1.0, 0.5, 8 / 12, 1), 0)
    assert all((p != before[name]).float().mean() > 0.99 for name, p in made.named)


def test_an_empty_batch_still_steps():
    made = trainer(Nobody(12))
    before = weights(made)
    for number in range(3):
        made.step(GradientSum(1.0, 0.5, 8 / 12, 1), number)
    assert not torch.equal(weights(made), before)
    assert {int(state["step"]) for state in made.optimizer.state.values()} == {3}


def test_the_sum_is_divided_by_the_expected_size(monkeypatch):
    """Not by the size that was drawn: 12 rows are here where 8 or 4 are expected."""
    monkeypatch.setattr(GradientSum, "noise", lambda self, size: np.zeros(size, dtype=np.float32))
    moved = []
    for expected in (8, 4):
        made = trainer(Everybody(12), expected=expected, optimizer="sgd", learning_rate=1.0)
        made.model.config.attention_dropout = 0.0
        for module in made.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        before = weights(made)
        made.step(GradientSum(1.0, 0.5, 8 / 12, 1), 0)
        moved.append(weights(made) - before)
    assert torch.allclose(2 * moved[0], moved[1], rtol=1e-3, atol=1e-7)
    assert float(moved[0].norm()) <= 12 * 0.5 / 8


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_checkpoint_holds_everything_that_goes_on(monkeypatch, optimizer):
    """Two steps, a checkpoint, another process and two more are the same as four."""
    monkeypatch.setattr(
        GradientSum, "noise", lambda self, size: np.random.default_rng(size).standard_normal(size, dtype=np.float32)
    )
    mechanism = GradientSum(1.0, 0.5, 8 / 12, 1)

    def fresh() -> Trainer:
        return trainer(Nobody(12), optimizer=optimizer, weight_decay=0.1, warmup_steps=3)

    whole, first, second = fresh(), fresh(), fresh()
    for number in range(4):
        whole.step(mechanism, number)
    for number in range(2):
        first.step(mechanism, number)
    second.load(first.checkpoint())
    for number in range(2, 4):
        second.step(mechanism, number)
    assert torch.equal(weights(second), weights(whole)) and not torch.equal(weights(first), weights(whole))
    assert second.checkpoint() == whole.checkpoint()


def test_it_learns_without_noise():
    """In the texts w(i+1) follows w(i): the loss falls far below that of a guess."""
    model = tiny("llama")
    loss = NextToken(model)
    rng = np.random.default_rng(0)
    rows = [[2 + (start + i) % 20 for i in range(8)] for start in rng.integers(20, size=60)]
    tokens = texts(60)
    tokens = type(tokens)(
        np.array(rows, dtype=np.int32).ravel(), np.arange(1, 61) * 8, np.ones(60, int), np.zeros(60, int), 0
    )
    options = TrainingOptions(learning_rate=0.02, warmup_steps=5, batch_size=30)
    made = Trainer(
        model, GradientSums(model, loss, None), tokens, Records(60), options, Plan(60, 0.5, 30, 0.0, None, None), "cpu"
    )
    for number in range(60):
        made.step(GradientSum(0.0, 0.5, 0.5, 1), number)
    model.eval()
    with torch.no_grad():
        assert float(loss(tokens.batch(np.arange(60)))) / 60 < 0.5 < math.log(20)
