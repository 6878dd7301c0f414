"""Embedding against SentenceTransformer.encode with its defaults, on the same texts in one run.

python benchmarks/embedding.py [--short 3000 --long 300] [--model embedded:all-minilm-l6-v2]
"""

import argparse
import os
import tempfile
import time

import numpy as np
from figures import record


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
    from dpsda.data import DatasetSpec, load
    from dpsda.devices import multiplies_bfloat16
    from dpsda.embedding import Encoder
    from dpsda.neighbors import nearest

    if args.threads:
        torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    short = load(DatasetSpec.read("rotten_tomatoes"), "train").texts[: args.short]
    texts = [*short, *(" ".join(rng.choice(short, rng.integers(3, 9))) for _ in range(args.long))]
    rng.shuffle(texts)
    distinct = len(set(texts))

    def timed(embed):
        embed(texts[:64])
        wall, cpu = time.perf_counter(), time.process_time()
        vectors = embed(texts)
        return vectors, time.perf_counter() - wall, time.process_time() - cpu

    model = SentenceTransformer(resolve(args.model), device=args.device)
    reference, wall, cpu = timed(lambda part: model.encode(part))
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
        found = timed(lambda part, encoder=encoder: encoder.embed(part, private=False))
        report(f"dpsda, {dtype}, cold", *found)
        if (dtype == "bfloat16") == multiplies_bfloat16(args.device):  # the one that is taken
            record("embeddings of mixed lengths", found[1], wall, "s", "SentenceTransformer.encode")
    with tempfile.TemporaryDirectory() as folder:
        path = resolve(args.model)
        os.environ["DPSDA_HOME"] = folder
        encoder = Encoder(path, device=args.device)
        encoder.embed(texts, private=True)
        report(f"dpsda, {encoder.dtype}, cached", *timed(lambda part: encoder.embed(part, private=True)))


if __name__ == "__main__":
    main()
