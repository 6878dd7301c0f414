"""The contract between a method and whatever writes text for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

VARIATIONS = ("paraphrase", "blank_fill")  # how a text is varied
Shots = tuple[tuple[str, str], ...]  # requests and answers that come before a request
OnAnswer = Callable[[int, str | None], None]


@dataclass(frozen=True)
class Prompt:
    """One request for one text.

    `text` is what is asked (the user turn of a chat), `system` the standing instruction, `shots` worked
    examples as (request, answer) pairs, and `max_new_tokens` the length at which the answer is cut.
    """

    text: str
    system: str = ""
    shots: Shots = ()
    max_new_tokens: int = 64

    def turns(self) -> list[tuple[str, str]]:
        """The conversation that asks for the text: (role, content) of each turn."""
        turns = [("system", self.system)] if self.system else []
        for request, answer in self.shots:
            turns += [("user", request), ("assistant", answer)]
        return [*turns, ("user", self.text)]


class TextAPI(ABC):
    """A source of public text: a model in this process or behind a server."""

    @abstractmethod
    def generate(
        self, prompts: Sequence[Prompt], seed: int, on_answer: OnAnswer = lambda number, answer: None
    ) -> list[str | None]:
        """Answer every prompt, in the order of `prompts`: None where the model refused or a filter stopped it, ""
        where it answered nothing.

        `on_answer(number, answer)` is called once for every prompt, in the order in which the answers come and before
        their place is used for anything else: whoever stores them there loses none to a kill.

        `seed` steers the sampling: a local model answers the same prompts and seed in the same way on the same
        machine; a remote model may not. Answers are as the model gave them, special tokens removed.
        """

    @property
    def tokens_generated(self) -> int:
        """The tokens of all answers so far; 0 where nobody counts them."""
        return 0

    def check(self, prompt: Prompt) -> None:  # noqa: B027
        """Raises InputError where no answer could come: called once before anything is spent."""
