"""Where models run, and in which number format."""

from __future__ import annotations

from dpsda.errors import InputError


def pick_device(name: str) -> str:
    """The torch device of this name; auto takes the GPU if there is one. InputError where there is none."""
    import torch

    device = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"--device {device}: there is none here; auto takes what there is") from None
    return device


def multiplies_bfloat16(device: str) -> bool:
    """Whether the hardware of `device` does: elsewhere float32 is faster."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    cpu = torch.cpu.get_capabilities()
    return device == "cpu" and bool(cpu.get("avx512_bf16") or cpu.get("amx_bf16"))


def is_bfloat16(dtype: str, device: str) -> bool:
    """Whether weights are in bfloat16, not float32, of a --dtype that is one of both or auto."""
    return dtype == "bfloat16" or (dtype == "auto" and multiplies_bfloat16(device))
