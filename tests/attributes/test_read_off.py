"""What texts say of an attribute: each by itself, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest

from dpsda.attributes.read_off import read_off
from dpsda.data.attributes import Attribute
from dpsda.errors import InputError


class Given:
    """An encoder of rows that are there: a text is the number of one."""

    def __init__(self, said, rows):
        self.said, self.rows = said, rows

    def embed(self, texts, *, private, desc=""):
        return self.rows[[int(text) for text in texts]] if private else self.said


def described(count):
    values = tuple(f"v{i}" for i in range(count))
    return Attribute("mood", "describe", values, says=values)


def test_a_text_has_the_value_whose_description_is_nearest():
    said = np.array([[2.0, 0.0], [0.0, 0.5]], np.float32)  # length says nothing
    rows = np.array([[1, 0.9], [0.9, 1], [np.nan, 1], [0, 0], [np.inf, 1]], np.float32)
    assert read_off([described(2)], list("01234"), Given(said, rows), private=True)[:, 0].tolist() == [0, 1, -1, 0, -1]


@pytest.mark.parametrize("count", [2, 8, 17])
def test_a_record_more_or_less_changes_no_other_value(count):
    """Vectors half-way between two descriptions, where the last bit of a product decides."""
    rng = np.random.default_rng(count)
    said = rng.standard_normal((count, 384)).astype(np.float32)
    said /= np.linalg.norm(said, axis=1, keepdims=True)
    one, other = rng.integers(0, count, (2, 3000))
    rows = (said[one] + said[other]).astype(np.float32)
    texts = [str(i) for i in range(len(rows))]
    whole = read_off([described(count)], texts, Given(said, rows), private=True)[:, 0]
    for fewer in (texts[1:], texts[:-7], texts[1::2]):
        part = read_off([described(count)], fewer, Given(said, rows), private=True)[:, 0]
        assert np.array_equal(part, whole[[int(text) for text in fewer]])


def test_a_description_without_a_vector_is_said_before_anything_is_spent():
    said = np.array([[1.0, 0.0], [np.nan, 0.5]], np.float32)
    with pytest.raises(InputError, match="the encoder, on the descriptions of mood: an embedding holds NaN"):
        read_off([described(2)], ["0"], Given(said, np.ones((1, 2), np.float32)), private=True)


def test_the_vectors_are_asked_for_once():
    asked = []

    class Counted(Given):
        def embed(self, texts, *, private, desc=""):
            asked.append(desc)
            return super().embed(texts, private=private)

    said = np.eye(2, dtype=np.float32)
    counted = Attribute("length", "words", ("few", "many"), fewest=(2,))
    plan = Attribute("plan", "domain", ("free", ""))
    found = read_off([described(2), counted, described(2), plan], ["0", "1"], Counted(said, said), private=True)
    assert found.tolist() == [[0, 0, 0, -1], [1, 0, 1, -1]] and asked.count("private records") == 1
