"""One table of what the benchmarks of one run have found, each against what a user would take instead.

    python benchmarks/figures.py FILE

A benchmark calls `record`; `benchmarks/run.sh` collects what it says in FILE, which $FIGURES names.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

PACKAGES = ("torch", "transformers", "sentence-transformers", "opacus", "faiss-cpu", "openai", "ray", "numpy")


def record(what: str, ours: float, theirs: float, unit: str, instead: str) -> None:
    """A comparison: `ours` and `theirs` in `unit`, of which fewer are better where it is "s" or "ms", else more.
    Nothing happens without $FIGURES."""
    if "FIGURES" in os.environ:
        row = {"what": what, "ours": ours, "theirs": theirs, "unit": unit, "instead": instead}
        with open(os.environ["FIGURES"], "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def table(rows: list[dict]) -> str:
    lines = ["| | ours | instead | | faster by |", "|---|---:|---:|---|---:|"]
    for row in rows:
        less = row["unit"] in ("s", "ms")
        ratio = row["theirs"] / row["ours"] if less else row["ours"] / row["theirs"]
        values = f"{row['ours']:,.4g} {row['unit']} | {row['theirs']:,.4g} {row['unit']}"
        lines.append(f"| {row['what']} | {values} | {row['instead']} | {ratio:.2f}x |")
    return "\n".join(lines)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())


def machine() -> str:
    """What this ran on: the processor, its number formats, and the versions."""
    import torch

    from dpsda.devices import multiplies_bfloat16

    cpu = torch.cpu.get_capabilities()
    has = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if cpu.get(name)]
    taken = "bfloat16" if multiplies_bfloat16("cpu") else "float32"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores of {processor()} ({', '.join(has)}; models in {taken}), "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}, {versions}"
    )


if __name__ == "__main__":
    print(table([json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]))
    print(f"\n{machine()}")
