"""Clipped per-sample gradients against one row at a time, by autograd alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dpsda.errors import InputError
from dpsda.finetune.classifier import Classification
from dpsda.finetune.gradients import MARGIN, GradientSums, check_per_sample, deterministic
from dpsda.finetune.options import TuningOptions
from dpsda.tuning.adapter import add_lora
from dpsda.tuning.generator import NextToken, made_up
from dpsda.tuning.tokens import Tokens, cut
from tests.finetune.tiny import SIZE, tiny


def texts(count: int, seed: int = 0, longest: int = 30) -> Tokens:
    """Random rows of 3 to `longest` tokens, the first two of them given."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest, size=count)
    ids = rng.integers(2, SIZE, size=lengths.sum()).astype(np.int32)
    return Tokens(ids, np.cumsum(lengths), np.full(count, 2), rng.integers(2, size=count), 0)


def own_loss(model, ids: torch.Tensor, given: int) -> torch.Tensor:
    """The loss of one unpadded row, written again: the mean over the tokens after the given ones."""
    logits = model(input_ids=ids[None]).logits[0, given - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, ids[given:])


def by_rows(model, tokens: Tokens, clip: float, weights) -> list[torch.Tensor]:
    """The sum of clipped gradients of `model`, which has no hooks, a row at a time."""
    trained = [p for p in model.parameters() if p.requires_grad]
    totals = [torch.zeros_like(p) for p in trained]
    for row in range(len(tokens)):
        ids = torch.from_numpy(tokens.ids[tokens.ends[row] - tokens.lengths[row] : tokens.ends[row]].astype(np.int64))
        grads = torch.autograd.grad(own_loss(model, ids, int(tokens.given[row])), trained, allow_unused=True)
        norm = torch.sqrt(sum(g.square().sum() for g in grads if g is not None))
        for total, g in zip(totals, grads, strict=True):
            if g is not None:
                total += weights[row] * min(1.0, clip * (1 - MARGIN) / float(norm)) * g
    return totals


def apart(found, wanted) -> float:
    difference = sum((a - b).square().sum() for a, b in zip(found, wanted, strict=True))
    return float((difference / sum(b.square().sum() for b in wanted)).sqrt())


def model_of(kind: str, tied: bool, full: bool):
    model = tiny(kind, tied)
    if full:
        return model
    model = add_lora(model, TuningOptions(lora_r=3))
    torch.manual_seed(1)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)  # at 0, where they start, the gradients of A are 0
    return model


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("full", [True, False])
def test_clipped_sums_are_those_of_single_rows(kind, tied, full):
    """In padded batches of mixed length, clipped and not, to 1e-5."""
    tokens = texts(13)
    reference, model = model_of(kind, tied, full).eval(), model_of(kind, tied, full)
    weights = np.linspace(0.25, 1, 13).astype(np.float32)
    for clip in (0.05, 1.5, 100.0):  # all, some and none are clipped
        wanted = by_rows(reference, tokens, clip, weights)
        sums = GradientSums(model, NextToken(model), clip)
        with deterministic(model):
            for part in cut(tokens.lengths, 4, 96):
                sums.add(tokens.batch(part), torch.from_numpy(weights[part]))
        assert apart(sums.totals, wanted) < 1e-5
        assert float(torch.sqrt(sum(t.square().sum() for t in sums.totals))) <= clip * weights.sum()
        remove_hooks(model)
    assert NextToken(model).frozen_head != full


def remove_hooks(model) -> None:
    while model.autograd_grad_sample_hooks:
        model.autograd_grad_sample_hooks.pop().remove()
    del model.autograd_grad_sample_hooks


def test_one_row_is_clipped_to_its_norm():
    """A single text alone never adds more than the clipping norm, and exactly that where it is clipped."""
    model = model_of("llama", True, False)
    sums = GradientSums(model, NextToken(model), 0.01)
    tokens = texts(6, seed=3)
    for row in range(6):
        sums.clear()
        with deterministic(model):
            sums.add(tokens.batch(np.array([row])), torch.ones(1))
        norm = float(torch.sqrt(sum(t.double().square().sum() for t in sums.totals)))
        assert 0.01 * 0.9999 < norm <= 0.01


