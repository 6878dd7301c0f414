"""An engine that calls no model: what a dry run asks."""

from __future__ import annotations

from collections.abc import Sequence

from apis.api import OnAnswer, Prompt, TextAPI


class EchoAPI(TextAPI):
    """Answers every prompt with a numbered line, and counts what was asked for."""

    def __init__(self) -> None:
        self.prompts = 0
        self.tokens = 0

    def generate(
        self, prompts: Sequence[Prompt], seed: int, on_answer: OnAnswer = lambda number, answer: None
    ) -> list[str | None]:
        first = self.prompts
        self.prompts += len(prompts)
        self.tokens += sum(prompt.max_new_tokens for prompt in prompts)
        answers: list[str | None] = [f"Text {first + i} of a dry run." for i in range(len(prompts))]
        for i, answer in enumerate(answers):
            on_answer(i, answer)
        return answers
