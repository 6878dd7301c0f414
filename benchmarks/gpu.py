"""What the project does on a GPU: how fast it is, and whether it finds there what it finds on a CPU.

    bash benchmarks/gpu.sh [--quick] [LINE ...]

A line is a function here. It takes the sizes of a run, and returns its figures by their names. A process measures one
line, so what a line needs is imported in it: a package that is not there loses this line alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import processor

Figures = dict[str, float]
Sizes = Callable[[Any, Any], Any]  # `sizes(full, small)` is the one of the two that a run takes

ENCODER, MODEL = "embedded:all-minilm-l6-v2", "embedded:smollm2-135m-instruct"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BOTH = ("cpu", DEVICE)  # of parity
NAME = torch.cuda.get_device_name() if DEVICE == "cuda" else processor()
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def clock() -> float:
    """The time at which the device has done what it was asked for."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable[[], object]) -> float:
    start = clock()
    work()
    return clock() - start


def quickstart(sizes: Sizes) -> Figures:
    """main.py from its start to its certificate, with no embedding known in advance."""
    from augpe import CONFIG, no_embeddings

    from dpsda.gguf import unpacked

    unpacked(MODEL)  # as it is after the first run
    small = ["--epochs", "1", "--num_seed_samples", "24", "--private_share", "0.05"]
    with no_embeddings() as scratch:
        where = ["--config", CONFIG, "--device", DEVICE, "--result_folder", str(scratch / "run")]
        command = [sys.executable, "main.py", *where, *sizes([], small)]
        return {"whole run, s": seconds(lambda: subprocess.run(command, check=True))}


def generation(sizes: Sizes) -> Figures:
    """HFAPI, and `model.generate` with a static cache and batches as large; on a GPU, its step is compiled."""
    from generation import SAMPLING, make_prompts, run_generate
    from transformers import AutoModelForCausalLM

    from apis.hf_api import HFAPI

    batch = sizes(512, 8)
    prompts = make_prompts(sizes(1024, 8), sizes(64, 8))
    api = HFAPI(MODEL, device=DEVICE, progress=False, **SAMPLING)
    requests, folder = api.requests(prompts), api.model.config._name_or_path
    widest = max(len(request.ids) for request in requests)  # of one shape, or a GPU compiles a step for each batch
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=api.model.dtype).to(DEVICE).eval()
    tokens: dict[str, int] = {}

    def theirs(number: int) -> None:
        some, more = requests[:number], {"least": widest, "cache_implementation": "static"}
        tokens["model.generate, tokens/s"] = run_generate(plain, api.stops, some, batch, False, **more)

    def ours(number: int) -> None:
        before = api.tokens_generated
        api.generate(prompts[:number], seed=number)
        tokens["HFAPI, tokens/s"] = api.tokens_generated - before

    taken = []
    for work in (ours, theirs):
        work(sizes(batch, 2))  # warm up, and compile
        taken.append(seconds(lambda work=work: work(len(prompts))))
    rates = {name: number / time for (name, number), time in zip(tokens.items(), taken, strict=True)}
    return rates | {"HFAPI is faster by": rates["HFAPI, tokens/s"] / rates["model.generate, tokens/s"]}


