"""One vote at the size of yelp: every private record's nearest candidate of its own label, from a memory-mapped file.

    python benchmarks/votes.py [--records 1940000 --dim 768 --labels 50 --candidates 35000 --folder DIR]

The embeddings are made up and written to a file in DIR first (6 GB). Beside it, for the first label alone, faiss's
exact index, which has to have the rows of a label in memory.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from figures import record
from neighbors import faiss_search, vectors

from dpsda.augpe.voting import vote
from dpsda.neighbors import search

CHUNK = 20_000  # records made at a time


class Peak:
    """The most memory of this process that is no file's, in GB, while the block runs."""

    def __enter__(self) -> "Peak":
        self.most, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            status = Path("/proc/self/status").read_text()
            line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            self.most = max(self.most, int(line.split()[1]) / 1e6)

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()


def made_up(folder: Path, records: int, dim: int) -> np.ndarray:
    """(records, dim) float32 on disk, read through a memory map."""
    path, rng = folder / "embeddings.npy", np.random.default_rng(1)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(records, dim))
    for start in range(0, records, CHUNK):
        part = rows[start : start + CHUNK]
        part[:] = vectors(len(part), dim, rng)
    rows.flush()
    del rows
    return np.load(path, mmap_mode="r")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_940_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--labels", type=int, default=50)
    parser.add_argument("--candidates", type=int, default=35_000)
    parser.add_argument("--folder", type=Path, help="where the embeddings go; default: a temporary folder")
    args = parser.parse_args()
    rng = np.random.default_rng(2)
    candidates = vectors(args.candidates, args.dim, rng)
    candidate_cells = rng.integers(args.labels, size=args.candidates)
    cells = rng.integers(args.labels, size=args.records)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        private = made_up(Path(folder), args.records, args.dim)
        search(private[:2000], candidates[:2000])  # import torch
        with Peak() as peak:
            start = time.perf_counter()
            votes = vote(private, cells, candidates, candidate_cells, 1, "L2")
            seconds = time.perf_counter() - start
        print(
            f"{args.records:,} x {args.dim} in {args.labels} labels against {args.candidates:,}: {seconds:.0f} s, "
            f"{args.records / seconds:,.0f} records/s, at most {peak.most:.2f} GB beside the file"
        )
        rows, own = np.flatnonzero(cells == 0), np.flatnonzero(candidate_cells == 0)
        start = time.perf_counter()
        found = search(private, candidates[own], rows=rows)[0]
        middle = time.perf_counter()
        theirs = faiss_search(np.asarray(private[rows]), candidates[own], 1, "L2")
        end = time.perf_counter()
        assert (own[found] == votes[rows]).all()
        differ = int((found != theirs).sum())
        record("votes of one label, from a file", middle - start, end - middle, "s", "faiss IndexFlat, in memory")
        print(
            f"one label, {len(rows):,} against {len(own):,}: {middle - start:.1f} s, faiss {end - middle:.1f} s: "
            f"{(end - middle) / (middle - start):.2f}x; {differ} answers differ"
        )


if __name__ == "__main__":
    main()
