"""A query of PMixED against the published algorithm written plainly, on the embedded model with 80 adapters.

    PYTHONPATH=. python benchmarks/pmixed.py [--shards 80] [--queries 64] [--plain 4]

The plain one does as the public code: every model in turn reads the context, and for each of them a scalar bisection on
the full vocabulary finds the weight that keeps both Renyi divergences of order 3 in the ball. A token at a time, with
the keys and values of every model kept; and, for an evaluation, also with each model reading a whole block at once.
Ours are the same law in evaluation (`paper`: samples of the shards), and the default mechanism of `predict.py generate`
in answers. Adapters are random: what they hold does not change the time. All in bfloat16 where it is fast.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import record

from dpsda.pmixed import planning
from dpsda.pmixed.answers import Text, Writer
from dpsda.pmixed.ensemble import Ensemble, Trainer
from dpsda.pmixed.evaluation import Queries, losses
from dpsda.pmixed.options import AnswerOptions, EnsembleOptions, HardwareOptions
from dpsda.privacy.mixture import Mixture
from dpsda.tuning.adapter import export_adapter

MODEL = "embedded:smollm2-135m-instruct"
ORDER, INCLUSION, DELTA = 3, 0.03, 1e-5


def adapters(shards: int, folder: Path) -> list[Path]:
    """Random ones, of the shape that training leaves."""
    trainer = Trainer(EnsembleOptions(), HardwareOptions())
    found = []
    for number in range(shards):
        torch.manual_seed(number)
        with torch.no_grad():
            for parameter in trainer.named.values():
                parameter.normal_(std=0.02)
        found.append(folder / f"shard-{number}")
        export_adapter(trainer.model, MODEL, found[-1])
    return found


def bisected(p: torch.Tensor, public: torch.Tensor, limit: float) -> torch.Tensor:
    """The published projection of one law, (V,) probabilities: a bisection with both divergences at every step."""

    def divergence(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a**ORDER * b ** (1 - ORDER)).sum().log() / (ORDER - 1))

    low, high = 0.0, 1.0
    for _ in range(23):
        middle = (low + high) / 2
        q = middle * p + (1 - middle) * public
        low, high = (middle, high) if max(divergence(q, public), divergence(public, q)) <= limit else (low, middle)
    return low * p + (1 - low) * public


def plain_evaluation(ensemble: Ensemble, ids: torch.Tensor, mechanism, positions: int) -> float:
    """Seconds a query, all models on the whole block; the bisections of the first `positions`, as all cost the same."""
    length = ids.shape[1] - 1
    start = time.perf_counter()
    laws = []
    for shard in [-1, *range(mechanism.shards)]:
        hidden = ensemble.hidden(ids[:, :-1], torch.tensor([shard]), use_cache=False).last_hidden_state[0]
        laws.append(ensemble.head(hidden).float().softmax(dim=-1)[:positions])
    reading = (time.perf_counter() - start) / length
    start = time.perf_counter()
    for at in range(positions):
        sample = mechanism.sample()
        limit = ORDER * mechanism.beta(max(1, len(sample)))
        near = [bisected(laws[1 + shard][at], laws[0][at], limit) for shard in range(mechanism.shards)]
        torch.stack([near[shard] for shard in sample]).mean(dim=0) if len(sample) else laws[0][at]
    return reading + (time.perf_counter() - start) / positions


def evaluation(ensemble: Ensemble, text: np.ndarray, arms: dict) -> float:
    """Seconds a query, of which there is one after each token but the last."""
    asked = Queries(text, np.zeros(len(text) - 1, dtype=np.int64))
    start = time.perf_counter()
    losses(ensemble, [asked], arms)
    return (time.perf_counter() - start) / (len(text) - 1)


def answers(ensemble: Ensemble, opening: list[int], mechanism: Any, length: int = 32) -> float:
    """Seconds an answer, of eight texts of `length` answers each."""
    writer = Writer(ensemble, mechanism, AnswerOptions(length=length), [Text(number, opening) for number in range(8)])
    start = time.perf_counter()
    writer.answer(8 * length)
    return (time.perf_counter() - start) / (8 * length)


def plain_answers(ensemble: Ensemble, opening: list[int], mechanism, tokens: int) -> float:
    """Seconds an answer: every model has read the context before, and takes the last token."""
    ids = torch.tensor([opening])
    caches = []
    for shard in [-1, *range(mechanism.shards)]:
        caches.append(ensemble.hidden(ids, torch.tensor([shard]), use_cache=True).past_key_values)
    token = torch.tensor([[opening[-1]]])
    start = time.perf_counter()
    for _ in range(tokens):
        laws = []
        for shard, cache in zip([-1, *range(mechanism.shards)], caches, strict=True):
            out = ensemble.hidden(token, torch.tensor([shard]), use_cache=True, past_key_values=cache)
            laws.append(ensemble.head(out.last_hidden_state[0, -1]).float().softmax(dim=-1))
        sample = mechanism.sample()
        limit = ORDER * mechanism.beta(max(1, len(sample)))
        near = [bisected(law, laws[0], limit) for law in laws[1:]]
        law = torch.stack([near[shard] for shard in sample]).mean(dim=0) if len(sample) else laws[0]
        token = torch.multinomial(law, 1)[None]
    return (time.perf_counter() - start) / tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=80)
    parser.add_argument("--queries", type=int, default=512, help="positions of the block, and answers")
    parser.add_argument("--plain", type=int, default=4, help="positions and answers of the plain algorithm")
    options = parser.parse_args()
    text = np.random.default_rng(0).integers(1000, 40000, options.queries + 1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        made = adapters(options.shards, Path(folder))
        print(f"{options.shards} adapters made in {time.perf_counter() - start:.1f} s")
        start = time.perf_counter()
        ensemble = Ensemble(MODEL, made, HardwareOptions())
        print(f"loaded with the base model in {time.perf_counter() - start:.1f} s")
        mixture = Mixture(options.shards, INCLUSION)
        paper = planning.plan("paper", mixture, 1024, 8.0, DELTA, order=ORDER)
        sound = planning.plan("auto", mixture, 1024, 8.0, DELTA)
        ids = torch.from_numpy(text)[None]
        for name, arms in (("paper", {"paper": paper}), (type(sound).__name__, {"sound": sound})):
            taken = evaluation(ensemble, text, arms)
            print(f"evaluation, {name}: {taken * 1e3:.1f} ms a query")
            if name == "paper":
                evaluated = taken
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"peak memory so far {memory:.2f} GiB")
        whole = plain_evaluation(ensemble, ids, paper, options.plain)
        print(f"evaluation, plain on whole blocks: {whole * 1e3:.0f} ms a query: {whole / evaluated:.1f} times ours")
        opening = text[:33].tolist()
        ours = answers(ensemble, opening, sound)
        print(f"answers, {type(sound).__name__}: {ours * 1e3:.0f} ms an answer")
        plain = plain_answers(ensemble, opening, paper, options.plain)
        for what, seconds, theirs, instead in (
            ("PMixED, a query of an evaluation", evaluated, plain, "the published algorithm, plainly"),
            ("the same", evaluated, whole, "the same, whole blocks at once"),
            ("PMixED, an answer", ours, plain, "the published algorithm, plainly"),
        ):
            record(what, seconds * 1e3, theirs * 1e3, "ms", instead)
        print(
            f"plain, a token at a time: {plain * 1e3:.0f} ms: {plain / evaluated:.1f} times our evaluation, "
            f"{plain / ours:.1f} times our answers"
        )


if __name__ == "__main__":
    main()
