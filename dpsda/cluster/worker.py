"""A worker: a process with a language model, an encoder and a range of the private records, each loaded when it is
first needed."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from apis.api import Prompt
from dpsda.embedding import Encoder
from dpsda.errors import InputError
from dpsda.privacy.files import appearing

if TYPE_CHECKING:
    from dpsda.augpe.ballot import Ballot
    from dpsda.data import PrivateCorpus

PIECE = 1 << 16  # private texts that a worker embeds between two signs of life


class Streams(Protocol):
    """A language model in the process of a worker, such as `apis.hf_api.HFAPI`."""

    def stream(self, prompts: Sequence[Prompt], draws: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, str]]: ...
    def check(self, prompt: Prompt) -> None: ...


@dataclass(frozen=True)
class Job:
    """What a worker loads when it is asked for it, by functions that it calls in its own process."""

    api: Callable[[], Streams] | None = None
    encoder: Callable[..., Encoder] | None = None
    corpus: Callable[[], PrivateCorpus] | None = None
    key: Path = Path()  # where the key of the fingerprint is
    fingerprint: str = ""  # by which a worker knows that its file holds the driver's records


@dataclass(frozen=True)
class Format:
    """How the encoder of all workers computes: its number format, and what it makes of some texts."""

    dtype: str
    probe: str


class End:
    """The last thing of a task that was done to its end: the stream of a worker that dies may just end."""


def quiet(method: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """A method that meets private texts, whose errors quote none of them: others' exceptions may."""

    @functools.wraps(method)
    def guarded(*args: Any) -> Iterator[Any]:
        try:
            yield from method(*args)
        except (InputError, OSError):
            raise
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise RuntimeError(f"{type(error).__name__} in {last.filename}, line {last.lineno}") from None

    return guarded


class Worker:
    """One process; `begin` and `end` are the private rows that it owns. Its methods yield what the driver waits for."""

    def __init__(
        self, job: list[Any], begin: int, end: int, threads: int, folder: str, environment: dict[str, str]
    ) -> None:
        import ray

        self.begin, self.end, self.threads, self.folder = begin, end, threads, folder
        self.loaded: dict[str, Any] = {}
        os.environ.update(environment)  # before the job, with which the libraries are imported that read it
        self.job: Job = ray.get(job[0])  # in a list: Ray itself would have fetched it first

    def work(self, method: str, *arguments: Any) -> Iterator[Any]:
        yield from getattr(self, method)(*arguments)
        yield End()

    def format(self) -> Iterator[Format]:
        """How the encoder computes here."""
        encoder = self._encoder(None)
        yield Format(encoder.dtype, encoder.probe())

    def answer(self, prompts: list[Prompt], draws: list[tuple[int, ...]]) -> Iterator[tuple[int, str]]:
        assert self.job.api is not None
        yield from self._part("api", self.job.api).stream(prompts, draws)

    def check(self, prompt: Prompt) -> Iterator[None]:
        """Whether the language model answers."""
        assert self.job.api is not None
        self._part("api", self.job.api).check(prompt)
        yield None

    def embed(self, how: Format, texts: list[str]) -> Iterator[int]:
        """Put the vectors of public texts into the cache."""
        yield self._encoder(how).precompute(texts, private=False)

    @quiet
    def embed_records(self, how: Format, start: int) -> Iterator[int]:
        """Put those of the worker's own private records from `start` there; how many are done, each time some are."""
        encoder, texts = self._encoder(how), self._part("corpus", self._corpus).texts
        for first in range(self.begin + start, self.end, PIECE):
            piece = texts[first : min(first + PIECE, self.end)]
            encoder.precompute(piece, private=True)
            yield len(piece)

    @quiet
    def vote(self, how: Format, path: Path, ballot: Ballot, k: int) -> Iterator[None]:
        """Write the votes of the worker's own records, (end - begin, k), into a file of the run's private folder."""
        from dpsda.augpe.voting import vote

        vectors, cells = self._part("records", lambda: self._records(how))
        votes = vote(vectors, cells, ballot, k)
        with appearing(path) as scratch, open(scratch, "wb") as file:
            np.save(file, votes, allow_pickle=False)
        yield None

    def _encoder(self, how: Format | None) -> Encoder:
        """The encoder; InputError where it computes in another way than the first worker's, as a record's vote would
        then depend on which worker the record falls to."""

        def load() -> Encoder:
            assert self.job.encoder is not None
            encoder = self.job.encoder(dtype=how.dtype if how else "auto")
            self._share()  # first: in bfloat16, some processors round otherwise with another number of threads
            if how and encoder.probe() != how.probe:
                raise InputError(
                    "the nodes of this Ray cluster do not give a text the same vector, bit for bit, so a vote could "
                    "depend on other records: use nodes of one kind"
                )
            return encoder

        return self._part("encoder", load)

    def _corpus(self) -> PrivateCorpus:
        assert self.job.corpus is not None
        corpus = self.job.corpus()
        if corpus.fingerprint(self.job.key.read_bytes()) != self.job.fingerprint:
            raise InputError(
                "a Ray worker reads other private records than the driver: every node needs the same file under the "
                "same path"
            )
        return corpus

    def _records(self, how: Format) -> tuple[np.ndarray, np.ndarray]:
        """(end - begin, D) vectors of the worker's own records, and their cells; the texts are not kept beside them."""
        corpus, own = self._part("corpus", self._corpus), slice(self.begin, self.end)
        vectors = self._encoder(how).embed(corpus.texts[own], private=True)
        del self.loaded["corpus"]
        return vectors, corpus.cells[own].copy()

    def _part(self, name: str, load: Callable[[], Any]) -> Any:
        if name not in self.loaded:
            os.chdir(self.folder)
            self.loaded[name] = load()
            self._share()
        return self.loaded[name]

    def _share(self) -> None:
        """Take no more threads than this worker is to have."""
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(self.threads)
