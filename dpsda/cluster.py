"""The heavy maps of a run on the workers of a Ray cluster: generation, embedding, and votes.

A worker is a process with a language model, an encoder and a range of the private records, each loaded when it is first
needed; `map` gives the tasks to the workers and starts another one for one that dies. What goes through Ray is public:
prompts and answers, candidates and their cells, row ranges. Private texts are read by the worker that owns
their range, from the data set's own file; their vectors lie in the private cache of embeddings, and votes in the
private folder of the run. Noise is drawn on the driver alone, after the votes are there. (A run without noise protects
nothing: its candidates go through Ray as well.)
"""

from __future__ import annotations

import functools
import math
import os
import socket
import sys
import traceback
import uuid
from collections import Counter, deque
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
from dpsda.runs import secret_key

if TYPE_CHECKING:
    from dpsda.data import PrivateCorpus
    from dpsda.options import DataOptions, EmbeddingOptions, EngineOptions

TRIES = 6  # workers that may die at one task before anything comes back of it
PATIENCE = 600  # seconds to wait for a place in the cluster
PIECE = 1 << 16  # private texts that a worker embeds between two signs of life
FEW = 64  # texts that are embedded where they are
RESUMED = ("answer", "embed_records")  # of which a second try has less to do
PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME")  # what a worker on another machine takes over from the driver's environment


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
    def vote(
        self, how: Format, path: Path, candidates: np.ndarray, candidate_cells: np.ndarray, k: int, metric: str
    ) -> Iterator[None]:
        """Write the votes of the worker's own records, (end - begin, k), into a file of the run's private folder."""
        from dpsda.augpe.voting import vote

        vectors, cells = self._part("records", lambda: self._records(how))
        votes = vote(vectors, cells, candidates, candidate_cells, k, metric)
        with appearing(path) as scratch, open(scratch, "wb") as file:
            np.save(file, votes, allow_pickle=False)
        yield None

    def _encoder(self, how: Format | None) -> Encoder:
        """The encoder; InputError where it computes in another way than the first worker's, as a record's vote would
        then depend on which worker the record falls to."""

        def load() -> Encoder:
            assert self.job.encoder is not None
            encoder = self.job.encoder(dtype=how.dtype if how else "auto")
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
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(self.threads)
        return self.loaded[name]


