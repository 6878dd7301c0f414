"""Answers of a model to instructions (Yu et al. 2024: GPT-3.5-turbo, temperature .7, top-p .95, 1,024 tokens)."""

from __future__ import annotations

from collections.abc import Sequence

from apis.api import Prompt, TextAPI
from dpsda.wording import without_reasoning


def ask(
    api: TextAPI, instructions: Sequence[str], *, max_new_tokens: int, seed: int, system: str = ""
) -> list[tuple[str, str]]:
    """(instruction, answer) of every instruction that was answered, in their order, without the reasoning that some
    models put before an answer; refused and blank answers are dropped."""
    prompts = [Prompt(text, system=system, max_new_tokens=max_new_tokens) for text in instructions]
    # half a surrogate pair, which some servers send, cannot be written to a file
    found = [(answer or "").encode("utf-8", "replace").decode() for answer in api.generate(prompts, seed)]
    answers = [without_reasoning(answer) for answer in found]
    return [(text, answer) for text, answer in zip(instructions, answers, strict=True) if answer]
