"""Texts from prompts: refusals, empty answers, texts that are there already, and how often a model is asked."""

from __future__ import annotations

import itertools

import numpy as np

from apis.api import Prompt, TextAPI
from dpsda.augpe.options import FIT_ASKS
from dpsda.augpe.population import MAX_ASKS, TWICE, UNFIT, Population, initial, lookahead, variations


class Scripted(TextAPI):
    """Answers by a function of the prompt, and keeps the calls."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        self.calls.append(list(prompts))
        return [self.answer(prompt.text) for prompt in prompts]


def text_of(answer):
    if answer is None:
        return "", "refused"
    return answer.strip(), "" if answer.strip() else "empty"


CELLS = np.array([0, 0, 1, 2, 2, 2])
SOURCES = Population([f"0-{i}" for i in range(6)], [""] * 6, [f"text {i}" for i in range(6)], CELLS)


def numbered():
    """Draws prompts `TEXT, number N`, each N once."""
    numbers = itertools.count()
    return lambda text, cell, row: Prompt(f"{text}, number {next(numbers)}")


def test_what_is_no_new_text_is_asked_for_again_and_shifts_no_label():
    """The first time the second text is refused, the fourth empty, the fifth as it was; later all are new."""
    script = {"text 1": None, "text 3": "  ", "text 4": "text 4"}

    def answer(text):
        source, _, number = text.partition(", number ")
        return script.get(source, f"new {text}") if int(number) < 12 else f"new {text}"

    api = Scripted(answer)
    made = variations(api, numbered(), text_of, SOURCES, 2, "1", 0)
    assert [len(call) for call in api.calls] == [12, 6] and made.lost == {"refused": 2, "empty": 2, TWICE: 2}
    assert made.why() == "2 refused, 2 empty, 2 there already"
    assert made.texts.ids == [f"1-{i}" for i in range(12)] and len(set(made.texts.texts)) == 12
    for i, (text, prompt) in enumerate(zip(made.texts.texts, made.prompts, strict=True)):
        assert text == f"new {prompt.text}" and text.startswith(f"new text {i // 2},")
        assert made.texts.cells[i] == CELLS[i // 2] and made.texts.parents[i] == f"0-{i // 2}"


def test_no_text_stands_twice_under_a_label():
    """Six sources, one answer: it is new once for each of three labels, and a text under another label is new."""
    api = Scripted(lambda text: "text 0")
    made = variations(api, numbered(), text_of, SOURCES, 1, "1", 0).texts
    assert made.texts == ["text 0"] * 2 and made.cells.tolist() == [1, 2] and len(api.calls) == MAX_ASKS
    made = initial(Scripted(lambda text: "a text"), lambda cell, row: Prompt(""), text_of, CELLS, 0).texts
    assert made.cells.tolist() == [0, 1, 2]
    drawn_twice = SOURCES.take([0, 1, 1, 2, 2, 2])
    assert drawn_twice.distinct().ids == ["0-0", "0-1", "0-2"]


def test_a_round_is_one_call():
    api = Scripted(lambda text: f"about {text}")
    variations(api, numbered(), text_of, SOURCES, 3, "1", 0)
    assert [len(call) for call in api.calls] == [18]  # over all labels and variations
    draw = numbered()
    initial(api, lambda cell, row: draw("", cell, row), text_of, CELLS, 0)
    assert [len(call) for call in api.calls] == [18, 6]


def test_empty_initial_answers_are_asked_for_again_with_another_prompt():
    drawn = iter(range(100))
    api = Scripted(lambda text: None if int(text.split()[1]) in (1, 4) else f"answer to {text}")
    made = initial(api, lambda cell, row: Prompt(f"{cell} {next(drawn)}"), text_of, CELLS, 0)
    assert [len(call) for call in api.calls] == [6, 2]
    assert made.texts.texts == [f"answer to {prompt.text}" for prompt in made.prompts]
    assert [int(text.split()[2]) for text in made.texts.texts] == CELLS.tolist()  # the label that was asked for


def test_a_place_that_is_always_refused_stays_empty():
    answers = itertools.count()
    api = Scripted(lambda text: None if text == "1" else f"text {next(answers)}")
    made = initial(api, lambda cell, row: Prompt(str(cell)), text_of, CELLS, 0).texts
    assert len(api.calls) == MAX_ASKS and made.cells.tolist() == [0, 0, 2, 2, 2]
    assert made.ids == ["0-0", "0-1", "0-3", "0-4", "0-5"]


def test_a_model_that_brings_nothing_is_asked_once():
    api = Scripted(lambda text: None)
    made = initial(api, lambda cell, row: Prompt(""), text_of, CELLS, 0)
    assert not len(made.texts) and len(api.calls) == 1 and made.why() == "6 refused"
    made = variations(api, numbered(), text_of, SOURCES, 2, "1", 0)
    assert not len(made.texts) and len(api.calls) == 2 and made.why() == "12 refused"


def test_ahead_of_a_text_that_is_not_varied_lies_the_text():
    api = Scripted(lambda text: None if text.startswith("text 1,") else "all alike")
    ahead = lookahead(api, numbered(), text_of, SOURCES, 2, 0)
    assert ahead == ["all alike"] * 2 + ["text 1"] * 2 + ["all alike"] * 8 and len(api.calls) == 1


def test_what_its_row_does_not_say_is_asked_for_again_and_then_taken():
    """The places of row 1 get a text that fits at the second ask; those of row 0 never do, and have one in the end."""
    rows = np.array([[0], [1], [1], [0]], np.int32)
    api, numbers, seen = Scripted(lambda text: f"answer to {text}"), itertools.count(), []

    def fits(texts, codes):
        seen.append(codes[:, 0].tolist())
        return (codes[:, 0] == 1) & np.array([int(text.split()[-1]) >= 4 for text in texts], bool)

    made = initial(api, lambda cell, row: Prompt(f"{next(numbers)}"), text_of, np.zeros(4, int), 0, rows, fits=fits)
    assert [len(call) for call in api.calls] == [4, 4, 2, 2] and len(seen) == FIT_ASKS == 3
    assert seen[:2] == [[0, 1, 1, 0]] * 2 and seen[2] == [0, 0]
    assert made.texts.ids == ["0-0", "0-1", "0-2", "0-3"] and made.lost == {UNFIT: 4 + 2 + 2}
    assert made.texts.rows.tolist() == rows.tolist()


def test_what_does_not_fit_is_better_than_nothing():
    """A model that says something that does not fit, and then refuses."""
    api = Scripted(lambda text: f"answer to {text}" if int(text) < 2 else None)
    numbers, rows = itertools.count(), np.zeros((2, 1), np.int32)
    nothing = lambda texts, codes: np.zeros(len(texts), bool)  # noqa: E731
    made = initial(api, lambda cell, row: Prompt(f"{next(numbers)}"), text_of, np.zeros(2, int), 0, rows, fits=nothing)
    assert made.texts.texts == ["answer to 0", "answer to 1"] and made.texts.ids == ["0-0", "0-1"]