class Workers:
    """The workers of one run. They end with the process that made them."""

    def __init__(self, options: EngineOptions, job: Job, records: int = 0) -> None:
        self._ray = _connect(options.ray_address)
        self.size, self.cpus, self.gpus = _shape(self._ray, options.ray_workers, records if job.corpus else None)
        self._job, self._shared_job = job, self._ray.put(job)
        self._bounds = np.linspace(0, records, self.size + 1).astype(int).tolist()
        self.records = records
        self._actors: dict[int, Any] = {}
        self._starting: dict[Any, int] = {}  # what comes when a worker is up
        for number in range(self.size):
            self._start(number)

    def __str__(self) -> str:
        share = "a GPU and " if self.gpus else ""
        return f"ray: {self.size} workers, each with {share}{self.cpus} CPU cores"

    @functools.cached_property
    def format(self) -> Format:
        """How the encoder computes that fits the workers best: the first of them that answers has chosen."""
        return [how for _, how in self.map("format", [tuple])][-1]  # twice, where it answered and died

    def encoder(self) -> Encoder:
        """The encoder in this process: it finds in the cache what the workers put there."""
        assert self._job.encoder is not None
        return self._job.encoder(dtype=self.format.dtype)

    def embed_records(self, desc: str) -> None:
        """Put the vectors of all private records into the private cache."""
        from tqdm import tqdm

        done, how = [0] * self.size, self.format
        with tqdm(total=self.records, desc=desc, bar_format=PRIVATE_BAR, delay=1) as bar:
            tasks = [lambda number=number: (how, done[number]) for number in range(self.size)]
            for number, some in self.map("embed_records", tasks, owned=True):
                done[number] += some
                bar.update(some)

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
        waiting, idle = deque(range(len(tasks))), set(range(self.size)) - set(self._starting.values())
        running: dict[Any, tuple[int, int]] = {}
        deaths: Counter[int | None] = Counter()  # by task, and of workers that did not come up
        while waiting or running:
            for _ in range(len(waiting)):
                task = waiting.popleft()
                worker = task if owned else next(iter(idle), -1)
                if worker not in idle:
                    waiting.append(task)
                    continue
                idle.remove(worker)
                stream = self._actors[worker].work.options(num_returns="streaming")
                running[stream.remote(method, *tasks[task]())] = worker, task
            awaited = [*running, *self._starting]
            ready, _ = ray.wait(awaited, num_returns=1, timeout=None if running else PATIENCE)
            if not ready:
                raise InputError(
                    f"the Ray cluster had no place for a worker with {self.cpus} CPU cores and {self.gpus} GPUs for "
                    f"{PATIENCE / 60:g} minutes; give a smaller --ray_workers, or try again when it is free"
                )
            [what] = ready
            worker, task = (self._starting[what], None) if what in self._starting else running[what]
            try:
                item = ray.get(what if task is None else next(what))
            except ray.exceptions.RayTaskError as error:
                if isinstance(error.cause, InputError | OSError):
                    raise error.cause from None
                raise
            except (ray.exceptions.RayError, StopIteration) as error:
                self._bury(worker, error)
                if task is not None:
                    del running[what]
                    waiting.append(task)
                deaths[task] += 1
                if deaths[task] == TRIES:
                    raise InputError(
                        f"{TRIES} Ray workers died one after the other at the same task ({method}; "
                        f"{first_line(error)}): is there memory for {self.size} workers? See --ray_workers"
                    ) from None
            else:
                if task is None:
                    del self._starting[what]
                    idle.add(worker)
                    deaths[None] = 0
                elif isinstance(item, End):
                    del running[what]
                    idle.add(worker)
                else:
                    if method in RESUMED:
                        deaths[task] = 0
                    yield task, item

    def _bury(self, number: int, error: Exception) -> None:
        """Another worker in the place of one that is gone, with its process or its node. Any other error is raised."""
        gone = self._ray.exceptions
        dead = (StopIteration, gone.RayActorError, gone.NodeDiedError, gone.WorkerCrashedError, gone.ObjectLostError)
        if not isinstance(error, (*dead, gone.OutOfMemoryError)):
            raise error
        if getattr(error, "actor_init_failed", False):
            reason = [line for line in str(error).splitlines() if line.strip()][-1]
            raise InputError(
                f"a Ray worker cannot start ({reason.strip()}); is dpsda installed on every node?"
            ) from None
        self._ray.kill(self._actors[number])
        self._start(number)

    def _start(self, number: int) -> None:
        """Ask for worker `number`; until it has a place and is up, it counts as starting."""
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment["DPSDA_HOME"] = str(home().resolve())
        job, own = [self._shared_job], self._bounds[number : number + 2]
        remote = self._ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, scheduling_strategy="SPREAD")(Worker)
        self._actors[number] = remote.remote(job, *own, self.cpus, str(Path.cwd()), environment)
        self._starting = {ref: other for ref, other in self._starting.items() if other != number}
        self._starting[self._actors[number].__ray_ready__.remote()] = number


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

    def vote(self, candidates: np.ndarray, candidate_cells: np.ndarray, k: int, metric: str) -> np.ndarray:
        if not self._embedded:
            self.workers.embed_records("private records")
            self._embedded = True
        self._clear()  # of what a driver left that died
        how, shared, cells = self.workers.format, self.workers.share(candidates), self.workers.share(candidate_cells)
        # under names that a worker of a driver that died does not write to
        paths = [self.folder.resolve() / f"{uuid.uuid4().hex}.npy" for _ in range(self.workers.size)]
        tasks = [lambda p=path: (how, p, shared, cells, k, metric) for path in paths]
        for _ in self.workers.map("vote", tasks, owned=True):
            pass
        votes = np.concatenate([np.load(path, allow_pickle=False) for path in paths])
        self._clear()
        return votes

    def _clear(self) -> None:
        for path in self.folder.glob("*"):
            path.unlink(missing_ok=True)


def start(
    options: EngineOptions,
    data: DataOptions,
    corpus: PrivateCorpus,
    key: Path,
    embedding: EmbeddingOptions,
    device: str,
    api: Callable[[], Streams] | None = None,
) -> Workers:
    """The workers of a run on `corpus`, which is what `data` names; with `api`, they write texts, too. `key` is the
    private file of the fingerprint's key."""
    from dpsda.data import load

    job = Job(
        api,
        functools.partial(Encoder, embedding.feature_extractor, device=device),
        functools.partial(load, corpus.spec, data.split, file=data.train_data_file, share=data.private_share),
        key.resolve(),
        corpus.fingerprint(secret_key(key)),
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
        raise InputError("--engine ray needs Ray: pip install -e '.[ray]'") from None
    if not ray.is_initialized():
        here = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            if address and address != "auto":  # Ray itself would wait for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            umask = os.umask(0o077)  # Ray itself would let every user of the machine read its token and logs
            try:
                ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **here)
            finally:
                os.umask(umask)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise InputError(
                f"no Ray cluster answers at --ray_address {address} ({first_line(error)}); docs/scale.md has how to "
                "start one, and without an address the workers are on this machine"
            ) from None
    return ray


def _shape(ray: Any, workers: int | None, records: int | None) -> tuple[int, int, int]:
    """How many workers, and the CPU cores and GPUs of each: one a GPU, or without GPUs one a node; none without a
    record where there are some to own."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    gpus = any(node.get("GPU", 0) >= 1 for node in nodes)

    def places(cpus: int) -> int:
        """How many workers of so many cores the nodes hold."""
        return sum(int(min(node["CPU"] // cpus, node.get("GPU", 0) if gpus else math.inf)) for node in nodes)

    room = places(1)
    size = workers or (room if gpus else len(nodes))
    if not 1 <= size <= room:
        takes = "a GPU and a CPU core" if gpus else "a CPU core"
        raise InputError(f"the cluster has room for {room} workers, each of which takes {takes}, and not for {size}")
    size = size if records is None else min(size, records)
    most = int(max(node["CPU"] for node in nodes) if workers or gpus else min(node["CPU"] for node in nodes))
    return size, next(cpus for cpus in range(most, 0, -1) if places(cpus) >= size), int(gpus)
