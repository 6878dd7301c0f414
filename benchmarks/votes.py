"""One vote at the size of yelp: every private record's nearest candidate of its own label, from a memory-mapped file.

    python benchmarks/votes.py [--records 1940000 --dim 768 --labels 50 --candidates 35000 --ray_workers 2 --folder DIR]

The embeddings are made up and written to a file in DIR first (6 GB). The same vote on Ray workers, each of which reads
its range of the file, has to give the same. Beside it, for the first label alone, faiss's exact index, which has to
have the rows of a label in memory.
"""

import argparse
import functools
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from figures import record
from neighbors import faiss_search, vectors

from dpsda.augpe.ballot import Ballot
from dpsda.augpe.options import CORRECTIONS
from dpsda.augpe.voting import vote
from dpsda.cluster import Job, RayVoters, Workers
from dpsda.data import PrivateCorpus
from dpsda.data.loading import Texts
from dpsda.neighbors import nearest
from dpsda.options import EngineOptions
from dpsda.runs import secret_key

CHUNK = 20_000  # records made at a time


class Peak:
    """The most memory that is no file's, in GB, while the block runs: of this process, or of the Ray worker that takes
    the most."""

    def __init__(self, of_workers: bool = False) -> None:
        self._of_workers = of_workers

    def __enter__(self) -> "Peak":
        self.most, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            for folder in Path("/proc").glob("[0-9]*") if self._of_workers else [Path("/proc/self")]:
                try:
                    if self._of_workers and not (folder / "cmdline").read_bytes().startswith(b"ray::Worker"):
                        continue
                    status = (folder / "status").read_text()
                except OSError:  # it ended
                    continue
                line = next((line for line in status.splitlines() if line.startswith("RssAnon")), "RssAnon: 0 kB")
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


def made_up_vote(
    folder: Path, records: int, dim: int, labels: int, candidates: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The records, in a file in `folder`, and their labels; the candidates and theirs."""
    rng = np.random.default_rng(2)
    table = vectors(candidates, dim, rng)
    table_cells = rng.integers(labels, size=candidates)
    cells = rng.integers(labels, size=records)
    return made_up(folder, records, dim), cells, table, table_cells


class Rows:
    """An encoder whose text is the number of its row in a file."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.path, self.dtype = path, dtype

    def probe(self) -> str:
        return "rows"

    def embed(self, texts: list[str], *, private: bool) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")[int(texts[0]) : int(texts[-1]) + 1]

    def precompute(self, texts: list[str], *, private: bool) -> int:
        return 0


def made_up_corpus(cells: Path) -> PrivateCorpus:
    labels = np.load(cells).astype(np.int32)
    texts = Texts(pa.chunked_array([pa.array(map(str, range(len(labels))), pa.large_string())]))
    return PrivateCorpus(None, None, texts, labels, None, pd.DataFrame())


def on_ray(workers: int, folder: Path, *election) -> tuple[np.ndarray, float, float, float]:
    """The votes of Ray workers, the seconds of a first vote and of a second one, and the most memory of a worker."""
    load = functools.partial(made_up_corpus, folder / "cells.npy")
    corpus, key = load(), folder / "fingerprint.key"
    fingerprint = corpus.fingerprint(secret_key(key))
    job = Job(None, functools.partial(Rows, folder / "embeddings.npy"), load, key, fingerprint)
    voters = RayVoters(Workers(EngineOptions("ray", ray_workers=workers), job, corpus.num_records), folder)
    times = [time.perf_counter()]
    with Peak(of_workers=True) as peak:
        for _ in range(2):
            votes = voters.vote(*election)
            times.append(time.perf_counter())
    return votes, times[1] - times[0], times[2] - times[1], peak.most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_940_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--labels", type=int, default=50)
    parser.add_argument("--candidates", type=int, default=35_000)
    parser.add_argument("--ray_workers", type=int, default=2, help="0: without Ray")
    parser.add_argument("--hub_correction", default="none", choices=CORRECTIONS, help="of the first vote, and on Ray")
    parser.add_argument("--folder", type=Path, help="where the embeddings go; default: a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        sizes = args.records, args.dim, args.labels, args.candidates
        private, cells, candidates, candidate_cells = made_up_vote(Path(folder), *sizes)
        nearest(private[:2000], candidates[:2000])  # import torch
        with Peak() as peak:
            start = time.perf_counter()
            ballot = Ballot.of(candidates, candidate_cells, "L2", args.hub_correction, CORRECTIONS[args.hub_correction])
            votes = vote(private, cells, ballot, 1)
            seconds = time.perf_counter() - start
        print(
            f"{args.records:,} x {args.dim} in {args.labels} labels against {args.candidates:,}: {seconds:.0f} s, "
            f"{args.records / seconds:,.0f} records/s, at most {peak.most:.2f} GB beside the file"
        )
        if args.ray_workers:
            np.save(Path(folder) / "cells.npy", cells)
            same, first, second, most = on_ray(args.ray_workers, Path(folder), ballot, 1)
            assert (same == votes).all()
            record("votes of two Ray workers", second, seconds, "s", "one process of as many threads")
            print(
                f"{args.ray_workers} Ray workers: {second:.0f} s, {second / seconds:.2f} of the time of one process, "
                f"the first vote with their start {first:.0f} s; at most {most:.2f} GB in a worker; the same votes"
            )
        rows, own = np.flatnonzero(cells == 0), np.flatnonzero(candidate_cells == 0)
        start = time.perf_counter()
        found = nearest(private, candidates[own], rows=rows)
        middle = time.perf_counter()
        theirs = faiss_search(np.asarray(private[rows]), candidates[own], 1, "L2")
        end = time.perf_counter()
        assert args.hub_correction != "none" or (own[found] == votes[rows]).all()
        differ = int((found != theirs).sum())
        record("votes of one label, from a file", middle - start, end - middle, "s", "faiss IndexFlat, in memory")
        print(
            f"one label, {len(rows):,} against {len(own):,}: {middle - start:.1f} s, faiss {end - middle:.1f} s: "
            f"{(end - middle) / (middle - start):.2f}x; {differ} answers differ"
        )


if __name__ == "__main__":
    main()
