"""How time and memory grow with the work: curves, the slope of each on logarithmic axes, and one large run.

    PYTHONPATH=. python benchmarks/scale.py                    a quarter of an hour on two cores, 5 GB of disk
    PYTHONPATH=. python benchmarks/scale.py --largest 10000000    votes of so many records at last, 1.5 kB of disk each
    PYTHONPATH=. python benchmarks/scale.py --quick            small sizes: that it runs, not what it finds

All records, embeddings and votes are made up. Slope 1 is proportional; below, a part that does not grow is still seen.
Memory is what is no file's (a memory-mapped file is the system's cache), above what the process had before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from loading import LOAD, SPEC, write
from votes import Peak, made_up

from dpsda.augpe.ballot import Ballot
from dpsda.augpe.options import CORRECTIONS
from dpsda.augpe.selection import select
from dpsda.augpe.voting import vote
from dpsda.instruct import resampling
from dpsda.pmixed.planning import plan
from dpsda.privacy import accounting
from dpsda.privacy.mechanism import histogram
from dpsda.privacy.mixture import Mixture

DIM = 384
LABELS = 100  # of what is selected
CLUSTERS = 1000  # of what is resampled


def curve(what: str, sizes: Sequence[int], work: Callable[[int], Callable[[], object]], largest: int) -> None:
    """Print seconds and memory of `work` at these sizes, cut by `largest`; it prepares, and gives what is timed."""
    sizes = [size for size in sizes if size <= largest]
    rows = []
    for size in sizes:
        job = work(size)
        with Peak() as before:
            time.sleep(0.1)
        with Peak() as peak:
            start = time.perf_counter()
            job()
            seconds = time.perf_counter() - start
        rows.append((size, seconds, max(0.0, peak.most - before.most)))
    show(what, rows)


def show(what: str, rows: list[tuple[int, float, float]]) -> None:
    size, seconds, _ = (np.array(column) for column in zip(*rows, strict=True))
    slopes = " | "
    if len(rows) > 1:
        fitted, _ = np.polyfit(np.log(size), np.log(seconds), 1)
        slopes = f"{fitted:.2f} | {np.log(seconds[-1] / seconds[-2]) / np.log(size[-1] / size[-2]):.2f}"
    cells = ", ".join(f"{n:,}: {s:.3g} s" for n, s, _ in rows)
    print(f"| {what} | {cells} | {slopes} | {max(memory for *_, memory in rows):.2f} |", flush=True)


def loaded(sizes: Sequence[int], folder: Path) -> Iterator[tuple[int, float, float]]:
    """Records of a csv file, each size in a process of its own."""
    for size in sizes:
        (folder / "spec.yaml").write_text(SPEC, encoding="utf-8")
        write(folder / "train.csv", size)
        command = [sys.executable, "-c", LOAD, str(folder), "all"]
        row = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("|")
        yield size, float(row[3]), float(row[4])
    (folder / "train.csv").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, help="records of a last vote, from a memory-mapped file")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the files go; default: a temporary folder")
    args = parser.parse_args()
    most = 20_000 if args.quick else 10**9
    rng = np.random.default_rng(0)

    def ballot(candidates: int, labels: int = 1) -> Ballot:
        table = rng.normal(size=(candidates, DIM)).astype(np.float32)
        table /= np.linalg.norm(table, axis=1, keepdims=True)
        return Ballot.of(table, np.arange(candidates) % labels, "L2", "none", CORRECTIONS["none"])

    def voting(records: int, candidates: int, labels: int = 1) -> Callable[[], object]:
        given, cells = ballot(candidates, labels), np.arange(records) % labels
        return lambda: vote(private[:records], cells, given, 1)

    def noisy(bins: int) -> Callable[[], object]:
        cast = rng.integers(bins, size=(100_000, 1))
        cells, kept = np.arange(bins) % LABELS, np.full(LABELS, bins // LABELS // 2)

        def work() -> None:
            counts = histogram("record", 10.0).release(cast, None, bins)
            select(counts, cells, kept, "rank", 0.0, np.random.default_rng(0))

        return work

    def resampled(texts: int) -> Callable[[], object]:
        clusters, target = rng.integers(CLUSTERS, size=texts), rng.dirichlet(np.ones(CLUSTERS))

        def work() -> None:
            given = resampling.allocate(target, np.bincount(clusters, minlength=CLUSTERS), texts // 4)
            resampling.draw(clusters, given, 0)

        return work

    def calibrated(iterations: int) -> Callable[[], object]:
        return lambda: accounting.calibrate(lambda noise: [histogram("record", noise).event] * iterations, 4.0, 1e-6)

    def planned(answers: int) -> Callable[[], object]:
        return lambda: plan("auto", Mixture(80, 0.03), answers, 8.0, 1e-6)

    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        print("| what | size: seconds | slope | of the last two | GB at most |\n|---|---|---:|---:|---:|")
        sizes = [size for size in (10_000, 100_000, 1_000_000, 2_000_000) if size <= most]
        show("records loaded from a csv file of 600 characters a text", list(loaded(sizes, folder)))
        private = made_up(folder, min(2_000_000, most), DIM)
        vote(private[:2000], np.zeros(2000, dtype=int), ballot(100), 1)  # import torch
        curve("records that vote on 1,000 candidates", sizes, lambda n: voting(n, 1000), most)
        curve("candidates that 10,000 records vote on", (1000, 10_000, 100_000), lambda n: voting(10_000, n), most)
        curve(
            "labels of 100,000 records and 10,000 candidates",
            (1, 10, 100, 1000),
            lambda n: voting(min(100_000, most), 10_000, n),
            most,
        )
        curve(
            "candidates whose counts get noise and are selected from", (1000, 10_000, 100_000, 1_000_000), noisy, most
        )
        curve("texts that a quarter is resampled from", (10_000, 100_000, 1_000_000, 10_000_000), resampled, most)
        calibrated(2)()  # import the accountants
        curve("iterations that noise is calibrated for", (1, 10, 100, 1000), calibrated, most)
        curve("answers of PMixED that are planned", (1000, 10**5, 10**7, 10**8), planned, 10**9)
        if args.largest:
            del private  # and its file, for the room
            (folder / "embeddings.npy").unlink()
            private = made_up(folder, args.largest, DIM)
            curve("a large vote on 1,000 candidates", (args.largest,), lambda n: voting(n, 1000), args.largest)


if __name__ == "__main__":
    main()
