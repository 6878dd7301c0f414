"""Texts from prompts: refusals, empty answers, and how often a model is asked."""

from __future__ import annotations

import numpy as np

from apis.api import Prompt, TextAPI
from dpsda.augpe.population import MAX_ASKS, Population, from_nothing, variations


class Scripted(TextAPI):
    """Answers by a function of the prompt, and keeps the calls."""

    def __init__(self, answer):
        self.answer, self.calls = answer, []

    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        self.calls.append(list(prompts))
        return [self.answer(prompt.text) for prompt in prompts]


def clean(answer):
    return (answer or "").strip()


CELLS = np.array([0, 0, 1, 2, 2, 2])
SOURCES = Population([f"0-{i}" for i in range(6)], [""] * 6, [f"text {i}" for i in range(6)], CELLS)


def test_refused_variations_are_their_sources_and_shift_no_label():
    def answer(text):
        return {"1": None, "3": "  "}.get(text[-1], f"new {text}")

    made, _ = variations(Scripted(answer), lambda text, cell: Prompt(text), clean, SOURCES, 2, "1", 0)
    for i in range(12):
        source = f"text {i // 2}"
        assert made.texts[i] == (source if i // 2 in (1, 3) else f"new {source}")
        assert made.cells[i] == CELLS[i // 2] and made.parents[i] == f"0-{i // 2}"
    assert len(set(made.ids)) == 12


def test_a_round_is_one_call():
    api = Scripted(lambda text: text)
    variations(api, lambda text, cell: Prompt(f"{cell} {text}"), clean, SOURCES, 3, "1", 0)
    assert [len(call) for call in api.calls] == [18]  # over all labels and variations
    from_nothing(api, lambda cell: Prompt(str(cell)), clean, CELLS, 0)
    assert [len(call) for call in api.calls] == [18, 6]


def test_empty_initial_answers_are_asked_for_again_with_another_prompt():
    drawn = iter(range(100))
    api = Scripted(lambda text: None if int(text.split()[1]) in (1, 4) else f"answer to {text}")
    made, prompts = from_nothing(api, lambda cell: Prompt(f"{cell} {next(drawn)}"), clean, CELLS, 0)
    assert [len(call) for call in api.calls] == [6, 2]
    assert made.texts == [f"answer to {prompt.text}" for prompt in prompts]
    assert [int(text.split()[2]) for text in made.texts] == CELLS.tolist()  # the label that was asked for


def test_a_place_that_is_always_refused_stays_empty():
    api = Scripted(lambda text: None if text == "1" else "a text")
    made, _ = from_nothing(api, lambda cell: Prompt(str(cell)), clean, CELLS, 0)
    assert len(api.calls) == MAX_ASKS and made.cells.tolist() == [0, 0, 2, 2, 2]
    assert made.ids == ["0-0", "0-1", "0-3", "0-4", "0-5"]
