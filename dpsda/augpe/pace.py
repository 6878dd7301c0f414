"""How fast a model answers, and how long it takes to the end of a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from apis.api import OnAnswer, Prompt, TextAPI

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt} of about {total_fmt} answers, {remaining} left"


@dataclass
class Pace:
    """What a run asked for so far, by whatever API, and what it will ask for `later`, after the `step` at hand."""

    step: str = ""
    later: int = 0
    answers: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def over(self, api: TextAPI) -> TextAPI:
        """An API that is counted here. While it answers, a terminal has a bar of the whole run; an engine's own bar, of
        one call, stands below it."""
        return _Paced(api, self)


class _Paced(TextAPI):
    def __init__(self, api: TextAPI, pace: Pace) -> None:
        self.api, self.pace = api, pace

    def generate(
        self, prompts: Sequence[Prompt], seed: int, on_answer: OnAnswer = lambda number, answer: None
    ) -> list[str | None]:
        from tqdm import tqdm

        pace, start, tokens = self.pace, time.monotonic(), self.api.tokens_generated
        shown = {"desc": pace.step, "bar_format": BAR, "leave": False, "delay": 1, "disable": None}
        total = pace.answers + len(prompts) + pace.later
        with tqdm(total=total, initial=pace.answers, **shown) as bar:

            def counted(number: int, answer: str | None) -> None:
                on_answer(number, answer)
                pace.answers += 1
                bar.update()

            try:
                return self.api.generate(prompts, seed, counted)
            finally:
                pace.seconds += time.monotonic() - start
                pace.tokens += self.api.tokens_generated - tokens

    def check(self, prompt: Prompt) -> None:
        self.api.check(prompt)
