"""What benchmarks/peers/generation.sh does: the same prompts for HFAPI and for vLLM's engine.

    PYTHONPATH=.:benchmarks python benchmarks/peers/vllm_generation.py PROMPTS CORES VLLM_PYTHON FOLDER

Prompts, caps, the sampler and what counts as a useful token are those of benchmarks/generation.py. Each engine runs
alone, on the same cores, in a process of its own. HFAPI runs before and after vLLM, so that both see the same machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from figures import record

ROUNDS = 3  # the first of them warms up
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


def hfapi(folder: Path) -> Iterator[int]:
    """Each time it is asked, all answers; how many useful tokens they have."""
    from generation import SAMPLING, make_prompts

    from apis.hf_api import EMBEDDED, HFAPI

    api = HFAPI(EMBEDDED, device="cpu", progress=False, **SAMPLING)
    prompts = make_prompts(int((folder / "prompts").read_text()))
    sampling = {name: SAMPLING[name] for name in ("temperature", "top_k", "top_p")}
    requests = [{"ids": list(r.ids), "sampling": {**sampling, "max_tokens": r.cap}} for r in api.requests(prompts)]
    given = {"model": api.model.config._name_or_path, "requests": requests}
    (folder / "given.json").write_text(json.dumps(given))
    for seed in range(ROUNDS):
        before = api.tokens_generated
        api.generate(prompts, seed)
        yield api.tokens_generated - before


def vllm(folder: Path) -> Iterator[int]:
    """The same of vLLM, with the model, the tokens and the sampler that HFAPI had."""
    from vllm import LLM, SamplingParams, TokensPrompt

    given = json.loads((folder / "given.json").read_text())
    model = LLM(given["model"], dtype="bfloat16", max_model_len=512, max_num_seqs=128)
    prompts = [TokensPrompt(prompt_token_ids=request["ids"]) for request in given["requests"]]
    sampling = [SamplingParams(**request["sampling"]) for request in given["requests"]]
    for _ in range(ROUNDS):
        model.reset_prefix_cache()  # else a round would find the prompts of the one before already read
        answers = model.generate(prompts, sampling, use_tqdm=False)
        yield sum(len(answer.outputs[0].token_ids) for answer in answers)


def measure(engine: Callable[[Path], Iterator[int]], folder: Path) -> None:
    """The rates of an engine in useful tokens a second, in its own process, as the last line."""
    found, rounds = [], engine(folder)
    next(rounds)  # loads and warms up
    start = time.perf_counter()
    for tokens in rounds:
        found.append(tokens / (time.perf_counter() - start))
        start = time.perf_counter()
    print(json.dumps(found))


def main(prompts: str, cores: int, vllm_python: str, folder: Path) -> None:
    (folder / "prompts").write_text(prompts)
    own = sorted(os.sched_getaffinity(0))[:cores]
    os.sched_setaffinity(0, own)  # of the engines, too
    threads = {"OMP_NUM_THREADS": str(cores), "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, own))}
    rates: dict[str, list[float]] = {"hfapi": [], "vllm": []}
    for engine, python in (("hfapi", sys.executable), ("vllm", vllm_python), ("hfapi", sys.executable)):
        command, env = [python, __file__, engine, str(folder)], {**os.environ, **SETTINGS, **threads}
        out = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
        found = json.loads(out.splitlines()[-1])
        print(f"{engine}: {', '.join(f'{one:.0f}' for one in found)} useful tokens/s", flush=True)
        rates[engine] += found
    ours, theirs = (statistics.median(rates[engine]) for engine in ("hfapi", "vllm"))
    print(f"HFAPI is faster by {ours / theirs:.2f}x")
    record("texts of a local model", ours, theirs, "tokens/s", f"vLLM's engine, {cores} cores")


if __name__ == "__main__":
    engines = {"hfapi": hfapi, "vllm": vllm}
    if sys.argv[1] in engines:
        measure(engines[sys.argv[1]], Path(sys.argv[2]))
    else:
        main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
