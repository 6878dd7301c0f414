"""DP training of adapters against the same training without DP and against a plain opacus loop, interleaved in one run.

python benchmarks/dp_training.py [--rounds 5 --rows 48 --data FILE.csv --column text]

LoRA of rank 8 on q, k, v and o of the embedded SmolLM2, on the same texts. Useful tokens are those of the texts,
without padding. Times are of the processor (`--wall` for the clock), so that other jobs on the machine count little;
each kind is measured once a round, and the table has the medians. Peak memory is that of a process of its own, above
its imports.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from figures import record

from dpsda.data import DatasetSpec, load
from dpsda.devices import multiplies_bfloat16
from dpsda.finetune.gradients import GradientSums
from dpsda.finetune.membership import Records
from dpsda.finetune.options import TrainingOptions, TuningOptions
from dpsda.finetune.planning import Plan
from dpsda.finetune.training import Trainer
from dpsda.models import load_model
from dpsda.privacy.mechanism import GradientSum
from dpsda.tuning import generator
from dpsda.tuning.adapter import add_lora
from dpsda.tuning.tokens import Tokens

MODEL = "embedded:smollm2-135m-instruct"
KINDS: tuple[str, ...] = ("DP, float32", "no DP, float32", "plain opacus, float32")  # under DP, always in float32
if multiplies_bfloat16("cpu"):
    KINDS += ("no DP, bfloat16", "plain opacus, bfloat16")
DP = KINDS[0]
WITHOUT = "no DP, bfloat16" if multiplies_bfloat16("cpu") else KINDS[1]


class Everybody(Records):
    """All rows in every step, so that all kinds do the same work."""

    def draw(self, mechanism):
        return np.arange(self.units), np.ones(self.units, dtype=np.float32)


def model_of(bfloat16: bool):

    torch.manual_seed(0)
    model, tokenizer = load_model("AutoModelForCausalLM", MODEL, bfloat16=bfloat16)
    return add_lora(model, TuningOptions(lora_r=8)), tokenizer


def reviews(number: int) -> list[str]:
    """So many texts of the public split of Rotten Tomatoes."""
    return drawn(list(load(DatasetSpec.read("rotten_tomatoes"), "test").texts), number)


def drawn(texts: list[str], number: int) -> list[str]:
    return [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:number]]


def lengths_of(rows: list[str]) -> np.ndarray:
    """(n,) their useful tokens."""
    _, tokenizer = model_of(False)
    return np.array([len(row) for row in tokenizer(rows)["input_ids"]])


def trainer_of(rows: list[str], dp: bool, bfloat16: bool, device: str = "cpu", at_once: int = 16) -> Trainer:
    """What dpsda.finetune trains with: all rows in a step, `at_once` at a time."""
    model, tokenizer = model_of(bfloat16)
    model.to(device)
    tokens = generator.encode(rows, np.zeros(len(rows), np.int64), [""], tokenizer, 512, tokenizer.pad_token_id)
    options = TrainingOptions(batch_size=len(rows), physical_batch_size=at_once)
    sums = GradientSums(model, generator.NextToken(model), 0.5 if dp else None)
    plan = Plan(1, 1.0, len(rows), float(dp), None, None)
    return Trainer(model, sums, tokens, Everybody(len(rows)), options, plan, device)


def ours(rows: list[str], dp: bool, bfloat16: bool, device: str = "cpu", at_once: int = 16) -> Callable[[], None]:
    """One step of dpsda.finetune."""
    trainer = trainer_of(rows, dp, bfloat16, device, at_once)
    mechanism = GradientSum(float(dp), 0.5, 1.0, 1)
    return lambda: trainer.step(mechanism, 100)


def plain(rows: list[str], bfloat16: bool):
    """What a user of opacus writes: batches padded to their longest, the model's logits in float32 everywhere, and
    physical batches in the order in which the texts come."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    model, tokenizer = model_of(bfloat16)
    tokens: Tokens = generator.encode(rows, np.zeros(len(rows), np.int64), [""], tokenizer, 512, tokenizer.pad_token_id)
    wrapped = GradSampleModule(model, loss_reduction="mean", strict=False)
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = DPOptimizer(
        torch.optim.Adam(weights, lr=1e-3), noise_multiplier=1.0, max_grad_norm=0.5, expected_batch_size=len(rows)
    )

    def step() -> None:
        wrapped.train()
        starts = range(0, len(rows), 16)
        for start in starts:
            batch = tokens.batch(np.arange(start, min(start + 16, len(rows))))
            logits = wrapped(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
            ).logits.float()[:, :-1]
            labels = batch["input_ids"].masked_fill(~batch["wanted"], -100)[:, 1:]
            losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
            (losses.sum(dim=1) / (labels != -100).sum(dim=1)).mean().backward()
            optimizer.signal_skip_step(do_skip=start != starts[-1])
            optimizer.step()
            optimizer.zero_grad()

    return step


