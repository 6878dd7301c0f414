"""Many LoRA adapters on one base model, a different one for every row of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from dpsda.errors import InputError
from dpsda.runs import whole_json

NONE = -1  # the base model alone
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, PARTS = "base_model.model.", {"A": ".lora_A.weight", "B": ".lora_B.weight"}


class Bank:
    """The adapters in `folders`, as peft writes them, on `model`, whose linear modules it wraps. All of one shape."""

    def __init__(self, model: nn.Module, folders: Sequence[Path]) -> None:
        self.rows: Tensor | None = None  # (R,) the adapter of each row of the batch; None for no adapter anywhere
        configs = [whole_json(folder / CONFIG, ("r", "lora_alpha", "target_modules")) for folder in folders]
        self.scale = configs[0]["lora_alpha"] / configs[0]["r"]
        for folder, config in zip(folders, configs, strict=True):
            if any(config[key] != configs[0][key] for key in ("r", "lora_alpha")):
                raise InputError(f"{folder}: its adapter has another rank or scale than the first one")
        for name, pair in _stacked(folders).items():
            self._wrap(model, name, pair, folders[0])

    @contextmanager
    def use(self, rows: Tensor | None) -> Iterator[None]:
        """Within it, row r of a batch goes through adapter `rows`[r], (R,) with NONE for none."""
        self.rows = rows if rows is not None and bool((rows != NONE).any()) else None
        try:
            yield
        finally:
            self.rows = None

    def _wrap(self, model: nn.Module, name: str, pair: dict[str, Tensor], folder: Path) -> None:
        parent_name, _, last = name.rpartition(".")
        try:
            parent = model.get_submodule(parent_name)
            inner = getattr(parent, last)
        except AttributeError:
            raise InputError(f"{folder}: its adapter is not of this model, which has no module {name}") from None
        weight = inner.weight
        fits = {pair["A"].shape[-1], pair["B"].shape[-2]} == set(weight.shape)
        if not fits:
            raise InputError(f"{folder}: its adapter is not of this model, whose {name} has another size")
        moved = {part: tensor.to(weight.device) for part, tensor in pair.items()}
        setattr(parent, last, _Adapted(inner, self, **moved))


class _Adapted(nn.Module):
    def __init__(self, inner: nn.Module, bank: Bank, A: Tensor, B: Tensor) -> None:
        super().__init__()
        self.inner, self.bank = inner, bank
        self.A, self.B = A, B  # (n + 1, r, in) and (n + 1, out, r), float32; those of NONE, the last, are zero

    def forward(self, x: Tensor) -> Tensor:  # (R, T, in)
        plain = self.inner(x)
        rows = self.bank.rows
        if rows is None:
            return plain
        low = x.to(self.A.dtype) @ self.A[rows].mT
        return plain + (self.bank.scale * (low @ self.B[rows].mT)).to(plain.dtype)


def _stacked(folders: Sequence[Path]) -> dict[str, dict[str, Tensor]]:
    """For each module the A and the B of all adapters, with zeros after the last."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    parts: dict[str, list[Tensor]] = {}
    for folder in folders:
        path = folder / WEIGHTS
        if not path.is_file():
            raise InputError(f"{path}: the file is missing; train the ensemble to its end")
        try:
            loaded = load_file(path)
        except (OSError, SafetensorError):
            raise InputError(f"{path}: is damaged; remove its folder, and train the ensemble to its end") from None
        if parts and set(loaded) != set(parts):
            raise InputError(f"{path}: its adapter is on other modules than the first one's")
        for key, tensor in loaded.items():
            parts.setdefault(key, []).append(tensor.float())
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensors in parts.items():
        part = next((part for part, end in PARTS.items() if key.endswith(end)), None)
        if part is None or not key.startswith(PREFIX) or len({tensor.shape for tensor in tensors}) > 1:
            raise InputError(f"{folders[0]}: {key} is no weight of a LoRA adapter of one shape")
        name = key.removeprefix(PREFIX).removesuffix(PARTS[part])
        found.setdefault(name, {})[part] = torch.stack([*tensors, torch.zeros_like(tensors[0])])
    return found
