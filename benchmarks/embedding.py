"""Embedding against SentenceTransformer.encode with its defaults, on the same texts in one run.

python benchmarks/embedding.py [--short 3000 --long 300] [--model embedded:all-minilm-l6-v2]
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable

import numpy as np
from figures import record


def mixed_texts(short: int, long: int) -> list[str]:
    """So many snippets of Rotten Tomatoes, and so many texts of 3 to 8 of them, shuffled."""
    from dpsda.data import DatasetSpec, load

    rng = np.random.default_rng(0)
    snippets = load(DatasetSpec.read("rotten_tomatoes"), "train").texts[:short]
    texts = [*snippets, *(" ".join(rng.choice(snippets, rng.integers(3, 9))) for _ in range(long))]
    rng.shuffle(texts)
    return texts


def timed(embed: Callable[[list[str]], np.ndarray], texts: list[str]) -> tuple[np.ndarray, float, float]:
    """The vectors of `texts`, and the seconds and those of the processor that they took, after a warm-up."""
    embed(texts[:64])
    wall, cpu = time.perf_counter(), time.process_time()
    vectors = embed(texts)
    return vectors, time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:all-minilm-l6-v2")
    parser.add_argument("--short", type=int, default=3000, help="snippets of Rotten Tomatoes (median 19 words)")
    parser.add_argument("--long", type=int, default=300, help="texts of 3 to 8 of them")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="1 on a machine that others use too: waiting threads spin")
    args = parser.parse_args()

    import torch
    from sentence_transformers import SentenceTransformer

    from dpsda.assets import resolve
    from dpsda.devices import multiplies_bfloat16
    from dpsda.embedding import Encoder
    from dpsda.neighbors import nearest

    if args.threads:
        torch.set_num_threads(args.threads)
    texts = mixed_texts(args.short, args.long)
    distinct = len(set(texts))

    model = SentenceTransformer(resolve(args.model), device=args.device)
    reference, wall, cpu = timed(lambda part: model.encode(part), texts)
    queries, candidates = np.split(reference, [len(texts) // 2])
    truth = nearest(queries, candidates, 1, "cos_sim")[:, 0]
    print(f"{len(texts)} texts, {distinct} distinct, {torch.get_num_threads()} threads\n")
    print(
        "| | wall (s) | CPU (s) | wall, encode / this | CPU, encode / this | least cosine | same neighbour | regret |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print(f"| SentenceTransformer.encode, float32 | {wall:.1f} | {cpu:.1f} | 1 | 1 | | | |", flush=True)

    def report(name, vectors, w, c):
        q, d = np.split(vectors, [len(texts) // 2])
        found = nearest(q, d, 1, "cos_sim")[:, 0]
        cosine = np.vecdot(vectors, reference).min()
        regret = (np.vecdot(queries, candidates[truth]) - np.vecdot(queries, candidates[found])).max()
        ratios = f"{w:.2f} | {c:.2f} | {wall / w:.2f} | {cpu / c:.2f}"
        same = (found == truth).mean()
        print(f"| {name} | {ratios} | {cosine:.6f} | {same:.1%} | {regret:.4f} |", flush=True)

    for dtype in ("bfloat16", "float32"):
        encoder = Encoder(args.model, device=args.device, dtype=dtype, cache=False)
        found = timed(lambda part, encoder=encoder: encoder.embed(part, private=False), texts)
        report(f"dpsda, {dtype}, cold", *found)
        if (dtype == "bfloat16") == multiplies_bfloat16(args.device):  # the one that is taken
            record("embeddings of mixed lengths", found[1], wall, "s", "SentenceTransformer.encode")
    with tempfile.TemporaryDirectory() as folder:
        path = resolve(args.model)
        os.environ["DPSDA_HOME"] = folder
        encoder = Encoder(path, device=args.device)
        encoder.embed(texts, private=True)
        report(f"dpsda, {encoder.dtype}, cached", *timed(lambda part: encoder.embed(part, private=True), texts))


if __name__ == "__main__":
    main()
