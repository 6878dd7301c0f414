"""The heavy maps of a run on the workers of a Ray cluster: generation, embedding, and votes.

A worker is a process with a language model, an encoder and a range of the private records, each loaded when it is first
needed; `map` gives the tasks to the workers and starts another one for one that dies. What goes through Ray is public:
prompts and answers, candidates and their cells, row ranges and counts. Private texts are read by the worker that owns
their range, from the data set's own file; their vectors lie in the private cache of embeddings, and votes in the
private folder of the run. Noise is drawn on the driver alone, after the votes are there.
"""

from __future__ import annotations

import functools
import os
import secrets
import socket
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from apis.api import OnAnswer, Prompt, TextAPI
from dpsda.assets import home
from dpsda.embedding import PRIVATE_BAR, Encoder
from dpsda.errors import InputError, first_line
from dpsda.privacy.files import appearing

if TYPE_CHECKING:
    from dpsda.data import PrivateCorpus
    from dpsda.options import DataOptions, EmbeddingOptions, EngineOptions

TRIES = 6  # workers that may die at one task before anything comes back of it
PIECE = 1 << 16  # private texts that a worker embeds between two signs of life
FEW = 64  # texts that are embedded where they are
PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME")  # what a worker on another machine takes over from the driver's environment


class Streams(Protocol):
    """A language model in the process of a worker, such as `apis.hf_api.HFAPI`."""

    def stream(self, prompts: Sequence[Prompt], draws: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, str]]: ...


@dataclass(frozen=True)
class Job:
    """What a worker loads when it is asked for it: functions of its own process, which pickle by their names."""

    api: Callable[[], Streams] | None = None
    encoder: Callable[..., Encoder] | None = None
    corpus: Callable[[], PrivateCorpus] | None = None
    key: bytes = b""  # of the fingerprint
    fingerprint: str = ""  # by which a worker knows that its file holds the driver's records


