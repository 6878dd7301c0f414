"""Candidate texts with their labels and ancestry, and the prompts that make them. Nothing private comes here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from apis.api import Prompt, TextAPI

if TYPE_CHECKING:
    import pandas as pd

MAX_ASKS = 8  # how often an initial text is asked for before its place stays empty


@dataclass(frozen=True)
class Population:
    ids: list[str]
    parents: list[str]  # "" for a text from nothing
    texts: list[str]
    cells: np.ndarray  # (M,) label cells

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, numbers: Sequence[int] | np.ndarray) -> Population:
        return Population(
            [self.ids[i] for i in numbers],
            [self.parents[i] for i in numbers],
            [self.texts[i] for i in numbers],
            self.cells[np.asarray(numbers, dtype=np.int64)],
        )

    def plus(self, other: Population) -> Population:
        return Population(
            self.ids + other.ids,
            self.parents + other.parents,
            self.texts + other.texts,
            np.concatenate([self.cells, other.cells]),
        )

    def counts(self, cells: int) -> np.ndarray:
        """(cells,) how many texts every label has."""
        return np.bincount(self.cells, minlength=cells)

    def frame(self, columns: Sequence[str], values: Sequence[tuple[str, ...]]) -> pd.DataFrame:
        """id, parent_id, text, then the label columns; `values` are the label values of every cell."""
        import pandas as pd

        data = {"id": self.ids, "parent_id": self.parents, "text": self.texts}
        labels = {c: [values[cell][i] for cell in self.cells] for i, c in enumerate(columns)}
        return pd.DataFrame({**data, **labels})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, columns: Sequence[str], values: Sequence[tuple[str, ...]]) -> Population:
        cell_of = {value: cell for cell, value in enumerate(values)}
        rows = frame[list(columns)].itertuples(index=False, name=None)
        return cls(
            list(frame["id"]),
            list(frame["parent_id"]),
            list(frame["text"]),
            np.array([cell_of[tuple(row)] for row in rows] if columns else [0] * len(frame), dtype=np.int64),
        )


def from_nothing(
    api: TextAPI,
    prompt: Callable[[int], Prompt],
    clean: Callable[[str | None], str],
    cells: np.ndarray,  # (n,) the label cell of each text wanted
    seed: int,
) -> tuple[Population, list[Prompt]]:
    """One new text for every entry of `cells`; `prompt(cell)` draws its prompt. Refused or empty answers are asked for
    again with another prompt, and left out after MAX_ASKS."""
    texts, prompts = [""] * len(cells), [prompt(int(cell)) for cell in cells]
    for ask in range(MAX_ASKS):
        wanted = [i for i, text in enumerate(texts) if not text]
        if not wanted:
            break
        if ask:
            for i in wanted:
                prompts[i] = prompt(int(cells[i]))
        for i, answer in zip(wanted, api.generate([prompts[i] for i in wanted], seed + ask), strict=True):
            texts[i] = clean(answer)
    got = [i for i, text in enumerate(texts) if text]
    made = Population([f"0-{i}" for i in got], [""] * len(got), [texts[i] for i in got], cells[got])
    return made, prompts


def variations(
    api: TextAPI,
    prompt: Callable[[str, int], Prompt],
    clean: Callable[[str | None], str],
    sources: Population,
    times: int,
    prefix: str,
    seed: int,
) -> tuple[Population, list[Prompt]]:
    """`times` variations of each source, ids `<prefix>-<number>`; `prompt(text, cell)` draws a prompt.

    A refused or empty answer falls back to its source's text, so that no label is shifted and no place is lost.
    """
    numbers = [i for i in range(len(sources)) for _ in range(times)]
    prompts = [prompt(sources.texts[i], int(sources.cells[i])) for i in numbers]
    answers = api.generate(prompts, seed) if prompts else []
    texts = [clean(answer) or sources.texts[i] for i, answer in zip(numbers, answers, strict=True)]
    ids = [f"{prefix}-{j}" for j in range(len(numbers))]
    return Population(ids, [sources.ids[i] for i in numbers], texts, sources.cells[numbers]), prompts


def prompt_lines(prompts: Sequence[Prompt]) -> bytes:
    """prompts.jsonl"""
    return "".join(json.dumps(asdict(prompt), ensure_ascii=False) + "\n" for prompt in prompts).encode()
