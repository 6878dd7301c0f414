"""What benchmarks/peers/served.sh does with vLLM: a run whose server is killed in the middle and started again.

python benchmarks/peers/served.py VLLM MODEL FOLDER
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

NAME, PORT, IN_FLIGHT = "smollm2", 8123, 32
URL = f"http://127.0.0.1:{PORT}"
TEXTS, SHARE = 120, 0.1  # of the run: synthetic texts, and of the private records


@contextlib.contextmanager
def server(vllm: str, model: str, folder: Path) -> Iterator[subprocess.Popen]:
    """vLLM on one core, once it answers; killed at the end, with all of its processes."""
    command = [vllm, "serve", model, "--served-model-name", NAME, "--port", str(PORT), "--dtype", "bfloat16"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "0", "VLLM_NO_USAGE_STATS": "1"}
    with open(folder / "server.log", "a") as log:
        process = subprocess.Popen(
            [*command, "--max-model-len", "2048"],
            env={**os.environ, **settings},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        start = time.monotonic()
        while not answers():
            if process.poll() is not None or time.monotonic() - start > 1200:
                raise SystemExit(f"the server did not start; see {folder / 'server.log'}")
            time.sleep(2)
        print(f"the server answers after {time.monotonic() - start:.0f} s", flush=True)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers() -> bool:
    try:
        with urllib.request.urlopen(f"{URL}/health", timeout=5) as reply:
            return reply.status == 200
    except OSError:
        return False


def stored(root: Path) -> dict[tuple[str, str], str | None]:
    """The answers of a run by their call and key; each of them once."""
    files = (root / "state" / "answers").glob("*.jsonl")
    rows = [(path.name, json.loads(line)) for path in files for line in path.open()]
    times = Counter((call, row["key"]) for call, row in rows)
    assert max(times.values(), default=0) <= 1, "an answer was stored twice"
    return {(call, row["key"]): row["answer"] for call, row in rows}


def run(root: Path) -> subprocess.Popen:
    command = [sys.executable, "main.py", "--config", "data/rotten_tomatoes/quickstart.yaml", "--api", "AzureGPT"]
    command += ["--api_base", f"{URL}/v1", "--model_type", NAME, "--num_procs", str(IN_FLIGHT), "--epochs", "1"]
    command += ["--num_seed_samples", str(TEXTS), "--private_share", str(SHARE), "--result_folder", str(root)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def killed_in_the_middle(vllm: str, model: str, folder: Path) -> None:
    root = folder / "run"
    shutil.rmtree(root, ignore_errors=True)
    with server(vllm, model, folder):
        first = run(root)
        while not (root / "state" / "answers").exists() or len(stored(root)) < TEXTS // 2:
            assert first.poll() is None, first.stderr and first.stderr.read()
            time.sleep(0.2)
    said = first.communicate()[1].strip().splitlines()[-1]
    before = stored(root)
    print(f"server killed: the run ends with {first.returncode}, {len(before)} answers stored, and says: {said}")
    with server(vllm, model, folder):
        asked = int(metric("vllm:request_success_total"))
        again = run(root)
        problem = again.communicate()[1]
        assert again.returncode == 0, problem
        after, served = stored(root), int(metric("vllm:request_success_total")) - asked
        assert before.items() <= after.items(), "an answer was lost or changed"
        # one request tries the model out before anything is spent
        print(
            f"the same command ends with 0: {len(after) - len(before)} more answers, of {served} requests at the server"
        )
        texts = pd.read_csv(root / "release" / "synthetic.csv")
        kept = pd.read_csv(root / "1" / "samples.csv")
        assert texts.category.tolist() == kept.category.tolist() and len(texts) == TEXTS
        print(f"labels of the {TEXTS} texts: {texts.category.value_counts().to_dict()}")


def metric(name: str) -> float:
    with urllib.request.urlopen(f"{URL}/metrics", timeout=30) as reply:
        lines = reply.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + "{"))


if __name__ == "__main__":
    killed_in_the_middle(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