def roofline(sizes: Sizes) -> Figures:
    """HFAPI on random weights of the shapes of Llama 7B, as a share of what the memory allows: a step reads all weights
    but the embeddings of tokens, and the keys and values of its rows."""
    from generation import SAMPLING, make_prompts
    from transformers import AutoModelForCausalLM, LlamaConfig

    from apis import hf_api
    from apis.decoding import ATTENTION
    from dpsda.models import load_tokenizer

    bandwidth = copied(sizes(2**30, 2**26))
    tokenizer = load_tokenizer(MODEL)
    config = LlamaConfig(vocab_size=len(tokenizer), **sizes({}, TINY))  # its defaults are those shapes

    def made(name: str, device: torch.device, dtype: torch.dtype) -> tuple:
        with device:
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=ATTENTION)
        return model.eval(), tokenizer

    hf_api.load = made  # so that 13 GB of weights are in no file
    rows, length = 128, sizes(64, 16)
    api = hf_api.HFAPI("random", device=DEVICE, dtype="bfloat16", batch_size=rows, progress=False, **SAMPLING)
    api.stops = set()  # all answers are as long as they may be
    prompts = [replace(prompt, max_new_tokens=length) for prompt in make_prompts(rows)]
    first = [replace(prompt, max_new_tokens=1) for prompt in prompts]
    api.generate(prompts, seed=0)  # warm up
    reading, whole = (seconds(lambda asked=asked: api.generate(asked, seed=1)) for asked in (first, prompts))
    read = sum(p.numel() * p.itemsize for p in api.model.parameters()) - api.model.get_input_embeddings().weight.nbytes
    prompt_tokens = sum(len(request.ids) for request in api.requests(prompts))
    steps = length - 1  # those after the first, in which a row has its prompt and half of the answer on average
    least = steps * (read + api.token_bytes * (prompt_tokens + rows * length / 2)) / bandwidth
    return {
        "HFAPI with prompts, tokens/s": rows * length / whole,
        "HFAPI without, tokens/s": rows * steps / (whole - reading),
        "share of the roofline": least / (whole - reading),
        "copy bandwidth, GB/s": bandwidth / 1e9,
    }


