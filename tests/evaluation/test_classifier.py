"""The fine-tuned classifier, the loop and its batches, and the probe."""

import numpy as np
import pytest
import torch

from dpsda.evaluation.classifier import classify
from dpsda.evaluation.probe import probe
from dpsda.evaluation.training import Example, Recipe, batches, fit

RECIPE = Recipe(epochs=8, learning_rate=3e-3, weight_decay=0.01, batch_size=8, device="cpu", bfloat16=False)


def texts_of_classes(rng, n):
    """The class shows in one word of many."""
    labels = rng.integers(3, size=n)
    fill = [[f"w{j}" for j in rng.integers(10, 40, size=rng.integers(3, 9))] for _ in range(n)]
    return [" ".join([*words, f"w{label}"]) for words, label in zip(fill, labels, strict=True)], labels


def run(bert, recipe=RECIPE, seed=0):
    rng = np.random.default_rng(0)
    train, validation, test = (texts_of_classes(rng, n) for n in (150, 30, 60))
    found = classify(bert, train, validation, test[0], classes=3, max_length=64, recipe=recipe, seed=seed, desc="x")
    return found, test[1]


def test_it_learns_and_a_seed_repeats_it(bert):
    found, truth = run(bert)
    assert (found == truth).mean() > 0.9
    again, _ = run(bert)
    assert (found == again).all()


def test_bfloat16_learns_as_well(bert):
    found, truth = run(bert, Recipe(8, 3e-3, 0.01, 8, "cpu", True))
    assert (found == truth).mean() > 0.9


def test_batches_hold_every_row_once_and_little_padding():
    rng = np.random.default_rng(0)
    examples = [Example([7] * int(n), i) for i, n in enumerate(rng.integers(1, 200, size=333))]
    for order in (None, np.random.default_rng(1)):
        rows, cells = [], 0
        for batch in batches(examples, 16, 0, order):
            assert batch["input_ids"].shape == batch["attention_mask"].shape
            assert (batch["input_ids"].eq(7) == batch["attention_mask"].bool()).all()
            assert batch["label"].tolist() == batch["row"].tolist()
            assert batch["attention_mask"].sum(dim=1).tolist() == [len(examples[i].tokens) for i in batch["row"]]
            rows += batch["row"].tolist()
            cells += batch["input_ids"].numel()
        assert sorted(rows) == list(range(333))
        assert cells < 1.2 * sum(len(example.tokens) for example in examples)
    shuffled = [batch["row"].tolist() for batch in batches(examples, 16, 0, np.random.default_rng(2))]
    assert shuffled != [batch["row"].tolist() for batch in batches(examples, 16, 0, np.random.default_rng(3))]


def test_the_best_epoch_is_kept():
    """Scores are made up: the second epoch of four has the best."""
    model = torch.nn.Linear(1, 1)
    seen, scores = [], iter([1.0, 3.0, 2.0, 2.5])

    def score(model):
        seen.append(model.weight.item())
        return next(scores)

    fit(
        model,
        [Example([1], 1)] * 8,
        0,
        lambda model, batch: ((model(batch["input_ids"][:, :1].float()) - 5) ** 2).mean(),
        score,
        Recipe(4, 0.1, 0.0, 4, "cpu", False),
        0,
        "x",
    )
    assert len(set(seen)) == 4 and model.weight.item() == seen[1]


def test_probe_is_chosen_on_the_validation_texts():
    """Labels of the training texts are noise on two of the dimensions; only little freedom ignores them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(260, 30)).astype(np.float32)
    y = np.where(x[:, 0] + 0.5 * rng.normal(size=260) > 0, "yes", "no")
    guessed = probe((x[:60], y[:60]), (x[60:160], y[60:160]), x[160:])
    assert (guessed == y[160:]).mean() > 0.7
    with pytest.raises(ValueError):
        probe((x[:5], np.repeat("yes", 5)), (x[:5], np.repeat("yes", 5)), x)
