"""Where models run, in which number format, and whether there is room for what comes of it."""

from __future__ import annotations

import functools
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dpsda.errors import InputError

if TYPE_CHECKING:
    import torch

MARGIN = 1.2  # by which bfloat16 has to be faster on a processor: a choice that no noise of a measurement turns over


def pick_device(name: str) -> str:
    """The torch device of this name; auto takes the GPU if there is one. InputError where there is none."""
    import torch

    device = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"--device {device}: there is none here; auto takes what there is") from None
    return device


@functools.cache
def multiplies_bfloat16(device: str) -> bool:
    """Whether the hardware of `device` does, and faster than float32.

    Of processors that have it in AVX-512 alone, some take half the time of float32 and some twice: those are asked once
    a process, a tenth of a second.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = torch.cpu.get_capabilities()
    if device != "cpu" or not (cpu.get("avx512_bf16") or cpu.get("amx_bf16")):
        return False
    if cpu.get("amx_bf16"):
        return True
    low, high = _seconds(torch.bfloat16, torch.float32)
    return MARGIN * low < high


def _seconds(*dtypes: torch.dtype) -> list[float]:
    """The least time of a matrix product of the size of a model's in each format, of some that take turns: processor
    time of one thread, which other processes do not add to."""
    import torch

    factors = [(torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)) for dtype in dtypes]
    times: list[list[float]] = [[] for _ in dtypes]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(8):
            for (a, b), own in zip(factors, times, strict=True):
                start = time.thread_time()
                torch.nn.functional.linear(a, b)
                own.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    return [min(own) for own in times]


def is_bfloat16(dtype: str, device: str) -> bool:
    """Whether weights are in bfloat16, not float32, of a --dtype that is one of both or auto."""
    return dtype == "bfloat16" or (dtype == "auto" and multiplies_bfloat16(device))


def check_room(place: Path, needed: float, what: str) -> None:
    """InputError where the disk of a folder has no room for so many bytes; before anything is spent."""
    there = next(p for p in (place, *place.parents) if p.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise InputError(f"{there}: has {free / 2**30:.1f} GiB free, too little for {what}; make room first")
