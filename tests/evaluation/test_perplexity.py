"""Perplexity by a language model, against one text at a time."""

import math

import pytest
import torch

from dpsda.evaluation import perplexity
from dpsda.evaluation.perplexity import Perplexity
from tests.finetune.tiny import saved

TEXTS = ["w1 w2 w3", "w4", "A thing number w5 " * 9, "", "w30 w31 w2 w2 w2", "w1 w2 w3"]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("tokens", [1, 16, 512])
def test_it_is_that_of_each_text_alone(tmp_path, monkeypatch, family, tokens):
    """From the token that a text of nothing begins with, however the texts are put together; padding counts nothing."""
    monkeypatch.setattr(perplexity, "TOKENS", tokens)
    monkeypatch.setattr(perplexity, "multiplies_bfloat16", lambda device: False)
    judge = Perplexity(saved(family, tmp_path / "model"), "cpu")
    nats, count = 0.0, 0
    for text in TEXTS:
        ids = [*judge._first, *judge._tokenizer(text, add_special_tokens=False)["input_ids"]]
        with torch.inference_mode():
            log_p = torch.log_softmax(judge._model(input_ids=torch.tensor([ids])).logits[0].double(), dim=1)
        nats -= sum(float(log_p[at - 1, ids[at]]) for at in range(1, len(ids)))
        count += len(ids) - 1
    assert judge.of(TEXTS) == pytest.approx(math.exp(nats / count), rel=1e-4)


def test_long_texts_are_cut_and_nothing_is_no_figure(tmp_path, monkeypatch):
    judge = Perplexity(saved("llama", tmp_path / "model"), "cpu")
    assert judge.of(["w1 " * 500]) == pytest.approx(judge.of(["w1 " * (judge._most - 1)]))
    assert math.isnan(judge.of(["", ""])) and math.isnan(judge.of([]))
