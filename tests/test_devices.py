"""In which number format models run."""

from __future__ import annotations

import pytest
import torch

from dpsda import devices


@pytest.mark.parametrize(
    ("has", "bfloat16", "wanted"),
    [
        ({}, 0.1, False),
        ({"avx512_bf16": True}, 0.5, True),
        ({"avx512_bf16": True}, 0.9, False),  # within the margin
        ({"avx512_bf16": True}, 2.0, False),
        ({"amx_bf16": True}, 2.0, True),  # not asked
    ],
)
def test_bfloat16_is_for_processors_where_it_is_faster(monkeypatch, has, bfloat16, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(devices, "_seconds", lambda dtype: bfloat16 if dtype == torch.bfloat16 else 1.0)
    assert devices.multiplies_bfloat16.__wrapped__("cpu") is wanted


def test_a_product_takes_time():
    assert 0 < devices._seconds(torch.float32) < 1