class Worker:
    """One process; `begin` and `end` are the private rows that it owns. Its methods yield what the driver waits for."""

    def __init__(self, job: Job, begin: int, end: int, threads: int, folder: str, environment: dict[str, str]) -> None:
        self.job, self.begin, self.end, self.threads, self.folder = job, begin, end, threads, folder
        self.loaded: dict[str, Any] = {}
        os.environ.update(environment)

    def dtype(self) -> Iterator[str]:
        """The number format that the encoder has here."""
        yield self._encoder().dtype

    def answer(self, prompts: list[Prompt], draws: list[tuple[int, ...]]) -> Iterator[tuple[int, str]]:
        assert self.job.api is not None
        yield from self._part("api", self.job.api).stream(prompts, draws)

    def embed(self, dtype: str, texts: list[str]) -> Iterator[int]:
        """Put the vectors of public texts into the cache."""
        yield self._encoder(dtype).precompute(texts, private=False)

    def embed_records(self, dtype: str, start: int) -> Iterator[tuple[int, int]]:
        """Put those of the worker's own private records from `start` there; how many are done, and how many texts of
        them had no vector, each time some are."""
        encoder, texts = self._encoder(dtype), self._part("corpus", self._corpus).texts
        for first in range(self.begin + start, self.end, PIECE):
            piece = texts[first : min(first + PIECE, self.end)]
            yield len(piece), encoder.precompute(piece, private=True)

    def vote(
        self, dtype: str, path: Path, candidates: np.ndarray, candidate_cells: np.ndarray, k: int, metric: str
    ) -> Iterator[None]:
        """Write the votes of the worker's own records, (end - begin, k), into a file of the run's private folder."""
        from dpsda.augpe.voting import vote

        vectors, cells = self._part("records", lambda: self._records(dtype))
        votes = vote(vectors, cells, candidates, candidate_cells, k, metric)
        with appearing(path) as scratch, open(scratch, "wb") as file:
            np.save(file, votes, allow_pickle=False)
        yield None

    def _encoder(self, dtype: str = "auto") -> Encoder:
        assert self.job.encoder is not None
        return self._part("encoder", functools.partial(self.job.encoder, dtype=dtype))

    def _corpus(self) -> PrivateCorpus:
        assert self.job.corpus is not None
        corpus = self.job.corpus()
        if corpus.fingerprint(self.job.key) != self.job.fingerprint:
            raise InputError(
                "a Ray worker reads other private records than the driver: every node needs the same file under the "
                "same path"
            )
        return corpus

    def _records(self, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """(end - begin, D) vectors of the worker's own records, and their cells; the texts are not kept beside them."""
        corpus, own = self._part("corpus", self._corpus), slice(self.begin, self.end)
        vectors = self._encoder(dtype).embed(corpus.texts[own], private=True)
        del self.loaded["corpus"]
        return vectors, corpus.cells[own].copy()

    def _part(self, name: str, load: Callable[[], Any]) -> Any:
        if not self.loaded:
            import torch

            os.chdir(self.folder)
            torch.set_num_threads(self.threads)
        if name not in self.loaded:
            self.loaded[name] = load()
        return self.loaded[name]


class Workers:
    """The workers of one run. They end with the process that made them."""

    def __init__(self, options: EngineOptions, job: Job, records: int = 0) -> None:
        self._ray = _connect(options.ray_address)
        self.size, self.cpus, self.gpus = _shape(self._ray, options.ray_workers, records if job.corpus else None)
        self._job = job
        self._bounds = np.linspace(0, records, self.size + 1).astype(int).tolist()
        self._actors = [self._start(number) for number in range(self.size)]
        self.records = records

    def __str__(self) -> str:
        share = f"{self.gpus:g} GPU and " if self.gpus else ""
        return f"ray: {self.size} workers, each with {share}{self.cpus} CPU cores"

    @functools.cached_property
    def dtype(self) -> str:
        """The number format of the encoder: what is best where one of the workers is, for all of them."""
        [(_, dtype)] = self.map("dtype", [tuple])
        return dtype

    def encoder(self) -> Encoder:
        """The encoder in this process: it finds in the cache what the workers put there."""
        assert self._job.encoder is not None
        return self._job.encoder(dtype=self.dtype)

    def embed_records(self, desc: str) -> int:
        """Put the vectors of all private records into the private cache; how many were not there yet."""
        from tqdm import tqdm

        done, made = [0] * self.size, 0
        with tqdm(total=self.records, desc=desc, bar_format=PRIVATE_BAR, delay=1) as bar:
            tasks = [lambda number=number: (self.dtype, done[number]) for number in range(self.size)]
            for number, (some, new) in self.map("embed_records", tasks, owned=True):
                done[number] += some
                made += new
                bar.update(some)
        return made

    def share(self, data: Any) -> Any:
        """`data`, which is public, once for every node: an argument for many tasks."""
        return self._ray.put(data)

    def map(
        self, method: str, tasks: Sequence[Callable[[], tuple[Any, ...]]], *, owned: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """The number of a task and one thing that `method` of a worker yielded for it, as they come.

        A task gives the arguments when it begins, and again when its worker died: then without what came already, if
        that is to come once. An `owned` task goes to the worker of its number, any other one to one that is free.
        """
        ray = self._ray
        waiting, idle = deque(range(len(tasks))), set(range(self.size))
        running: dict[Any, tuple[int, int]] = {}
        deaths = dict.fromkeys(waiting, 0)
        while waiting or running:
            for _ in range(len(waiting)):
                task = waiting.popleft()
                worker = task if owned else next(iter(idle), -1)
                if worker not in idle:
                    waiting.append(task)
                    continue
                idle.remove(worker)
                stream = getattr(self._actors[worker], method).options(num_returns="streaming")
                running[stream.remote(*tasks[task]())] = worker, task
            ready, _ = ray.wait(list(running), num_returns=1)
            for items in ready:
                worker, task = running[items]
                try:
                    item = ray.get(next(items))
                except StopIteration:
                    del running[items]
                    idle.add(worker)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:  # the worker or its node is gone
                    deaths[task] += 1
                    if deaths[task] == TRIES:
                        raise InputError(
                            f"{TRIES} Ray workers died one after the other at the same task ({method}; "
                            f"{first_line(error)}): is there memory for {self.size} workers? See --ray_workers"
                        ) from None
                    ray.kill(self._actors[worker])
                    self._actors[worker] = self._start(worker)
                    del running[items]
                    idle.add(worker)
                    waiting.append(task)
                else:
                    deaths[task] = 0
                    yield task, item

    def _start(self, number: int) -> Any:
        remote = self._ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(Worker)
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment["DPSDA_HOME"] = str(home().resolve())
        return remote.remote(self._job, *self._bounds[number : number + 2], self.cpus, str(Path.cwd()), environment)


class RayAPI(TextAPI):
    """The language models of the workers. A prompt has the answer that one model alone would give, up to rounding."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

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

        with tqdm(total=len(prompts), unit="text", desc="generate", disable=not prompts) as bar:
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
        if len(missing) > FEW:
            parts = [missing[number :: self.workers.size] for number in range(self.workers.size)]
            tasks = [lambda part=part: (self.workers.dtype, [texts[i] for i in part]) for part in parts]
            for _ in self.workers.map("embed", tasks):
                pass
        return self.encoder.embed(texts, private=private, desc=desc)


class RayVoters:
    """The private records where the workers read them; their votes pass through files in `private`. `Voters`."""

    def __init__(self, workers: Workers, private: Path) -> None:
        self.workers, self.folder = workers, private / "votes"
        self._embedded = False

    def vote(self, candidates: np.ndarray, candidate_cells: np.ndarray, k: int, metric: str) -> np.ndarray:
        if not self._embedded:
            self.workers.embed_records("private records")
            self._embedded = True
        for left in self.folder.glob("*"):  # by a driver that died
            left.unlink()
        shared, cells = self.workers.share(candidates), self.workers.share(candidate_cells)
        # under names that a worker of a driver that died does not write to
        paths = [self.folder.resolve() / f"{uuid.uuid4().hex}.npy" for _ in range(self.workers.size)]
        tasks = [lambda p=path: (self.workers.dtype, p, shared, cells, k, metric) for path in paths]
        for _ in self.workers.map("vote", tasks, owned=True):
            pass
        votes = np.concatenate([np.load(path, allow_pickle=False) for path in paths])
        for path in paths:
            path.unlink()
        return votes


def start(
    options: EngineOptions,
    data: DataOptions,
    corpus: PrivateCorpus,
    embedding: EmbeddingOptions,
    device: str,
    api: Callable[[], Streams] | None = None,
) -> Workers:
    """The workers of a run on `corpus`, which is what `data` names; with `api`, they write texts, too."""
    from dpsda.data import load

    key = secrets.token_bytes(32)
    job = Job(
        api,
        functools.partial(Encoder, embedding.feature_extractor, device=device),
        functools.partial(load, corpus.spec, data.split, file=data.train_data_file, share=data.private_share),
        key,
        corpus.fingerprint(key),
    )
    return Workers(options, job, corpus.num_records)


def writer(options: EngineOptions, api: Callable[[], Streams]) -> RayAPI:
    """Workers that write texts and nothing else."""
    return RayAPI(Workers(options, Job(api)))


def _connect(address: str | None) -> Any:
    """The module `ray`, connected to the cluster at `address`, or to one that is started here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'dpsda[ray]'") from None
    if not ray.is_initialized():
        here = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            if address and address != "auto":  # Ray itself would wait for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **here)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"no Ray cluster answers at --ray_address {address} ({first_line(error)}); start one with `ray start "
                "--head`, or leave it out for workers on this machine"
            ) from None
    return ray


def _shape(ray: Any, workers: int | None, records: int | None) -> tuple[int, int, float]:
    """How many workers, and the CPU cores and GPUs of each: one a GPU, or without GPUs one a node; none without a
    record where there are some to own."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(node.get("GPU", 0) for node in nodes)
    nodes = [node for node in nodes if node.get("GPU" if gpus else "CPU", 0)]
    size = workers or int(gpus) or len(nodes)
    size = size if records is None else min(size, records)
    per_node = -(-size // max(1, len(nodes)))
    cpus = int(min((node.get("CPU", 0) for node in nodes), default=0)) // per_node
    if not cpus:
        raise InputError(f"--ray_workers {size}: the cluster has fewer CPU cores than that; give a smaller number")
    return size, cpus, min(1.0, gpus / size)
