"""The workers of a run: which there are, what each of them does, and another one for one that dies."""

from __future__ import annotations

import functools
import math
import os
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsda.assets import home
from dpsda.cluster.worker import End, Format, Job, Worker
from dpsda.embedding import PRIVATE_BAR, Encoder
from dpsda.errors import InputError, first_line

if TYPE_CHECKING:
    from dpsda.options import EngineOptions

TRIES = 6  # workers that may die at one task before anything comes back of it
PATIENCE = 600  # seconds to wait for a place in the cluster
RESUMED = ("answer", "embed_records")  # of which a second try has less to do
PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME")  # what a worker on another machine takes over from the driver's environment


class Workers:
    """The workers of one run. They end with the process that made them."""

    def __init__(self, options: EngineOptions, job: Job, records: int = 0) -> None:
        self._ray = connect(options.ray_address)
        self.size, self.cpus, self.gpus = shape(self._ray, options.ray_workers, records if job.corpus else None)
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
        task: int | None
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


def connect(address: str | None) -> Any:
    """The module `ray`, connected to the cluster at `address`, or to one that is started here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    try:
        import ray
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'dpsda[ray]'") from None
    if not ray.is_initialized():
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if not address:
            settings |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            if address and address != "auto":  # Ray itself would wait for minutes
                host, _, port = address.rpartition(":")
                socket.create_connection((host, int(port)), timeout=10).close()
            umask = os.umask(0o077)  # Ray itself would let every user of the machine read its token and logs
            try:
                ray.init(address=address or "local", **settings)
            finally:
                os.umask(umask)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise InputError(
                f"no Ray cluster answers at --ray_address {address} ({first_line(error)}); docs/scale.md has how to "
                "start one, and without an address the workers are on this machine"
            ) from None
    return ray


def shape(ray: Any, workers: int | None, records: int | None) -> tuple[int, int, int]:
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
