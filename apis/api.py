"""The contract between a method and whatever writes text for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

VARIATIONS = ("paraphrase", "blank_fill")  # how a text is varied


@dataclass(frozen=True)
class Prompt:
    """One request for one text.

    `text` is what is asked (the user turn of a chat), `system` the standing instruction, `shots` worked
    examples as (request, answer) pairs, and `max_new_tokens` the length at which the answer is cut.
    """

    text: str
    system: str = ""
    shots: tuple[tuple[str, str], ...] = ()
    max_new_tokens: int = 64


class TextAPI(ABC):
    """A source of public text: a model in this process or behind a server."""

    @abstractmethod
    def generate(self, prompts: Sequence[Prompt], seed: int) -> list[str | None]:
        """Answer every prompt, in the order of `prompts`; None where the model refused to answer.

        `seed` steers the sampling: a local model answers the same prompts and seed in the same way on the same
        machine; a remote model may not. Answers are as the model gave them, special tokens removed.
        """
