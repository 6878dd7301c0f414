"""A whole Aug-PE run on Ray workers beside the same run in one process; and one whose workers and drivers are killed.

    PYTHONPATH=. python benchmarks/cluster.py              two runs of minutes without noise: the same texts and votes?
    PYTHONPATH=. python benchmarks/cluster.py --kills 5    and two more, with as many kills of a worker and of a driver

The runs are the quickstart's with fewer iterations, from an empty cache of embeddings. A run without noise has a seed
for everything, so the two have to be the same file by file. The run whose drivers die has a budget: what it drew has to
be drawn once, and what was answered to stay.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from figures import record

from dpsda.assets import home
from dpsda.privacy import certificate
from dpsda.privacy.ledger import Ledger
from tests.kills import ray_workers

ROOT = Path(__file__).parents[1]


def start(folder: Path, name: str, *words: str) -> subprocess.Popen:
    """main.py on the way to folder / name, with an empty cache of embeddings of its own."""
    own = folder / f"home-{name}"
    own.mkdir(exist_ok=True)
    for known in ("assets", "models"):
        if not (own / known).exists():
            (own / known).symlink_to(home() / known)
    command = [sys.executable, str(ROOT / "main.py"), "--config", str(ROOT / "data/rotten_tomatoes/quickstart.yaml")]
    command += ["--result_folder", str(folder / name), *words]
    environment = {**os.environ, "DPSDA_HOME": str(own)}
    log = open(folder / f"{name}.log", "ab")  # noqa: SIM115
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def ended(process: subprocess.Popen, folder: Path, name: str) -> float:
    """Waits for it; when it ended. It has to end well."""
    if process.wait():
        sys.exit((folder / f"{name}.log").read_text(errors="replace")[-2000:])
    return time.monotonic()


def results(run: Path) -> dict[str, bytes]:
    """What a run leaves of its texts and votes, by name."""
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.csv"))}


def kill_workers(process: subprocess.Popen, times: int, seconds: float, draw: random.Random) -> int:
    """SIGKILL of a worker at so many random moments of a run that takes `seconds` without them; how many died."""
    killed, began = 0, time.monotonic()
    for moment in sorted(draw.uniform(0.1, 0.9) * seconds for _ in range(times)):
        time.sleep(max(0, began + moment - time.monotonic()))
        while not (there := ray_workers(process.pid)) and process.poll() is None:
            time.sleep(0.1)
        if there:
            os.kill(draw.choice(there), signal.SIGKILL)
            killed += 1
    return killed


def kill_drivers(again: Callable[[], subprocess.Popen], run: Path, times: int, seconds: float, draw) -> int:
    """SIGKILL of so many drivers, one after the other at a random moment; how many died. What was on disk, stays."""
    killed, kept, ledger, answers = 0, {}, [], {}
    for _ in range(times):
        process = again()
        time.sleep(draw.uniform(0.05, 0.3) * seconds)
        killed += process.poll() is None
        process.kill()
        process.wait()
        _stays(run, kept, ledger, answers)
    ended(again(), run.parent, run.name)
    _stays(run, kept, ledger, answers)
    return killed


def _stays(run: Path, kept: dict[str, bytes], ledger: list[dict], answers: dict[str, bytes]) -> None:
    """What was there before is there still, and is taken note of."""
    now = {n: text for n, text in results(run).items() if Path(n).name in ("samples.csv", "counts.csv")}
    assert {name: now.get(name) for name in kept} == kept
    kept.update(now)
    if (run / "state" / "ledger.jsonl").exists():
        lines = Ledger(run, read_only=True).lines
        assert lines[: len(ledger)] == ledger
        ledger[:] = lines
    for path in (run / "state" / "answers").glob("*.jsonl"):
        lines_now = path.read_bytes()
        whole = lines_now[: lines_now.rfind(b"\n") + 1]
        assert whole.startswith(answers.get(path.name, b""))
        answers[path.name] = whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--kills", type=int, default=0)
    args = parser.parse_args()
    size = ["--epochs", str(args.epochs), "--num_seed_samples", str(args.texts)]
    ray = ["--engine", "ray", "--ray_workers", str(args.workers)]
    draw = random.Random()
    with tempfile.TemporaryDirectory() as scratch:
        folder, seconds = Path(scratch), {}
        for name, words in (("serial", []), ("ray", ray)):
            began = time.monotonic()
            seconds[name] = ended(start(folder, name, "--epsilon", "inf", *size, *words), folder, name) - began
        wanted = results(folder / "serial")
        same = {name for name, text in results(folder / "ray").items() if wanted.get(name) == text}
        record("Aug-PE on two Ray workers", seconds["ray"], seconds["serial"], "s", "one process")
        print(
            f"{args.texts} texts, {args.epochs} iterations: one process {seconds['serial']:.0f} s, {args.workers} Ray "
            f"workers {seconds['ray']:.0f} s ({seconds['ray'] / seconds['serial'] - 1:+.1%}); {len(same)} of "
            f"{len(wanted)} files of texts and votes are the same",
            flush=True,
        )
        if not args.kills:
            return
        process = start(folder, "workers", "--epsilon", "inf", *size, *ray)
        killed = kill_workers(process, args.kills, seconds["ray"], draw)
        ended(process, folder, "workers")
        same = {name for name, text in results(folder / "workers").items() if wanted.get(name) == text}
        print(f"{killed} workers killed: {len(same)} of {len(wanted)} files are the same", flush=True)
        run = folder / "drivers"
        killed = kill_drivers(
            lambda: start(folder, "drivers", "--epsilon", "4", *size, *ray), run, args.kills, seconds["ray"], draw
        )
        names = [line["name"] for line in Ledger(run, read_only=True).lines if line["type"] == "reserve"]
        assert len(names) == len(set(names))
        facts = certificate.verify(run)
        print(
            f"{killed} drivers killed: {len(names)} releases drawn, each once, epsilon {facts['epsilon']}; no answer, "
            "text or count that was there has changed"
        )


if __name__ == "__main__":
    main()
