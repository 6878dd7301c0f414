"""What blank_fill blanks out."""

from dataclasses import replace

import numpy as np
import pytest
import tiktoken

from apis import blanks
from apis.prompting import PromptBook
from dpsda.assets import resolve
from dpsda.wording import words

TEXTS = ["I don't love THIS café, 日本語 really!", "", " x  y\n\nz ", "plain words", "👩‍👩‍👧 emoji ﬁ"]


@pytest.fixture(scope="module")
def byte_level():
    """A table as cl100k's is, but tiny: single bytes, so that a letter may be several tokens."""
    ranks = {bytes([i]): i for i in range(256)} | {b" a": 256, b"the": 257}
    return tiktoken.Encoding("tiny", pat_str=r" ?\S+|\s+", mergeable_ranks=ranks, special_tokens={})


def test_pieces_make_up_the_text(byte_level, monkeypatch):
    monkeypatch.setattr(tiktoken, "get_encoding", lambda name: byte_level)
    pieces, whose = blanks.tokens([])
    assert whose == "cl100k"
    for text in TEXTS:
        assert "".join(pieces(text)) == text
    assert "日" in pieces("日本")  # three tokens, one letter


def test_without_a_network_other_tokens_are_taken(monkeypatch):
    def unreachable(name):
        raise ConnectionError

    monkeypatch.setattr(tiktoken, "get_encoding", unreachable)
    encoder = resolve("embedded:all-minilm-l6-v2")
    pieces, whose = blanks.tokens(["no/such-model", encoder])
    assert whose == encoder
    for text in TEXTS:
        assert "".join(pieces(text)) == text
    assert pieces("unbelievably THIS") == ["un", "bel", "ie", "va", "bly", " THIS"]  # tokens, and the case stays
    assert blanks.tokens(["no/such-model"]) == (words, "words")


def test_a_blank_keeps_the_space_before_it(monkeypatch, tmp_path):
    (tmp_path / "prompts.yaml").write_text('blank_fill: "{masked}"\n')
    book = replace(
        PromptBook.read(tmp_path / "prompts.yaml"), pieces=lambda text: ["Un", "believ", "ably", " good", "!"]
    )
    masked = book.variation("blank_fill", "Unbelievably good!", {}, np.random.default_rng(0), 1.0).text
    assert masked == "___ __"


def test_the_words_of_a_script_without_spaces_are_blanked_one_by_one(tmp_path):
    """Where no tokenizer is at hand. 1,000 characters at 0.3: within five standard errors."""
    (tmp_path / "prompts.yaml").write_text('blank_fill: "{masked}"\nlength: {max_words: 2000}\n')
    book = PromptBook.read(tmp_path / "prompts.yaml")
    masked = book.variation("blank_fill", "面条很好。" * 250, {}, np.random.default_rng(0), 0.3).text
    assert masked.count("_") / 1000 == pytest.approx(0.3, abs=0.075) and " " not in masked
    assert len(masked.replace("_", "")) > 600  # the rest is as it was
