"""What counts as a copy, and that a real text is no copy of itself."""

import numpy as np

from dpsda.evaluation import copies

EIGHT = "one two three four five six seven eight"


def shares(texts, reference, own=None):
    finder = copies.Finder(texts)
    finder.read(reference)
    return finder.exact(texts, own), finder.overlapping(texts, own)


def test_exact_but_for_case_punctuation_and_space():
    assert shares(["A fine  film!", "another"], ["a fine film", "x"]) == (0.5, 0)


def test_eight_words_in_a_row():
    texts = [f"so {EIGHT} it is", "one two three four five six seven", EIGHT.replace("four", "4")]
    assert shares(texts, [f"It says: {EIGHT.upper()}."]) == (0, 1 / 3)


def test_a_text_is_not_its_own_copy():
    reference = ["same words here", "other", "Same words here.", f"{EIGHT} a", "x"]
    assert shares(reference[:2], reference, own=[0, 1]) == (0.5, 0)  # row 2 repeats row 0
    assert shares([reference[3]], reference, own=[3]) == (0, 0)
    assert shares([reference[3]], [*reference, f"b {EIGHT}"], own=[3]) == (0, 1)
    repeats = [f"{EIGHT} {EIGHT}"]  # twice in one row is still that row alone
    assert shares(repeats, repeats, own=[0]) == (0, 0)


def test_near():
    reference = np.eye(4, dtype=np.float32)
    rows = np.array([[1, 0.2, 0, 0], [1, 0.5, 0, 0]], dtype=np.float32)  # cosines 0.98 and 0.89
    assert copies.near(rows, reference) == 0.5
    assert copies.near(reference[:2], reference, own=np.array([0, 1])) == 0
    twice = np.concatenate([reference, reference[:1]])
    assert copies.near(twice[:2], twice, own=np.array([0, 1])) == 0.5
