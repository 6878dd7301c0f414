"""A process that is killed at random moments, again and again, on what the one before it left."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from dpsda.privacy.ledger import Ledger
from tests.forks import ROOT, Forked

DRIVER = """
import os, random, shutil, signal, sys, time
from pathlib import Path
{setup}
sys.stdin, sys.stdout = open(0), open(1, "w")
def whole():
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        if torch := sys.modules.get("torch"):  # its pool of threads is made anew after a fork, by the first who asks:
            torch.set_num_threads(torch.get_num_threads())  # two threads at once find none
        {work}
        os._exit(0)
    return child
root, out = Path({root!r}), sys.stdout
sys.stdout = open(os.devnull, "w")
start = time.monotonic()
{work}  # so that every child of this process finds imported and computed what each would have to
first = time.monotonic() - start
sys.stdout = out
aside = root.rename(root.with_name("aside"))
start = time.monotonic()
assert os.waitpid(whole(), 0)[1] == 0
full = min(first, time.monotonic() - start)  # a machine that stands still in one of them would have kills come too late
shutil.rmtree(root)
aside.rename(root)
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


def stored_votes(root: Path) -> dict[str, bytes | None]:
    """The noisy votes and marginals that a run has committed, as they are stored; none where it has no ledger yet."""
    if not (root / "state" / "ledger.jsonl").exists():
        return {}
    book = Ledger(root, read_only=True)
    names = {
        line["name"]
        for line in book.lines
        if line["type"] == "commit" and line["name"].startswith(("votes", "marginals"))
    }
    return {name: book.stored(name) for name in names}


class Killer:
    """Does `setup` once, and `work`, one line that makes a run in folder `root`, to its end; then again as often as
    `kill` is called, from what is there."""

    def __init__(self, setup: str, work: str, root: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            pipes = [Path(folder, name) for name in ("in", "out")]
            for pipe in pipes:
                os.mkfifo(pipe)
            code = DRIVER.format(setup=setup, work=work, root=str(root))
            self.process = Forked(code=code, cwd=ROOT, streams=(*pipes, os.devnull))
            self.stdin, self.stdout = pipes[0].open("w"), pipes[1].open()
        assert float(self.stdout.readline()) > 0

    def kill(self) -> int:
        """Begin anew and kill; the exit status, 0 where it was done before."""
        self.stdin.write("\n")
        self.stdin.flush()
        return int(self.stdout.readline())

    def close(self) -> None:
        self.stdin.close()
        self.stdout.close()
        self.process.wait()
