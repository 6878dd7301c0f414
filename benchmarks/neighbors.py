"""Nearest neighbours against faiss's exact index, in one run: the same answers, time and memory.

python benchmarks/neighbors.py [--queries 100000 --candidates 10000 --dim 384]
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from figures import record

from dpsda.neighbors import search

FAISS = {"L2": "IndexFlatL2", "IP": "IndexFlatIP"}


def vectors(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors around 50 centres, about as close to their neighbours as sentence embeddings are."""
    centres = np.random.default_rng(0).normal(size=(50, dim))
    x = np.empty((n, dim), dtype=np.float32)
    for start in range(0, n, 10_000):
        rows = x[start : start + 10_000]
        rows[:] = 0.7 * centres[rng.integers(0, 50, len(rows))] + rng.normal(size=rows.shape)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return x


def faiss_search(queries: np.ndarray, candidates: np.ndarray, k: int, metric: str) -> np.ndarray:
    import faiss

    index = getattr(faiss, FAISS[metric])(candidates.shape[1])
    index.add(candidates)
    return index.search(queries, k)[1]


def gap(queries: np.ndarray, candidates: np.ndarray, ours: np.ndarray, theirs: np.ndarray, metric: str) -> float:
    """By how much the two answers differ in distance (L2) or product (IP), at most, where they differ."""
    rows, ranks = np.nonzero(ours != theirs)
    if not len(rows):
        return 0.0
    q = queries[rows].astype(np.float64)
    a, b = (candidates[index[rows, ranks]].astype(np.float64) for index in (ours, theirs))
    if metric == "IP":
        return float(np.abs(np.vecdot(q, a) - np.vecdot(q, b)).max())
    return float(np.abs(np.linalg.norm(q - a, axis=1) - np.linalg.norm(q - b, axis=1)).max())


def resident() -> int:
    """The memory of this process in KB, now."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 5])
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    queries, candidates = vectors(args.queries, args.dim, rng), vectors(args.candidates, args.dim, rng)
    search(queries[:2000], candidates, 1, "L2")  # import torch
    before = resident()
    print("| metric | k | ours (s) | faiss (s) | faiss / ours | answers that differ | by at most |")
    print("|---|---|---|---|---|---|---|")
    for metric in FAISS:
        for k in args.k:
            start = time.perf_counter()
            ours = search(queries, candidates, k, metric)[0]
            middle = time.perf_counter()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            theirs = faiss_search(queries, candidates, k, metric)
            end = time.perf_counter()
            differ, most = int((ours != theirs).sum()), gap(queries, candidates, ours, theirs, metric)
            ratio = (end - middle) / (middle - start)
            print(
                f"| {metric} | {k} | {middle - start:.1f} | {end - middle:.1f} | {ratio:.2f} | {differ} | {most:.1e} |",
                flush=True,
            )
            assert most <= 1e-5
            if metric == "L2" and k == args.k[0]:  # before faiss had a chance to raise the peak
                extra = (peak - before) / 1024
                record("nearest neighbours", middle - start, end - middle, "s", "faiss IndexFlat")
    print(f"\nPeak above the inputs, ours: {extra:.0f} MB")


if __name__ == "__main__":
    main()