def copied(size: int) -> float:
    """The bytes that the device reads and writes in a second in which it copies `size` bytes over and over."""
    source = torch.ones(size, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * size / min(seconds(lambda: target.copy_(source)) for _ in range(10))


def embedding(sizes: Sizes) -> Figures:
    """The encoder as it is taken by default, and SentenceTransformer.encode with its defaults."""
    from embedding import mixed_texts, timed
    from sentence_transformers import SentenceTransformer

    from dpsda.assets import resolve
    from dpsda.embedding import Encoder

    texts = mixed_texts(sizes(10_000, 60), sizes(3_000, 6))
    encoder = Encoder(ENCODER, device=DEVICE, cache=False)
    ours = timed(lambda part: encoder.embed(part, private=False), texts)[1]
    theirs = timed(SentenceTransformer(resolve(ENCODER), device=DEVICE).encode, texts)[1]
    return {
        f"Encoder in {encoder.dtype}, texts/s": len(texts) / ours,
        "SentenceTransformer.encode, texts/s": len(texts) / theirs,
        "Encoder is faster by": theirs / ours,
    }


def votes(sizes: Sizes) -> Figures:
    """One vote at the size of yelp, with and without the correction for hubs."""
    from votes import made_up_vote

    from dpsda.augpe.ballot import Ballot
    from dpsda.augpe.options import CORRECTIONS
    from dpsda.augpe.voting import vote
    from dpsda.neighbors import nearest

    found: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        shape = sizes((1_940_000, 768, 50, 35_000), (5_000, 64, 5, 500))
        private, cells, candidates, candidate_cells = made_up_vote(Path(folder), *shape)
        nearest(private[:2000], candidates[:2000])  # warm up
        for correction in ("none", "csls"):
            election = candidates, candidate_cells, "L2", correction, CORRECTIONS[correction]
            taken = seconds(lambda election=election: vote(private, cells, Ballot.of(*election), 1))
            found[f"hub correction {correction}, s"] = taken
    return found


def training(sizes: Sizes) -> Figures:
    """Training of adapters under DP and without, in steps that take turns."""
    from dp_training import lengths_of, ours, reviews, timed

    from dpsda.devices import multiplies_bfloat16

    rows = reviews(sizes(512, 4))
    kinds = {"DP, float32": (True, False), "no DP, float32": (False, False)}
    if multiplies_bfloat16(DEVICE):
        kinds["no DP, bfloat16"] = False, True
    steps = {kind: ours(rows, *how, DEVICE, sizes(128, 4)) for kind, how in kinds.items()}
    taken = {kind: float(np.median(times)) for kind, times in timed(steps, sizes(5, 1), clock).items()}
    found: Figures = {f"{kind}, tokens/s": int(lengths_of(rows).sum()) / time for kind, time in taken.items()}
    return found | {"DP beside no DP, float32": taken["no DP, float32"] / taken["DP, float32"]}


def pmixed(sizes: Sizes) -> Figures:
    """PMixED: a query of an evaluation with the paper's projection and with ours, and an answer."""
    import pmixed as plain

    from dpsda.pmixed import planning
    from dpsda.pmixed.ensemble import Ensemble
    from dpsda.pmixed.options import HardwareOptions
    from dpsda.privacy.mixture import Mixture

    shards = sizes(80, 4)
    text = np.random.default_rng(0).integers(1000, 40000, sizes(512, 32) + 1)
    with tempfile.TemporaryDirectory() as folder:
        ensemble = Ensemble(MODEL, plain.adapters(shards, Path(folder)), HardwareOptions(device=DEVICE))
        mixture = Mixture(shards, plain.INCLUSION)
        paper = planning.plan("paper", mixture, 1024, 8.0, plain.DELTA, order=plain.ORDER)
        sound = planning.plan("auto", mixture, 1024, 8.0, plain.DELTA)
        plain.evaluation(ensemble, text[:9], {"paper": paper, "sound": sound})  # warm up
        return {
            "evaluation, paper, ms a query": plain.evaluation(ensemble, text, {"paper": paper}) * 1e3,
            "evaluation, ours, ms a query": plain.evaluation(ensemble, text, {"sound": sound}) * 1e3,
            "answers, ms a query": plain.answers(ensemble, text[:33].tolist(), sound, sizes(32, 2)) * 1e3,
        }


def parity_votes(sizes: Sizes) -> Figures:
    """Votes that differ, and by how much in score."""
    from votes import made_up_vote

    from dpsda.augpe.ballot import Ballot
    from dpsda.augpe.options import CORRECTIONS
    from dpsda.neighbors import nearest

    with tempfile.TemporaryDirectory() as folder:
        shape = sizes((50_000, 768, 1, 5_000), (2_000, 64, 1, 300))
        private, _, candidates, cells = made_up_vote(Path(folder), *shape)
        private = np.array(private)
    found: Figures = {}
    for correction, strength in CORRECTIONS.items():
        ballot = Ballot.of(candidates, cells, "L2", correction, strength)
        votes = [nearest(private, ballot.vectors, shifts=ballot.shifts, device=device)[:, 0] for device in BOTH]
        rows = np.flatnonzero(votes[0] != votes[1])
        scores = []
        for chosen in votes:
            apart = private[rows].astype(np.float64) - ballot.vectors[chosen[rows]]
            scores.append(ballot.shifts[chosen[rows]] - np.vecdot(apart, apart) / 2)
        found[f"votes that differ, {correction}"] = len(rows)
        found[f"by at most, {correction}"] = float(np.abs(scores[0] - scores[1]).max(initial=0))
    return found


def parity_gradients(sizes: Sizes) -> Figures:
    """The gradients of single samples, clipped as a training clips them, in float32."""
    one, other = (clipped_gradients(device, sizes(8, 2)) for device in BOTH)
    return {"largest relative difference": ((other - one).norm(dim=1) / one.norm(dim=1)).max().item()}


def parity_embeddings(sizes: Sizes) -> Figures:
    """Embeddings in float32."""
    from embedding import mixed_texts

    from dpsda.embedding import Encoder

    texts = mixed_texts(sizes(1000, 20), sizes(100, 2))
    encoders = (Encoder(ENCODER, device=device, dtype="float32", cache=False) for device in BOTH)
    one, other = (encoder.embed(texts, private=False).astype(np.float64) for encoder in encoders)
    # the vectors have length one, and of equal ones this is exactly 1
    return {"least cosine": float(1 - ((one - other) ** 2).sum(axis=1).max() / 2)}


def parity_answers(sizes: Sizes) -> Figures:
    """Answers of the likeliest tokens, in float32."""
    from generation import make_prompts

    from apis.hf_api import HFAPI

    prompts = make_prompts(sizes(64, 4), sizes(64, 8))
    apis = (HFAPI(MODEL, device=device, dtype="float32", do_sample=False, progress=False) for device in BOTH)
    one, other = (api.generate(prompts, seed=0) for api in apis)
    return {"share that is equal": float(np.mean(np.array(one) == np.array(other)))}


def clipped_gradients(device: str, number: int) -> torch.Tensor:
    """(number, W): of each sample of one batch."""
    from dp_training import reviews, trainer_of

    from dpsda.finetune.gradients import deterministic

    trainer = trainer_of(reviews(number), True, False, device)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainer.sums.weights:  # half of a new adapter is zero, and so is the gradient of the other half
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.02)
    batch = {name: tensor.to(device) for name, tensor in trainer.tokens.batch(np.arange(number)).items()}
    found = []
    with deterministic(trainer.model):
        for weights in torch.eye(number, device=device):  # a sum over the batch in which one sample counts
            trainer.sums.clear()
            trainer.sums.add(batch, weights)
            found.append(torch.cat([total.flatten().cpu() for total in trainer.sums.totals]))
    return torch.stack(found)


