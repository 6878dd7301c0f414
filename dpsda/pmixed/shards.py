"""Private units split among the models, and their texts as blocks of tokens.

A unit's shard is a keyed hash of the unit alone: a record's text and labels, or a user's name. So a unit that comes or
goes leaves every other one where it is, and changes one shard.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from dpsda.data import PrivateCorpus
from dpsda.errors import InputError
from dpsda.start import num_units
from dpsda.tuning.generator import end_token, openings
from dpsda.tuning.tokens import BLOCK, Tokens


def assign(corpus: PrivateCorpus, unit: str, shards: int, key: bytes) -> np.ndarray:
    """(n,) the shard of each record. InputError for fewer units than shards."""
    if num_units(corpus, unit) < shards:
        raise InputError(f"--shards {shards} is more than there are {unit}s; take fewer shards")
    if unit == "user":
        assert corpus.users is not None
        names = (int(user).to_bytes(8, "little", signed=True) for user in corpus.users)
    else:
        cells = corpus.cells.astype("<i4")
        pairs = zip(cells, corpus.texts, strict=True)
        names = (cell.tobytes() + text.encode("utf-8", "surrogatepass") for cell, text in pairs)
    hashes = (hashlib.blake2b(name, digest_size=8, key=key, person=b"pmixed shard").digest() for name in names)
    return np.array([int.from_bytes(digest, "little") % shards for digest in hashes], dtype=np.int64)


def blocks(
    corpus: PrivateCorpus, rows: np.ndarray, prefixes: list[str], tokenizer: Any, length: int, most: int | None = None
) -> Tokens:
    """The texts of some records in blocks of at most `length` tokens, the first `most` of each text. Each block begins
    with the prefix of the text's labels, which is given; the last one of a text ends with the end-of-text token."""
    end, first = end_token(tokenizer), openings(prefixes, tokenizer)
    if max(map(len, first)) >= length - 1:
        raise InputError(
            f"the labels alone have {max(map(len, first))} tokens; --block_length has to be at least two more"
        )
    ids: list[list[int]] = []
    given: list[int] = []
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        texts = [corpus.texts[int(row)] for row in part]
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]  # else it tells a length
        for row, body in zip(part, encoded, strict=True):
            lead = first[corpus.cells[row]]
            body, room = [*body, end], length - len(lead)
            for at in range(0, len(body), room)[:most]:
                ids.append([*lead, *body[at : at + room]])
                given.append(len(lead))
    return Tokens.rows(ids, given, np.zeros(len(ids), np.int64), tokenizer.pad_token_id)
