"""The workers as what a run asks of one process: a text API, an encoder, and the private records that vote."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from apis.api import OnAnswer, Prompt, TextAPI
from dpsda.cluster.pool import Workers

if TYPE_CHECKING:
    from dpsda.augpe.ballot import Ballot

LOCAL = 64  # texts that are embedded where they are


class RayAPI(TextAPI):
    """The language models of the workers. A prompt has the answer that one model alone would give, up to rounding."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def check(self, prompt: Prompt) -> None:
        for _ in self.workers.map("check", [lambda: (prompt,)]):
            pass

    def generate(
        self, prompts: Sequence[Prompt], seed: int, on_answer: OnAnswer = lambda number, answer: None
    ) -> list[str | None]:
        from tqdm import tqdm

        answers: dict[int, str | None] = {}
        asked: dict[int, list[int]] = {}
        size = min(self.workers.size, len(prompts))

        def rest(part: int) -> Callable[[], tuple[Any, ...]]:
            def arguments() -> tuple[Any, ...]:
                asked[part] = [i for i in range(part, len(prompts), size) if i not in answers]
                return [prompts[i] for i in asked[part]], [(seed, i) for i in asked[part]]

            return arguments

        with tqdm(total=len(prompts), unit="text", desc="generate", disable=not prompts, leave=False) as bar:
            for part, (place, answer) in self.workers.map("answer", [rest(part) for part in range(size)]):
                number = asked[part][place]
                answers[number] = answer
                on_answer(number, answer)
                bar.update()
        return [answers[i] for i in range(len(prompts))]


class RayEncoder:
    """The encoders of the workers, for public texts; private ones are embedded where they are. An `Embeds`."""

    def __init__(self, workers: Workers) -> None:
        self.workers, self.encoder = workers, workers.encoder()

    def embed(self, texts: Sequence[str], *, private: bool, desc: str = "") -> np.ndarray:
        missing = np.empty(0, dtype=int) if private else self.encoder.missing(texts, private=False)
        if len(missing) > LOCAL:
            parts = [missing[number :: self.workers.size] for number in range(self.workers.size)]
            how = self.workers.format
            tasks = [lambda part=part: (how, [texts[i] for i in part]) for part in parts]
            for _ in self.workers.map("embed", tasks):
                pass
        return self.encoder.embed(texts, private=private, desc=desc)


class RayVoters:
    """The private records where the workers read them; their votes pass through files in `private`. `Voters`."""

    def __init__(self, workers: Workers, private: Path) -> None:
        self.workers, self.folder = workers, private / "votes"
        self._embedded = False

    def vote(self, ballot: Ballot, k: int) -> np.ndarray:
        if not self._embedded:
            self.workers.embed_records("private records")
            self._embedded = True
        self._clear()  # of what a driver left that died
        how, shared = self.workers.format, self.workers.share(ballot)
        # under names that a worker of a driver that died does not write to
        paths = [self.folder.resolve() / f"{uuid.uuid4().hex}.npy" for _ in range(self.workers.size)]
        tasks = [lambda p=path: (how, p, shared, k) for path in paths]
        for _ in self.workers.map("vote", tasks, owned=True):
            pass
        votes = np.concatenate([np.load(path, allow_pickle=False) for path in paths])
        self._clear()
        return votes

    def _clear(self) -> None:
        for path in self.folder.glob("*"):
            path.unlink(missing_ok=True)
