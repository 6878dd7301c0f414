"""Causality, which inflates accuracy where it fails, and what a language model learns."""

import math

import numpy as np
import pytest
import torch

from dpsda.errors import InputError
from dpsda.evaluation import language_model
from dpsda.evaluation.language_model import is_causal, load_causal, next_token
from dpsda.evaluation.training import Recipe
from dpsda.models import load_model

RECIPE = Recipe(epochs=6, learning_rate=1e-2, weight_decay=0.01, batch_size=8, device="cpu", bfloat16=False)


def test_later_tokens_do_not_change_earlier_logits(tiny):
    model, _ = load_causal(tiny)
    rng = np.random.default_rng(0)
    for place in (1, 5, 9):
        one = torch.from_numpy(rng.integers(2, 40, size=(3, 10)))
        other = one.clone()
        other[:, place:] = torch.from_numpy(rng.integers(2, 40, size=(3, 10 - place)))
        with torch.inference_mode():
            a, b = (model.eval()(input_ids=x, attention_mask=torch.ones_like(x)).logits for x in (one, other))
        assert torch.allclose(a[:, :place], b[:, :place], atol=1e-5)
        assert not torch.allclose(a[:, place:], b[:, place:], atol=1e-3)


def test_a_decoder_only_by_name_is_found_out(bert, monkeypatch):
    """As in the paper's code: `is_decoder` set on a model that is already built."""
    model, tokenizer = load_model("AutoModelForCausalLM", bert)
    model.config.is_decoder = True
    assert not is_causal(model)
    monkeypatch.setattr(language_model, "load_model", lambda *names, **config: (model, tokenizer))
    with pytest.raises(InputError, match="sees later tokens"):
        next_token(bert, [], [], [], max_length=9, recipe=RECIPE, seed=0, desc="")


def test_it_learns_what_follows_what(tiny):
    """In the texts w(i+1) follows w(i), and the first word is any of 20: 7 of 7 next tokens can be known."""
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{(start + i) % 20}" for i in range(8)) for start in rng.integers(20, size=120)]
    accuracy, perplexity = next_token(
        tiny, texts[:80], texts[80:90], texts[90:], max_length=64, recipe=RECIPE, seed=0, desc=""
    )
    assert accuracy > 0.95 and 1 <= perplexity < 1.5
    one = Recipe(1, 1e-9, 0.0, 8, "cpu", False)
    untrained = next_token(tiny, texts[:8], texts[80:90], texts[90:], max_length=64, recipe=one, seed=0, desc="")
    assert untrained[0] < 0.3 and untrained[1] > 10


def test_padding_and_batches_do_not_count(tiny):
    """Against the mean over single texts, unpadded; a text of one token has no next one."""
    texts = ["w1 w2 w3", "w4 w5", "w6", " ".join(f"w{i}" for i in range(30))]
    one = Recipe(1, 1e-12, 0.0, 4, "cpu", False)
    accuracy, perplexity = next_token(tiny, texts[:1], texts[:1], texts, max_length=64, recipe=one, seed=0, desc="")
    model, tokenizer = load_causal(tiny)
    losses, right = [], []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            logits = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
        for i in range(ids.shape[1] - 1):
            losses.append(-float(torch.log_softmax(logits[i], dim=0)[ids[0, i + 1]]))
            right.append(int(logits[i].argmax()) == int(ids[0, i + 1]))
    assert len(losses) == 2 + 1 + 29
    assert perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-3)
    assert accuracy == pytest.approx(np.mean(right))


def test_a_model_that_is_not_there_is_one_line():
    with pytest.raises(InputError, match="embedded:all-minilm-l6-v2") as error:
        load_causal("nobody/no-such-model")
    assert "\n" not in str(error.value)
