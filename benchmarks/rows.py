"""How good rows from noisy marginals are: the mean total variation of all pairs of attributes to the records.

    python benchmarks/rows.py                        K = 8, 12, 30 attributes, 20,000 records, epsilon 1, 4 and inf
    python benchmarks/rows.py --write FOLDER         the same tables as files, for benchmarks/peers/dpmm.sh

The records are drawn from a made-up Bayesian network, in which each attribute has 2 to 6 values and up to two parents.
`independent` spends the same budget on single attributes and draws each by itself; `another sample` is what as many
other records of the network are from these, which nothing could be much better than.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import time
from pathlib import Path

import numpy as np

KINDS, RECORDS, EPSILONS = (8, 12, 30), 20_000, (1.0, 4.0, float("inf"))


def network(attributes: int, seed: int = 0):
    """The sizes, and what draws so many records."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 7, attributes)
    parents = [rng.choice(k, min(k, 2), replace=False) for k in range(attributes)]
    laws = [rng.dirichlet(np.full(sizes[k], 0.6), int(np.prod(sizes[parents[k]]))) for k in range(attributes)]

    def records(number: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        codes = np.zeros((number, attributes), np.int32)
        for k in range(attributes):
            of = sizes[parents[k]]
            which = np.ravel_multi_index(tuple(codes[:, parents[k]].T), of) if len(of) else np.zeros(number, int)
            codes[:, k] = (laws[k].cumsum(axis=1)[which, :-1] < rng.random(number)[:, None]).sum(axis=1)
        return codes

    return sizes, records


def pairs(codes: np.ndarray, sizes: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """The shares of every pair of values."""
    found = {}
    for i, j in itertools.combinations(range(len(sizes)), 2):
        flat = np.bincount(codes[:, i] * sizes[j] + codes[:, j], minlength=sizes[i] * sizes[j])
        found[i, j] = flat / len(codes)
    return found


def distance(one: dict, other: dict) -> float:
    return float(np.mean([np.abs(one[pair] - other[pair]).sum() / 2 for pair in one]))


def ours(codes: np.ndarray, sizes: np.ndarray, epsilon: float, ways: int) -> tuple[np.ndarray, float]:
    """As many rows as there are records, and the seconds that they took."""
    from dpsda.attributes.marginals import Marginals
    from dpsda.attributes.rows import RowModel
    from dpsda.privacy.accounting import calibrate, default_delta
    from dpsda.privacy.mechanism import histogram

    values = tuple(tuple(map(str, range(size))) for size in sizes)
    marginals = Marginals(tuple(map(str, range(len(sizes)))), values, ways)
    count, delta = len(marginals.sets), default_delta(len(codes))
    noise = 0.0
    if np.isfinite(epsilon):
        noise = calibrate(lambda noise: [histogram("record", noise, count).event], epsilon, delta)
    started = time.monotonic()
    mechanism = histogram("record", noise, count)
    noisy = mechanism.release(marginals.votes(codes), None, len(marginals.bins()))
    model = RowModel.of(marginals.tables(noisy), mechanism.scale)
    rows = model.draw(None, len(codes), np.random.default_rng(0))
    return rows, time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--attributes", type=int, nargs="+", default=KINDS)
    options = parser.parse_args()
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        for count in options.attributes:
            sizes, records = network(count)
            np.savetxt(options.write / f"{count}.csv", records(RECORDS, 1), fmt="%d", delimiter=",")
            (options.write / f"{count}.json").write_text(json.dumps(sizes.tolist()))
        return
    print("| attributes | epsilon | rows | independent | another sample | seconds | memory |\n|" + "---|" * 7)
    for count in options.attributes:
        sizes, records = network(count)
        codes = records(RECORDS, 1)
        true, other = pairs(codes, sizes), distance(pairs(codes, sizes), pairs(records(RECORDS, 2), sizes))
        for epsilon in EPSILONS:
            rows, seconds = ours(codes, sizes, epsilon, 2)
            alone, _ = ours(codes, sizes, epsilon, 1)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(
                f"| {count} | {epsilon:g} | {distance(true, pairs(rows, sizes)):.4f} | "
                f"{distance(true, pairs(alone, sizes)):.4f} | {other:.4f} | {seconds:.0f} | {memory:.1f} GiB |",
                flush=True,
            )


if __name__ == "__main__":
    main()
