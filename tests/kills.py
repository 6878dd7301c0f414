"""A process that is killed at random moments, again and again, on what the one before it left."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DRIVER = """
import os, random, signal, sys, time
sys.path[:0] = [{root!r}]
from pathlib import Path
{setup}
torch.set_num_threads(1)
def whole():
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        {work}
        os._exit(0)
    return child
start = time.monotonic()
assert os.waitpid(whole(), 0)[1] == 0
full = time.monotonic() - start
print(full, flush=True)
draw = random.Random()
for line in sys.stdin:  # one kill a line
    child = whole()
    time.sleep(draw.uniform(0.02, 0.95) * full)
    os.kill(child, signal.SIGKILL)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def ray_workers(driver: int) -> list[int]:
    """The processes of the workers of a Ray cluster that the process `driver` started: between them is Ray's own."""

    def parent(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            named = (folder / "cmdline").read_bytes().startswith(b"ray::Worker")
            if named and parent(parent(int(folder.name))) == driver:
                found.append(int(folder.name))
    return found


class Killer:
    """Imports `setup`, which has torch in it, once; does `work`, one statement, once to its end, and then as often as
    `kill` is called."""

    def __init__(self, setup: str, work: str) -> None:
        code = DRIVER.format(root=str(ROOT), setup=setup, work=work)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert float(self.process.stdout.readline()) > 0

    def kill(self) -> int:
        """Begin anew and kill; the exit status, 0 where it was done before."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
