"""What this machine could do: the matrix products of the language model alone, by number format and rows at once.

    python benchmarks/limits.py            a minute on one core; OMP_NUM_THREADS=1 for the limit of one
    python benchmarks/limits.py --quick    fewer rows

A pass is every linear layer of the model once, with its own weights, so that all of them come from memory as they do
in a step of decoding. Attention, norms and the choice of a token are not in it: what a run takes beyond this is theirs.
int8 is `torch._int_mm` without the work of quantising. float32 and bfloat16 are what HFAPI runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs without an installation

ROWS = (1, 8, 32, 128, 512)
BEST_OF = 3
COPIED = 1 << 28  # bytes, more than any cache holds


def layers(model) -> list:
    """The linear layers of a model that HFAPI loaded, the output head last."""
    head = model.get_output_embeddings()
    return [m for m in model.modules() if hasattr(m, "in_features") and m is not head] + [head]


def _best(work: Callable[[], object]) -> float:
    """The least seconds of some."""
    times = []
    for _ in range(BEST_OF):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def seconds(linears: Sequence, rows: int, dtype) -> float:
    """One pass of `rows` rows through all of `linears`."""
    import torch

    inputs = {x.in_features: torch.randn(rows, x.in_features).to(dtype) for x in linears}

    def work() -> None:
        for linear in linears:
            linear(inputs[linear.in_features])

    with torch.inference_mode():
        return _best(work)


def int8_seconds(linears: Sequence, rows: int) -> float:
    """The same with whole numbers of 8 bits, which torch multiplies for more than 16 rows."""
    import torch

    def random(*shape: int):
        return torch.randint(-100, 100, shape, dtype=torch.int8)

    inputs = {x.in_features: random(rows, x.in_features) for x in linears}
    weights = [random(x.out_features, x.in_features).t() for x in linears]

    def work() -> None:
        for linear, weight in zip(linears, weights, strict=True):
            torch._int_mm(inputs[linear.in_features], weight)

    return _best(work)


def bound(api, requests: Sequence, generated: int, batch: int = 128, chunk: int = 1024) -> float:
    """Seconds of the products alone for these requests of HFAPI: prompts read in chunks without the head, what they
    share once, and every token written in a full batch. Each core has products of its own."""
    import torch

    linears = layers(api.model)
    heads = {request.group: request.shared for request in requests if request.shared}
    read = sum(len(r.ids) - 1 - r.shared for r in requests) + sum(heads.values())
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    prompts = seconds(linears[:-1], chunk, api.model.dtype) * read / chunk
    answers = seconds(linears, batch, api.model.dtype) * generated / batch
    torch.set_num_threads(cores)
    return (prompts + answers) / cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    parser.add_argument("--quick", action="store_true", help="32 rows alone")
    args = parser.parse_args()

    import torch

    from apis.decoding import Sampler
    from apis.hf_api import HFAPI

    counts = (32,) if args.quick else ROWS
    models = {
        name: HFAPI(args.model, device="cpu", dtype=name, progress=False).model for name in ("bfloat16", "float32")
    }
    size = sum(x.in_features * x.out_features for x in layers(models["float32"]))
    print(f"{args.model}: {size / 1e6:.0f} million weights in linear layers, {2 * size / 1e9:.2f} GFLOP a token")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| rows | format | ms a pass | GFLOP/s | tokens/s at most |\n|---:|---|---:|---:|---:|")
    for rows in counts:
        times = {name: seconds(layers(model), rows, model.dtype) for name, model in models.items()}
        if rows > 16:
            times["int8"] = int8_seconds(layers(models["float32"]), rows)
        for name, taken in times.items():
            print(f"| {rows} | {name} | {1e3 * taken:.1f} | {2e-9 * size * rows / taken:.0f} | {rows / taken:.0f} |")

    source = torch.zeros(COPIED, dtype=torch.uint8)
    target = torch.empty_like(source)
    copied = 2 * COPIED / _best(lambda: target.copy_(source))
    print(
        f"\nmemory: {copied / 1e9:.1f} GB/s copied, so that the weights alone take "
        f"{1e3 * 2 * size / copied:.0f} ms a step in bfloat16 where no cache holds them"
    )
    sampler = Sampler(temperature=1.2, top_k=50, top_p=1.0, repetition_penalty=1.0, do_sample=True)
    logits = torch.randn(128, models["bfloat16"].config.vocab_size).bfloat16()
    uniform = torch.rand(128, dtype=torch.float64)
    print(
        f"sampler: {1e3 * statistics.median(_best(lambda: sampler(logits, None, uniform)) for _ in range(3)):.1f} ms "
        "for 128 rows"
    )


if __name__ == "__main__":
    main()
