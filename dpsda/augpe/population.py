"""Candidate texts with their labels and ancestry, and the prompts that make them. Nothing private comes here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from apis.api import Prompt, TextAPI

if TYPE_CHECKING:
    import pandas as pd

MAX_ASKS = 8  # how often a text is asked for before its place stays empty
TWICE = "there already"  # why an answer is no new text

TextOf = Callable[[str | None], tuple[str, str]]  # the text of an answer, or "" and why there is none


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

    def distinct(self, *, by_label: bool = True) -> Population:
        """Without a text that stood there before, under the same label or under any."""
        cells = self.cells.tolist() if by_label else [0] * len(self)
        first = {key: i for i, key in reversed(list(enumerate(zip(cells, self.texts, strict=True))))}
        return self.take(sorted(first.values()))

    def known(self) -> set[tuple[int, str]]:
        """The texts, each with its label cell."""
        return set(zip(self.cells.tolist(), self.texts, strict=True))

    def under_every_label(self, cells: int) -> Population:
        """All of it once for each of `cells` labels, label by label."""
        every = np.repeat(np.arange(cells), len(self))
        return Population(self.ids * cells, self.parents * cells, self.texts * cells, every)

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


@dataclass(frozen=True)
class Made:
    """What a model made: new texts, the last prompt of each place, and how many answers were lost, by reason."""

    texts: Population
    prompts: list[Prompt]
    lost: Counter[str]

    def why(self) -> str:
        """How many answers were no new text, in words."""
        return ", ".join(f"{count:,} {reason}" for reason, count in self.lost.most_common())


def initial(
    api: TextAPI,
    prompt: Callable[[int], Prompt],
    text_of: TextOf,
    cells: np.ndarray,  # (n,) the label cell of each text wanted
    seed: int,
    beside: Population | None = None,
    prefix: str = "0",
) -> Made:
    """One new text for every entry of `cells`, ids `<prefix>-<number>`; `prompt(cell)` draws its prompt. None of them
    is another one's of its label, or one of those that it is to stand `beside`."""
    known = beside.known() if beside else set()
    return _ask(api, lambda i: prompt(int(cells[i])), text_of, cells, [""] * len(cells), known, prefix, seed)


def variations(
    api: TextAPI,
    prompt: Callable[[str, int], Prompt],
    text_of: TextOf,
    sources: Population,
    times: int,
    prefix: str,
    seed: int,
) -> Made:
    """`times` variations of each source, ids `<prefix>-<number>`; `prompt(text, cell)` draws a prompt. None of them is
    a source's text or another one's of its label, as votes for one text would be split."""
    numbers = np.repeat(np.arange(len(sources)), times)
    cells = sources.cells[numbers]
    parents = [sources.ids[i] for i in numbers]

    def varying(i: int) -> Prompt:
        return prompt(sources.texts[numbers[i]], int(cells[i]))

    return _ask(api, varying, text_of, cells, parents, sources.known(), prefix, seed)


def lookahead(
    api: TextAPI,
    prompt: Callable[[str, int], Prompt],
    text_of: TextOf,
    sources: Population,
    times: int,
    seed: int,
) -> list[str]:
    """The texts of `times` variations of each source, in order; its own text where there is none. They are embedded and
    nothing else, so that they may be alike."""
    numbers = [i for i in range(len(sources)) for _ in range(times)]
    answers = api.generate([prompt(sources.texts[i], int(sources.cells[i])) for i in numbers], seed)
    return [text_of(answer)[0] or sources.texts[i] for i, answer in zip(numbers, answers, strict=True)]


def _ask(
    api: TextAPI,
    prompt: Callable[[int], Prompt],
    text_of: TextOf,
    cells: np.ndarray,
    parents: list[str],
    known: set[tuple[int, str]],  # labels and texts that are no news
    prefix: str,
    seed: int,
) -> Made:
    """One text for each place, with the id `<prefix>-<number>`, and none where none came: what was no text, or is there
    already, is asked for again with another prompt, up to MAX_ASKS times; not where the model said nothing to any
    prompt, as it would not the next time either."""
    texts, prompts, lost = [""] * len(cells), [prompt(i) for i in range(len(cells))], Counter[str]()
    spoke = False
    for ask in range(MAX_ASKS):
        wanted = [i for i, text in enumerate(texts) if not text]
        if not wanted or (ask and not spoke):
            break
        for i in wanted if ask else ():
            prompts[i] = prompt(i)
        answers = api.generate([prompts[i] for i in wanted], seed + ask)
        spoke = spoke or any(answers)
        for i, answer in zip(wanted, answers, strict=True):
            text, why = text_of(answer)
            if text and (int(cells[i]), text) in known:
                text, why = "", TWICE
            if text:
                texts[i] = text
                known.add((int(cells[i]), text))
            else:
                lost[why] += 1
    got = [i for i, text in enumerate(texts) if text]
    made = Population([f"{prefix}-{i}" for i in got], [parents[i] for i in got], [texts[i] for i in got], cells[got])
    return Made(made, prompts, lost)


def prompt_lines(prompts: Sequence[Prompt]) -> bytes:
    """prompts.jsonl"""
    return "".join(json.dumps(asdict(prompt), ensure_ascii=False) + "\n" for prompt in prompts).encode()
