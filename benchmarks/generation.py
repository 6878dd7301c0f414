"""How many useful tokens a second `HFAPI` writes, against `model.generate` on the same prompts in the same run.

    python benchmarks/generation.py               512 prompts, about a quarter of an hour on two cores
    python benchmarks/generation.py --quick       64 prompts

The prompts ask for a paraphrase of a movie review behind one instruction; the answers are cut at 16 to 64 tokens.
A useful token is one up to the row's stop token or cap, whichever comes first. `model.generate` gets left padding,
masks, and the largest cap of its batch. It runs at its best: of batches of 32, 64 and 128 prompts in bfloat16, in the
order given, the best is also tried in float32, and, with work that `generate` leaves to its caller, on prompts sorted
by cap and length. The engine runs between these, so that both see the same machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

from figures import record
from limits import bound

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs without an installation

SYSTEM = "You write short reviews of movies in the style of a newspaper critic."
REQUEST = (
    "Rephrase the following movie review in your own words, in a casual tone, and keep its opinion and its length. "
    "Answer with the review only.\n\n"
)
CAPS = (16, 24, 32, 48, 64)
SAMPLING = {"temperature": 1.2, "top_k": 50, "top_p": 1.0, "do_sample": True}


def make_prompts(n: int, longest: int = CAPS[-1]):
    """`n` prompts whose answers have at most `longest` tokens."""
    import pandas as pd

    from apis.api import Prompt
    from dpsda.assets import resolve

    rows = pd.read_csv(resolve("embedded:rotten-tomatoes"))
    rows = rows[rows.category.isin(["fresh", "rotten"]) & rows.text.str.split().str.len().between(10, 40)]
    rng = random.Random(0)
    return [
        Prompt(REQUEST + text, SYSTEM, (), min(rng.choice(CAPS), longest))
        for text in rows.text.sample(n, random_state=0)
    ]


def run_generate(model, stops: set[int], requests, batch: int, by_length: bool, least: int = 0, **more) -> int:
    """Answer every request with `model.generate`, to which `more` goes; the number of useful tokens.

    A batch is as wide as its longest prompt, and `least` at least.
    """
    import torch

    order = list(range(len(requests)))
    if by_length:
        order.sort(key=lambda i: (requests[i].cap, len(requests[i].ids)))
    useful = 0
    for start in range(0, len(order), batch):
        rows = [requests[i] for i in order[start : start + batch]]
        width = max(least, *(len(row.ids) for row in rows))
        ids = torch.tensor([[0] * (width - len(row.ids)) + list(row.ids) for row in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows], device=model.device)
        options = {"max_new_tokens": max(r.cap for r in rows), "pad_token_id": min(stops), **SAMPLING, **more}
        out = model.generate(ids, attention_mask=mask, **options)
        for row, answer in zip(rows, out[:, width:].tolist(), strict=True):
            stop = next((k + 1 for k, token in enumerate(answer) if token in stops), len(answer))
            useful += min(stop, row.cap)
    return useful


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--quick", action="store_true", help="64 prompts, one setting of model.generate")
    parser.add_argument("--model", default="embedded:smollm2-135m-instruct")
    args = parser.parse_args()
    n = 64 if args.quick else args.prompts

    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from apis.hf_api import HFAPI

    logging.disable_progress_bar()
    prompts = make_prompts(n)
    api = HFAPI(args.model, device="cpu", progress=False, **SAMPLING)
    requests = api.requests(prompts)
    folder = api.model.config._name_or_path
    plain = {
        dtype: AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        for dtype in (torch.bfloat16, torch.float32)
    }
    lengths = [len(request.ids) for request in requests]
    shared = max(request.shared for request in requests)
    print(
        f"{n} prompts of {min(lengths)}-{max(lengths)} tokens, {shared} of them shared, answers of up to {CAPS} tokens"
    )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, engine in {api.model.dtype}", flush=True)

    rates: dict[str, list[float]] = {}

    def measure(name: str, work) -> float:
        start, cpu = time.perf_counter(), time.process_time()
        tokens = work()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        rates.setdefault(name, []).append(tokens / seconds)
        rate = f"{tokens:>8} tokens{seconds:>8.1f} s{cpu:>8.1f} s of processor{tokens / seconds:>7.0f} tokens/s"
        print(f"  {name:<44}{rate}", flush=True)
        return tokens / seconds

    def ours() -> None:
        def work() -> int:
            before = api.tokens_generated
            api.generate(prompts, seed=len(rates))
            return api.tokens_generated - before

        measure("HFAPI", work)

    def theirs(dtype, batch: int, by_length: bool = False) -> float:
        name = f"generate, batch {batch}, {str(dtype)[6:]}, {'sorted' if by_length else 'unsorted'}"
        rate = measure(name, lambda: run_generate(plain[dtype], api.stops, requests, batch, by_length))
        ours()
        return rate

    api.generate(prompts[:16], seed=0)  # warm up
    for model in plain.values():
        run_generate(model, api.stops, [replace(request, cap=4) for request in requests[:16]], 16, True)
    before = api.tokens_generated
    ours()
    written = api.tokens_generated - before
    best = max([64] if args.quick else [64, 128, 32], key=lambda batch: theirs(torch.bfloat16, batch))
    if not args.quick:
        theirs(torch.float32, best)
        theirs(torch.bfloat16, best, by_length=True)

    engine = statistics.median(rates.pop("HFAPI"))
    print(
        f"\n| {'engine':<42} | useful tokens/s | HFAPI is faster by |"
        f"\n|{'-' * 44}|----------------:|-------------------:|"
    )
    print(f"| {'HFAPI (median)':<42} | {engine:>15.0f} | {'':>18} |")
    for name, [rate] in rates.items():
        print(f"| {name:<42} | {rate:>15.0f} | {engine / rate:>17.2f}x |")
    limit = engine * bound(api, requests, written) / written
    print(f"\nHFAPI runs at {limit:.0%} of what the model's matrix products alone would allow here (limits.py)")
    given = max(rate for name, [rate] in rates.items() if "unsorted" in name)
    record("texts of a local model", engine, given, "tokens/s", "the best of model.generate")
    print(f"\nagainst the best of model.generate: {engine / given:.2f}x, sorted {engine / max(rates.values())[0]:.2f}x")


if __name__ == "__main__":
    main()
