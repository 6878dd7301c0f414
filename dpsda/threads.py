"""How PyTorch's threads wait for each other on a machine that others use, too, what is said of it, and work that is cut
into parts for threads that need not wait for each other."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

# How often a waiting thread looks before it sleeps. OpenMP's own 300,000 hold a core that the thread which is waited
# for may need: beside one busy process on two cores, that cost nine tenths of the speed, and this two fifths.
SPINS = "1000"
AFTER = 60.0  # seconds until the machine is looked at: what is refused is refused in a line of its own before
NOTICEABLE = 0.5  # cores
MOST_PARTS = 4  # more would wait for each other's Python

T = TypeVar("T")


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Inside the block, threads sleep where they wait, unless the environment says how; torch must not be imported
    before. After a while in it, it is said if other processes keep the cores busy."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    watch = threading.Timer(AFTER, _say, (_used(), time.monotonic()))
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def _say(before: tuple[float, float] | None, start: float) -> None:
    after = _used()
    if before is None or after is None or "ray" in sys.modules:  # whose workers are our own
        return
    others = ((after[0] - before[0]) - (after[1] - before[1])) / (time.monotonic() - start)
    if others >= NOTICEABLE:
        cores = len(os.sched_getaffinity(0))
        print(
            f"note: other processes take {others:.1f} of the {cores} cores here, so this takes longer", file=sys.stderr
        )


def _used() -> tuple[float, float] | None:
    """Seconds that the cores of this process have worked, and that it has itself; None where no one tells."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        tick = os.sysconf("SC_CLK_TCK")
        own = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    except (OSError, ValueError, AttributeError):  # not on Linux
        return None
    # of each core: user, nice, system, idle, waiting for a disk, interrupts twice, stolen
    cores = [[int(part) for part in line.split()[1:9]] for line in lines if line.split()[0] in own]
    times = os.times()
    mine = times.user + times.system + times.children_user + times.children_system
    return sum(sum(core[:3]) + sum(core[5:]) for core in cores) / tick, mine


def most_parts(device: str) -> int:
    """Into how many parts work on a device is best cut, for `side_by_side`."""
    import torch

    return min(MOST_PARTS, torch.get_num_threads()) if device == "cpu" else 1


def side_by_side(iterators: Sequence[Iterator[T]]) -> Iterator[T]:
    """What the iterators give, in the order in which it comes, each in a thread of its own with its share of the cores.

    Small models have short matrix products, and in each of them all threads of PyTorch wait for the slowest: with two
    they take as long as with one (benchmarks/README.md). Threads with products of their own do not wait.
    """
    import torch

    if len(iterators) == 1:
        yield from iterators[0]
        return
    cores = torch.get_num_threads()
    given = queue.SimpleQueue[tuple[list[T], BaseException | None]]()  # no item is the end of an iterator
    stopped = threading.Event()

    def work(iterator: Iterator[T]) -> None:
        torch.set_num_threads(max(1, cores // len(iterators)))  # of this thread
        try:
            for item in iterator:
                if stopped.is_set():
                    break
                given.put(([item], None))
            given.put(([], None))
        except BaseException as error:
            given.put(([], error))

    workers = [threading.Thread(target=work, args=(iterator,), daemon=True) for iterator in iterators]
    try:
        for worker in workers:
            worker.start()
        running = len(workers)
        while running:
            items, error = given.get()
            if error is not None:
                raise error
            running -= not items
            yield from items
    finally:
        stopped.set()
        for worker in workers:
            worker.join()
        torch.set_num_threads(cores)  # of threads that are yet to come