SPEED = (quickstart, generation, roofline, embedding, votes, training, pmixed)
PARITY = (parity_votes, parity_gradients, parity_embeddings, parity_answers)
LINES: dict[str, Callable[[Sizes], Figures]] = {line.__name__: line for line in (*SPEED, *PARITY)}


def measured(file: Path, quick: bool) -> dict[str, Figures]:
    """The figures that are in the file, by line: those of this machine, and of these sizes."""
    rows = [json.loads(row) for row in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    return {row["line"]: row["figures"] for row in rows if (row["device"], row["quick"]) == (NAME, quick)}


def table(there: dict[str, Figures], failed: list[str], quick: bool) -> str:
    rows = ["| line | figure | |", "|---|---|---:|"]
    for line in LINES:
        rows += [f"| {line} | {what} | {value:,.4g} |" for what, value in there.get(line, {}).items()]
        if line not in there:
            rows.append(f"| {line} | {f'failed: {line}.txt says why' if line in failed else 'not measured'} | |")
    notes = [machine()]
    if DEVICE == "cpu":
        notes.append("there is no GPU: parity compares the CPU with itself")
    if quick:
        notes.append("tiny sizes: the speeds say nothing")
    return "\n".join([*rows, "", *(f"{note}  " for note in notes)])


def machine() -> str:
    """The device, its memory, and the versions of torch and the driver."""
    if DEVICE == "cpu":
        memory, driver = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "none"
    else:
        memory, driver = torch.cuda.get_device_properties(0).total_memory, "unknown"
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True).stdout.strip().replace("\n", ", ") or driver
    return f"{NAME}, {memory / 2**30:.0f} GiB, torch {torch.__version__}, driver {driver}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what", choices=("missing", "measure", "table"), help="print names, measure lines, print figures"
    )
    parser.add_argument("lines", nargs="*", help=f"of {', '.join(LINES)}; of a table: those that failed")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    if unknown := set(args.lines) - set(LINES):
        parser.error(f"no line is called {', '.join(sorted(unknown))}; there are {', '.join(LINES)}")
    if DEVICE == "cpu" and not args.quick:
        print("error: torch finds no GPU here; --quick takes tiny sizes, on a CPU, too", file=sys.stderr)
        sys.exit(2)
    file = Path(os.environ.get("GPU_RESULTS", "results/gpu")) / "lines.jsonl"
    there = measured(file, args.quick)
    if args.what == "missing":
        print(*(line for line in args.lines or LINES if line not in there))
    elif args.what == "table":
        print(table(there, args.lines, args.quick))
    else:
        for line in args.lines:
            figures = LINES[line](lambda full, small: small if args.quick else full)
            row = {"line": line, "quick": args.quick, "device": NAME, "figures": figures}
            with open(file, "a", encoding="utf-8") as out:
                out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
