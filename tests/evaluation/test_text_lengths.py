"""Token lengths by a tokenizer of known words, and distances with closed forms."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from dpsda.evaluation import text_lengths
from dpsda.evaluation.text_lengths import token_lengths, total_variation, wasserstein


@pytest.fixture
def tokenizer():
    """A token a word; it adds a special token, cuts at four tokens and pads, as the file of an encoder may say."""
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[PAD]": 2, "yes": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    words.enable_truncation(4)
    words.enable_padding(length=4, pad_id=2, pad_token="[PAD]")
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=4)


def test_lengths_are_of_the_whole_text_and_of_nothing_else(tokenizer, monkeypatch):
    texts = ["yes yes no", "", "yes", "yes " * 10, "yes yes"]
    for batch in (2, 8192):  # the last batch is not full
        monkeypatch.setattr(text_lengths, "BATCH", batch)
        lengths = token_lengths(texts, tokenizer)
        assert lengths.tolist() == [3, 0, 1, 10, 2] and lengths.dtype == np.int64
    assert len(token_lengths([], tokenizer)) == 0


def test_a_shift_costs_its_length():
    a = np.array([3, 5, 5, 9])
    assert wasserstein(a, a + 7) == pytest.approx(7) and wasserstein(a + 7, a) == pytest.approx(7)
    assert wasserstein(a, np.repeat(a, 3)) == pytest.approx(0)
    assert wasserstein(np.array([0, 10]), np.array([0])) == pytest.approx(5)  # half of the texts move by 10


def test_total_variation_of_known_histograms():
    a, b = np.array([1, 1, 2, 3]), np.array([1, 2, 2, 2, 2, 2, 2, 7])  # shares 1/2 1/4 1/4 0 and 1/8 3/4 0 1/8
    assert total_variation(a, b) == pytest.approx((3 / 8 + 1 / 2 + 1 / 4 + 1 / 8) / 2)
    assert total_variation(b, a) == total_variation(a, b)
    assert total_variation(a, a[::-1]) == 0 and total_variation(a, a + 3) == 1
    assert total_variation(a, b, width=2) == pytest.approx((3 / 8 + 1 / 4 + 1 / 8) / 2)  # bins 0-1, 2-3, 6-7
    assert total_variation(a, b, width=10) == 0


@pytest.mark.parametrize("distance", [wasserstein, total_variation])
def test_refuses_empty(distance):
    with pytest.raises(ValueError, match="nothing to compare"):
        distance(np.array([1]), np.array([], dtype=np.int64))