def test_a_gradient_of_many_weights_is_clipped_to_its_norm():
    """Ten million of one size, whose norm is 0.8% too small where their squares are summed in float32."""
    model = torch.nn.Linear(10_000_000, 1, bias=False)
    sums = GradientSums(model, lambda batch: model(batch["rows"]).sum(), 1.0)
    sums.add({"rows": torch.full((1, 10_000_000), 0.1)}, torch.ones(1))
    assert 1 - 1.1 * MARGIN < float(torch.linalg.vector_norm(sums.totals[0], dtype=torch.float64)) <= 1.0


def test_a_gradient_that_is_not_finite_adds_nothing():
    model = model_of("llama", True, False)
    tokens = texts(4, seed=5)
    loss = NextToken(model)
    only = GradientSums(model, loss, 1.0)
    with deterministic(model):
        only.add(tokens.batch(np.arange(3)), torch.ones(3))
    wanted = [t.clone() for t in only.totals]
    remove_hooks(model)
    spoiled = GradientSums(model, lambda batch: loss({**batch, "weight": batch["spoil"]}), 1.0)
    with deterministic(model):
        batch = tokens.batch(np.arange(4))
        spoiled.add({**batch, "spoil": torch.tensor([1.0, 1.0, 1.0, torch.inf])}, torch.ones(4))
    assert apart(spoiled.totals, wanted) < 1e-5


@pytest.mark.parametrize("full", [True, False])
def test_classifiers_too(full, bert):
    from transformers import AutoModelForSequenceClassification

    def made():
        torch.manual_seed(2)
        model = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=2)
        return model if full else add_lora(model, TuningOptions(), task_type="SEQ_CLS")

    tokens, reference, model = texts(7), made().eval(), made()
    trained = [p for p in reference.parameters() if p.requires_grad]
    wanted = [torch.zeros_like(p) for p in trained]
    for row in range(7):
        batch = tokens.batch(np.array([row]))
        width = int(tokens.lengths[row])
        logits = reference(input_ids=batch["input_ids"][:, :width]).logits
        grads = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, batch["label"]), trained)
        norm = torch.sqrt(sum(g.square().sum() for g in grads))
        for total, g in zip(wanted, grads, strict=True):
            total += g * min(1.0, 0.3 * (1 - MARGIN) / float(norm))
    sums = GradientSums(model, Classification(model), 0.3)
    with deterministic(model):
        for part in cut(tokens.lengths, 3, 1000):
            sums.add(tokens.batch(part), torch.ones(len(part)))
    assert apart(sums.totals, wanted) < 1e-5
    check_per_sample(sums, made_up(SIZE, "cpu", 2), 1e-3)


def test_a_model_that_opacus_does_not_see_through_is_refused():
    """A weight that is used beside its module: its per-sample gradient lacks that part."""
    model = tiny("llama", tied=False)
    loss = NextToken(model)
    sums = GradientSums(model, lambda batch: loss(batch) + 5 * model.lm_head.weight.mean() * len(batch["label"]), 100.0)
    with pytest.raises(InputError, match="per-sample gradients") as error:
        check_per_sample(sums, made_up(SIZE, "cpu"), 1e-3)
    assert "\n" not in str(error.value)
    remove_hooks(model)
    check_per_sample(GradientSums(model, loss, 100.0), made_up(SIZE, "cpu"), 1e-3)


def test_no_clip_is_the_plain_gradient():
    model, reference = model_of("gpt2", True, False), model_of("gpt2", True, False).eval()
    tokens = texts(9)
    wanted = by_rows(reference, tokens, 1e9, np.ones(9))
    sums = GradientSums(model, NextToken(model), None)
    model.eval()
    for part in cut(tokens.lengths, 4, 96):
        sums.add(tokens.batch(part), torch.ones(len(part)))
    assert apart(sums.totals, wanted) < 1e-5


