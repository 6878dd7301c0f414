"""What blank_fill blanks out."""

from dataclasses import replace

import numpy as np
import pytest
import tiktoken

from apis import blanks
from apis.prompting import PromptBook, words
from dpsda.assets import resolve

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
