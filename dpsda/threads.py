"""A machine that others use, too: how PyTorch's threads wait for each other there, and what is said of it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# How often a waiting thread looks before it sleeps. OpenMP's own 300,000 hold a core that the thread which is waited
# for may need: beside one busy process on two cores, that cost nine tenths of the speed, and this two fifths.
SPINS = "1000"
AFTER = 60.0  # seconds until the machine is looked at: what is refused is refused in a line of its own before
NOTICEABLE = 0.5  # cores


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
