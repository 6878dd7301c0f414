"""metric.py's table against every metric from scratch for every iteration, by the usual packages, in one run.

python benchmarks/metrics.py [--real 10000 --texts 2000 --sets 6 --runs 1]

From scratch: mauve-text for MAUVE and the histograms, scipy's matrix square root for FID, scipy's distances for
precision, recall, density, coverage and nearest neighbours, geomloss, and the same plain loops for words and copies.
Embeddings are given to both.
"""

import argparse
import time

import numpy as np
from figures import record

from dpsda.evaluation import copies, metrics
from dpsda.evaluation.diversity import distinct, self_similarity
from dpsda.evaluation.metrics import Measured, Yardstick


def made_up(name: str, n: int, rng: np.random.Generator) -> Measured:
    """Unit vectors around 50 centres, and texts of 5 to 40 words of a vocabulary in which few are frequent."""
    centres = np.random.default_rng(0).normal(size=(50, 384))
    x = 0.7 * centres[rng.integers(0, 50, n)] + rng.normal(size=(n, 384))
    lengths = rng.integers(5, 41, n)
    words = np.char.add("w", np.minimum(rng.zipf(1.3, lengths.sum()), 50_000).astype(str))
    texts = [" ".join(part) for part in np.split(words, lengths.cumsum()[:-1])]
    vectors = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return Measured(name, texts, vectors, lengths)


def from_scratch(real: Measured, fake: Measured, size: int, runs: int, k: int = 3) -> dict[str, float]:
    """What a user would write: for one set, all metrics but Wasserstein on clusters, by packages."""
    import mauve
    import torch
    from geomloss import SamplesLoss
    from scipy.linalg import sqrtm
    from scipy.spatial.distance import cdist
    from scipy.stats import entropy, wasserstein_distance

    found: dict[str, list[float]] = {}
    for run in range(runs):
        rows = np.random.default_rng([0, run]).permutation(len(real.texts))[:size]
        a, b = real.vectors[rows].astype(float), fake.vectors.astype(float)
        ca, cb = np.cov(a.T), np.cov(b.T)
        shift = a.mean(axis=0) - b.mean(axis=0)
        one = {"fid": shift @ shift + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)}
        out = mauve.compute_mauve(
            p_features=real.vectors[rows],
            q_features=fake.vectors,
            num_buckets=size // 10,
            mauve_scaling_factor=5,
            verbose=False,
        )
        one |= {"mauve": out.mauve, "kl": entropy(out.p_hist, out.q_hist + 1e-9)}
        one["tv"] = np.abs(out.p_hist - out.q_hist).sum() / 2
        real_radii = np.sort(cdist(a, a), axis=1)[:, k]
        fake_radii = np.sort(cdist(b, b), axis=1)[:, k]
        across = cdist(a, b)
        within = across <= real_radii[:, None]
        one |= {"precision": within.any(axis=0).mean(), "recall": (across <= fake_radii).any(axis=1).mean()}
        one |= {"density": within.sum(axis=0).mean() / k, "coverage": within.any(axis=1).mean()}
        loss = SamplesLoss("sinkhorn", p=2, blur=0.05, backend="tensorized")
        one["sinkhorn"] = float(loss(torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32)))
        cosine = cdist(a, b, "cosine")
        one |= {"nn_real": cosine.min(axis=1).mean(), "nn_synthetic": cosine.min(axis=0).mean()}
        one["length"] = wasserstein_distance(real.lengths[rows], fake.lengths)
        one |= {f"distinct_{n}": distinct(fake.texts, n) for n in (1, 2, 3)}
        one["self_similarity"] = self_similarity(b)
        for name, value in one.items():
            found.setdefault(name, []).append(float(value))
    finder = copies.Finder(fake.texts)
    finder.read(real.texts)
    found["copies_exact"], found["copies_8gram"] = [finder.exact(fake.texts)], [finder.overlapping(fake.texts)]
    found["copies_near"] = [float((cdist(fake.vectors, real.vectors, "cosine").min(axis=1) <= 0.05).mean())]
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=int, default=10_000)
    parser.add_argument("--texts", type=int, default=2_000)
    parser.add_argument("--sets", type=int, default=6)
    parser.add_argument("--runs", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    real = made_up("real", args.real, rng)
    sets = [made_up(str(i), args.texts, rng) for i in range(args.sets)]
    warm = made_up("warm", 200, rng)  # imports
    Yardstick(warm, 50, warm.texts, runs=1).measure(warm)
    from_scratch(warm, warm, 100, 1)

    start = time.monotonic()
    yardstick = Yardstick(real, args.texts, [text for s in sets for text in s.texts], runs=args.runs)
    prepared = time.monotonic() - start
    ours = [yardstick.measure(s) for s in sets]
    table = time.monotonic() - start
    yardstick.floor()
    floor = time.monotonic() - start - table

    start = time.monotonic()
    again = [Yardstick(real, args.texts, s.texts, runs=args.runs).measure(s) for s in sets]
    uncached = time.monotonic() - start
    assert [row.values["fid"] for row in again] == [row.values["fid"] for row in ours]

    start = time.monotonic()
    theirs = [from_scratch(real, s, args.texts, args.runs) for s in sets]
    scratch = time.monotonic() - start

    print(f"{args.sets} sets of {args.texts:,} texts, {args.real:,} real ones, {args.runs} draws, 384 dimensions\n")
    print("| | seconds | metric.py is faster by |\n|---|---:|---:|")
    parts = f"the real side {prepared:.1f}, the sets {table - prepared:.1f} (the floor: {floor:.1f})"
    print(f"| metric.py: {parts} | {table:.1f} | |")
    print(f"| the same, the real side once a set | {uncached:.1f} | {uncached / table:.1f}x |")
    print(f"| from scratch by packages | {scratch:.1f} | {scratch / table:.1f}x |")
    record(f"metrics of {args.sets} sets", table, scratch, "s", "packages, set by set")
    print("\nlargest difference of a metric, relative (MAUVE, KL and TV differ by the random clusters):")
    for name in metrics.NAMES:
        pairs = [(row.values[name][0], other[name]) for row, other in zip(ours, theirs, strict=True) if name in other]
        if pairs:
            print(f"  {name}: {max(abs(a - b) / max(abs(b), 1e-12) if a != b else 0.0 for a, b in pairs):.1e}")


if __name__ == "__main__":
    main()