def step_of(kind: str, rows: list[str]):
    bfloat16 = "float32" not in kind
    return plain(rows, bfloat16) if kind.startswith("plain") else ours(rows, kind.startswith("DP"), bfloat16)


def timed(steps: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """The times of each kind of step, which take turns, after a round to warm up."""
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for number in range(rounds + 1):
        for kind, step in steps.items():
            start = clock()
            step()
            if number:
                times[kind].append(clock() - start)
    return times


def peak(kind: str, rows: list[str]) -> None:
    """Print the peak memory of three steps above that of the imports, in MB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = step_of(kind, rows)
    for _ in range(3):
        step()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--data")
    parser.add_argument("--column", default="text")
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--peak", choices=KINDS, help="measure the peak memory of this kind alone")
    parser.add_argument("--skip_memory", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.data:
        import pandas as pd

        rows = drawn(list(pd.read_csv(args.data)[args.column]), args.rows)
    else:
        rows = reviews(args.rows)
    if args.peak:
        peak(args.peak, rows)
        return
    # first, as a process starts with the peak of the one that starts it
    what = ["--rows", str(args.rows), *(["--data", args.data, "--column", args.column] if args.data else [])]
    memory = {}
    for kind in () if args.skip_memory else (DP, WITHOUT):
        done = subprocess.run([sys.executable, __file__, *what, "--peak", kind], capture_output=True, text=True)
        memory[kind] = float(done.stdout.split()[-1])
    clock = time.perf_counter if args.wall else time.process_time
    steps = {kind: step_of(kind, rows) for kind in KINDS}
    lengths = lengths_of(rows)
    useful = int(lengths.sum())
    times = timed(steps, args.rounds, clock)
    print(f"{len(rows)} texts of {np.median(lengths):.0f} tokens (median; {lengths.min()} to {lengths.max()})\n")
    print(f"| training | useful tokens/s | {DP} / this | peak memory (MB) |\n|---|---:|---:|---:|")
    rate = {kind: useful / float(np.median(taken)) for kind, taken in times.items()}
    for kind in KINDS:
        ratio = rate[DP] / rate[kind]
        print(f"| {kind} | {rate[kind]:.0f} | {ratio:.2f} | {round(memory[kind]) if kind in memory else ''} |")
    opacus = rate["plain opacus, float32"]  # in bfloat16 it breaks the promise that it makes
    record("DP-SGD of adapters", rate[DP], opacus, "tokens/s", "an opacus loop, padded")
    record("DP-SGD beside no DP", rate[DP], rate[WITHOUT], "tokens/s", "our training without DP")
    print(f"\nfloat32 alone: DP / no DP {rate['DP, float32'] / rate['no DP, float32']:.2f}")
    if memory:
        print(f"peak memory, DP / no DP: {memory[DP] / memory[WITHOUT]:.2f}")
    print(json.dumps({kind: [round(t, 2) for t in taken] for kind, taken in times.items()}))


if __name__ == "__main__":
    main()
