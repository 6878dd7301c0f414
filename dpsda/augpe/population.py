"""Candidate texts with their labels and ancestry, and the prompts that make them. Nothing private comes here."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from apis.api import Prompt, TextAPI
from dpsda.augpe.options import FIT_ASKS
from dpsda.data.attributes import row_codes

if TYPE_CHECKING:
    import pandas as pd

    from dpsda.data import DatasetSpec
    from dpsda.data.attributes import Attribute

MAX_ASKS = 8  # how often a text is asked for before its place stays empty
TWICE, UNFIT = "there already", "not what the row says"  # why an answer is no new text

Varies = Callable[[str, int, np.ndarray], Prompt]  # draws a prompt that varies a text with its label cell and row
TextOf = Callable[[str | None], tuple[str, str]]  # the text of an answer, or "" and why there is none
Fits = Callable[[list[str], np.ndarray], np.ndarray]  # whether texts say what their rows (n, K) say, (n,)


@dataclass(frozen=True)
class Population:
    ids: list[str]
    parents: list[str]  # "" for a text from nothing
    texts: list[str]
    cells: np.ndarray  # (M,) label cells
    rows: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.int32))  # (M, K) codes of its attributes

    def __post_init__(self) -> None:
        if not len(self.rows) and len(self.ids):  # none are given
            object.__setattr__(self, "rows", np.empty((len(self.ids), 0), np.int32))

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, numbers: Sequence[int] | np.ndarray) -> Population:
        return Population(
            [self.ids[i] for i in numbers],
            [self.parents[i] for i in numbers],
            [self.texts[i] for i in numbers],
            self.cells[np.asarray(numbers, dtype=np.int64)],
            self.rows[np.asarray(numbers, dtype=np.int64)],
        )

    def plus(self, other: Population) -> Population:
        return Population(
            self.ids + other.ids,
            self.parents + other.parents,
            self.texts + other.texts,
            np.concatenate([self.cells, other.cells]),
            np.concatenate([part.rows for part in (self, other) if len(part)] or [self.rows]),
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
        return Population(
            self.ids * cells, self.parents * cells, self.texts * cells, every, np.tile(self.rows, (cells, 1))
        )

    def frame(self, spec: DatasetSpec, attributes: Sequence[Attribute] = ()) -> pd.DataFrame:
        """id, parent_id, text, then the label columns and the names of the values of the attributes."""
        import pandas as pd

        data = {"id": self.ids, "parent_id": self.parents, "text": self.texts}
        labels = {c: [spec.cells[cell][i] for cell in self.cells] for i, c in enumerate(spec.label_columns)}
        row = {a.name: [a.values[code] for code in self.rows[:, i]] for i, a in enumerate(attributes)}
        return pd.DataFrame({**data, **labels, **row})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, spec: DatasetSpec, attributes: Sequence[Attribute] = ()) -> Population:
        """What `frame` gave."""
        cell_of = {value: cell for cell, value in enumerate(spec.cells)}
        cells = [cell_of[tuple(row)] for row in frame[spec.label_columns].itertuples(index=False, name=None)]
        return cls(
            list(frame["id"]),
            list(frame["parent_id"]),
            list(frame["text"]),
            np.array(cells if spec.labels else [0] * len(frame), dtype=np.int64),
            row_codes(frame, attributes),
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
    prompt: Callable[[int, np.ndarray], Prompt],
    text_of: TextOf,
    cells: np.ndarray,  # (n,) the label cell of each text wanted
    seed: int,
    rows: np.ndarray | None = None,  # (n, K) and its row
    fits: Fits | None = None,
) -> Made:
    """One text for every entry of `cells`, ids `0-<number>`; `prompt(cell, row)` draws its prompt. None of them is
    another one's of its label."""
    wanted = Population([f"0-{i}" for i in range(len(cells))], [""] * len(cells), [""] * len(cells), cells)
    wanted = wanted if rows is None else replace(wanted, rows=rows)
    return _ask(api, lambda i: prompt(int(cells[i]), wanted.rows[i]), text_of, wanted, set(), seed, fits)


def variations(
    api: TextAPI,
    prompt: Varies,
    text_of: TextOf,
    sources: Population,
    times: int,
    prefix: str,
    seed: int,
    fits: Fits | None = None,
) -> Made:
    """`times` variations of each source, ids `<prefix>-<number>`, with its label and row. None of them is a source's
    text or another one's of its label, as votes for one text would be split."""
    wanted = sources.take(np.repeat(np.arange(len(sources)), times))
    texts = wanted.texts
    wanted = replace(
        wanted, ids=[f"{prefix}-{i}" for i in range(len(wanted))], parents=wanted.ids, texts=[""] * len(wanted)
    )

    def varying(i: int) -> Prompt:
        return prompt(texts[i], int(wanted.cells[i]), wanted.rows[i])

    return _ask(api, varying, text_of, wanted, sources.known(), seed, fits)


def lookahead(
    api: TextAPI,
    prompt: Varies,
    text_of: TextOf,
    sources: Population,
    times: int,
    seed: int,
) -> list[str]:
    """The texts of `times` variations of each source, in order; its own text where there is none. They are embedded and
    nothing else, so that they may be alike."""
    numbers = [i for i in range(len(sources)) for _ in range(times)]
    prompts = [prompt(sources.texts[i], int(sources.cells[i]), sources.rows[i]) for i in numbers]
    answers = api.generate(prompts, seed)
    return [text_of(answer)[0] or sources.texts[i] for i, answer in zip(numbers, answers, strict=True)]


def _ask(
    api: TextAPI,
    prompt: Callable[[int], Prompt],
    text_of: TextOf,
    places: Population,  # without texts
    known: set[tuple[int, str]],  # labels and texts that are no news
    seed: int,
    fits: Fits | None,
) -> Made:
    """One text for each place, and none where none came: what was no text, or is there already, is asked for again
    with another prompt, up to MAX_ASKS times; not where the model said nothing to any prompt, as it would not the next
    time either. What does not fit its row is asked for FIT_ASKS times, and then is taken as it is."""
    cells = places.cells
    texts, prompts, lost = list(places.texts), [prompt(i) for i in range(len(places))], Counter[str]()
    spoke, spare = False, dict[int, str]()
    for ask in range(MAX_ASKS):
        wanted = [i for i, text in enumerate(texts) if not text]
        if not wanted or (ask and not spoke):
            break
        for i in wanted if ask else ():
            prompts[i] = prompt(i)
        answers = api.generate([prompts[i] for i in wanted], seed + ask)
        spoke = spoke or any(answers)
        found = [text_of(answer) for answer in answers]
        if fits and ask < FIT_ASKS:
            fit = fits([text for text, _ in found], places.rows[wanted])
            for at, i in enumerate(wanted):
                if found[at][0] and not fit[at]:
                    spare[i], found[at] = found[at][0], ("", UNFIT)
        for i, (text, why) in zip(wanted, found, strict=True):
            if text and (int(cells[i]), text) in known:
                text, why = "", TWICE
            if text:
                texts[i] = text
                known.add((int(cells[i]), text))
            else:
                lost[why] += 1
    for i, text in spare.items():  # better than none
        if not texts[i] and (int(cells[i]), text) not in known:
            texts[i] = text
            known.add((int(cells[i]), text))
    made = replace(places, texts=texts).take([i for i, text in enumerate(texts) if text])
    return Made(made, prompts, lost)


def prompt_lines(prompts: Sequence[Prompt]) -> bytes:
    """prompts.jsonl"""
    return "".join(json.dumps(asdict(prompt), ensure_ascii=False) + "\n" for prompt in prompts).encode()
