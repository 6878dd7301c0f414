"""What `blank_fill` blanks out: the tokens of a text, as the models that fill the blanks see them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from dpsda.assets import resolve
from dpsda.errors import InputError
from dpsda.libraries import loading
from dpsda.wording import words

Pieces = Callable[[str], list[str]]


def tokens(fallbacks: Sequence[str]) -> tuple[Pieces, str]:
    """How to cut a text into tokens, each with the white space before it, and whose tokens these are.

    They are cl100k's, GPT-3.5's own (Xie et al. 2024 blank out those). Their table comes from the network when it is
    first used; where that fails, the tokenizers of `fallbacks` (hub names, folders, embedded assets) are tried in turn,
    and last of all a text is cut into words.
    """
    import tiktoken
    from transformers import AutoTokenizer

    try:
        table = tiktoken.get_encoding("cl100k_base")
    except Exception:  # whatever its download raises
        for name in [n for short in fallbacks for n in (short, f"sentence-transformers/{short}")]:
            try:
                with loading(f"the tokenizer of {name!r}", "another one is tried"):
                    tokenizer = AutoTokenizer.from_pretrained(resolve(name), trust_remote_code=False)
            except InputError:
                continue
            if tokenizer.is_fast:  # the slow ones do not know where a token lies in the text
                return _of_tokenizer(tokenizer), name
        return words, "words"

    def pieces(text: str) -> list[str]:
        return _cut(text, table.decode_with_offsets(table.encode(text, disallowed_special=()))[1])

    return pieces, "cl100k"


def _of_tokenizer(tokenizer) -> Pieces:
    def pieces(text: str) -> list[str]:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return _cut(text, [end for _, end in encoded["offset_mapping"]])

    return pieces


def _cut(text: str, bounds: Sequence[int]) -> list[str]:
    """The text cut at these places. Tokens that are parts of one character make one piece."""
    return [text[a:b] for a, b in itertools.pairwise(sorted({0, *bounds, len(text)}))]
