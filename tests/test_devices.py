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
    times = {torch.bfloat16: bfloat16, torch.float32: 1.0}
    monkeypatch.setattr(devices, "_seconds", lambda *dtypes: [times[dtype] for dtype in dtypes])
    assert devices.multiplies_bfloat16.__wrapped__("cpu") is wanted


def test_a_product_takes_time():
    assert all(0 < seconds < 1 for seconds in devices._seconds(torch.float32, torch.float32))
