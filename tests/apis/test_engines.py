"""Which engines there are, and what each has to say of itself."""

from __future__ import annotations

import pytest

from apis.engines import ENGINES, engine
from dpsda.errors import InputError
from dpsda.options import ModelOptions, RemoteOptions


def test_one_that_sends_prompts_away_says_so():
    assert {name: entry.sends for name, entry in ENGINES.items()} == {"HFGPT": False, "AzureGPT": True, "own": True}
    assert not ModelOptions().sends and ModelOptions(api="AzureGPT").sends and ModelOptions().loads


def test_every_engine_is_made_by_its_options(tmp_path, monkeypatch, llama):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("AZURE_OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="no key"):
        engine(ModelOptions(api="AzureGPT"), RemoteOptions(), tmp_path)
    made = engine(ModelOptions(model_type=llama, device="cpu", temperature=0.5), RemoteOptions(), tmp_path)
    assert made.name == llama and made.sampling["temperature"] == 0.5
    assert engine(ModelOptions(device="cpu"), RemoteOptions(), tmp_path, name=llama, progress=False).name == llama