def test_dropout_is_off_in_evaluations_and_on_in_training():
    model = model_of("gpt2", True, False)  # its own dropout and the adapters'
    loss, batch = NextToken(model), texts(4).batch(np.arange(4))
    model.train()
    assert len({float(loss(batch)) for _ in range(4)}) > 1
    with deterministic(model):
        assert len({float(loss(batch)) for _ in range(4)}) == 1
        watched = [m for m in model.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
        assert watched and all(m.training for m in watched)
    assert all(m.training for m in model.modules())


def test_a_capped_head_takes_the_model_s_own_logits(monkeypatch):
    """A model that scales its logits: the fast loss would be another one, and is not taken."""
    model = model_of("llama", True, False)
    assert NextToken(model).frozen_head
    inner = model.get_base_model()
    plain = inner.forward

    def scaled(*args, **kwargs):
        out = plain(*args, **kwargs)
        out.logits = 30 * torch.tanh(out.logits * 2)
        return out

    monkeypatch.setattr(inner, "forward", scaled)
    assert not NextToken(model).frozen_head


def test_both_losses_agree():
    model = model_of("llama", True, False).eval()
    loss, batch = NextToken(model), texts(300, longest=12).batch(np.arange(300))  # more positions than a chunk
    fast = loss(batch)
    fast_grads = torch.autograd.grad(fast, [p for p in model.parameters() if p.requires_grad])
    loss.frozen_head = False
    slow = loss(batch)
    slow_grads = torch.autograd.grad(slow, [p for p in model.parameters() if p.requires_grad])
    assert float(fast) == pytest.approx(float(slow), rel=1e-5) and apart(fast_grads, slow_grads) < 1e-5


def test_batches_hold_everything_once_within_their_bounds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        lengths = rng.integers(1, 200, size=rng.integers(0, 60))
        parts = cut(lengths, 8, 256)
        assert sorted(int(i) for part in parts for i in part) == list(range(len(lengths)))
        for part in parts:
            width = -(-lengths[part].max() // 8) * 8
            assert len(part) <= 8 and (len(part) == 1 or len(part) * width <= 256)


def total(sums: GradientSums, tokens: Tokens, rows: np.ndarray) -> torch.Tensor:
    """The sum of the clipped gradients of these rows, as a step takes it, as one vector."""
    sums.clear()
    with deterministic(sums.model):
        for part in cut(tokens.lengths[rows], 8, 256):
            sums.add(tokens.batch(rows[part]), torch.ones(len(part)))
    return torch.cat([part.flatten().double() for part in sums.totals])


def test_a_record_moves_a_sum_by_the_clipping_norm_and_no_other_s_gradient():
    """One after the other is removed: the rest of the sum stays as it is, but for the rounding of float32, and the sum
    moves by no more than the sensitivity that the ledger has. On the embedded model, in batches of mixed length."""
    from dpsda.models import load_model

    model, _ = load_model("AutoModelForCausalLM", "embedded:smollm2-135m-instruct")
    model = add_lora(model, TuningOptions())
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    tokens, clip = texts(6, seed=7), 0.5
    sums = GradientSums(model, NextToken(model), clip)
    every = np.arange(len(tokens))
    whole = total(sums, tokens, every)
    for row in (0, 5):
        moved = whole - total(sums, tokens, np.delete(every, row))
        rest = moved - total(sums, tokens, np.array([row]))
        assert 0.999 * clip < float(moved.norm()) <= clip
        assert float(rest.norm()) < 1e-3 * clip


def test_training_under_dp_is_in_float32_whatever_the_processor_multiplies(tmp_path, monkeypatch):
    """In bfloat16 the removal of a record moves the others by percents of the clipping norm."""
    from types import SimpleNamespace

    from dpsda.routes import finetune

    asked = []
    monkeypatch.setattr(finetune, "is_bfloat16", lambda dtype, device: True)
    monkeypatch.setattr("dpsda.models.load_model", lambda *a, **more: asked.append(more["bfloat16"]) or (None, None))
    for protected in (True, False):
        folder = SimpleNamespace(protected=protected)
        finetune.Tuning(folder, None, None, TuningOptions(), None, None, 0)._load_model("AutoModelForCausalLM")
    assert asked == [False, True]


def test_a_model_in_which_samples_move_each_other_is_refused():
    model = model_of("llama", True, False)
    layer = model.get_base_model().model.layers[0]
    layer.register_forward_hook(lambda module, inputs, out: out + 0.1 * out.mean(dim=0, keepdim=True))
    with pytest.raises(InputError, match="layers that mix samples"):
        check_per_sample(GradientSums(model, NextToken(model), 0.5), made_up(SIZE, "cpu"))
