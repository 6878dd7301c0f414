"""Candidates of a model that is tuned on the texts which the votes kept."""

from __future__ import annotations

import math
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from apis.api import Prompt
from apis.hf_api import HFAPI
from dpsda.augpe.tuned import TunedModel
from dpsda.data import DatasetSpec, Label
from dpsda.errors import InputError
from dpsda.models import load_model
from dpsda.options import EngineOptions, ModelOptions
from dpsda.privacy import certificate
from dpsda.privacy.errors import LedgerError
from dpsda.privacy.ledger import Ledger
from dpsda.routes import augpe
from dpsda.runs import read_csv
from dpsda.tuning import adapter
from dpsda.tuning.adapter import add_lora
from dpsda.tuning.generator import cell_prefixes, encode
from dpsda.tuning.options import LoraOptions
from dpsda.tuning.supervised import fit
from tests.conftest import options, use
from tests.finetune.tiny import saved, tiny, words_tokenizer
from tests.kills import Killer, stored_votes

T = 3


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    return saved("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    use(monkeypatch)


def go(root: Path, dataset: Path, model: str, *, privacy=None, engine=None, **evolution):
    evolution = {"epochs": T, "num_seed_samples": 24, "L": 2, "new_texts": "tuned", "tuning_epochs": 1, **evolution}
    given = list(options(dataset, privacy=privacy or {"noise": 3.0}, evolution=evolution))
    given[4] = replace(ModelOptions(), model_type=model, length=8, device="cpu")
    given[7] = engine or given[7]
    augpe.generate(root, *given)
    return read_csv(
        (root if math.isfinite((privacy or {}).get("epsilon", 1)) else root / "private") / "release" / "synthetic.csv"
    )


def test_from_the_second_iteration_on_the_model_that_learnt_what_was_kept_writes(tmp_path, dataset, llama):
    go(tmp_path, dataset, llama)
    adapters = sorted(path.name for path in (tmp_path / "state" / "tuned").iterdir())
    assert adapters == ["2", "3"] and not list((tmp_path / "state").glob(".tuned-*"))
    first, second = (read_csv(tmp_path / "state" / f"candidates-{t}.csv") for t in (1, 2))
    kept = read_csv(tmp_path / "1" / "samples.csv")
    new = second[~second.id.isin(kept.id)]
    assert len(first) == 24 and 0 < len(new) <= 24 and (new.parent_id == "").all()
    assert not {*new.text} & {*kept.text}
    assert set(zip(new.stars, new.kind, strict=True)) <= set(zip(kept.stars, kept.kind, strict=True))
    assert any(word in text.split() for text in new.text for word in (f"w{i}" for i in range(35)))  # the tiny model's
    made = {
        file: line
        for line in Ledger(tmp_path, read_only=True).lines
        if line["type"] == "made"
        for file in line["files"]
    }
    assert made["state/tuned/2/adapter_model.safetensors"]["of"] == ["label_counts", "votes/1"]
    assert certificate.verify(tmp_path)
    assert "of the model tuned on kept texts" in (tmp_path / "release" / "README.md").read_text()


def test_the_adapter_is_one_that_the_run_made(tmp_path, dataset, llama, monkeypatch):
    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TunedModel, "prompt", cut_off)
        with pytest.raises(KeyboardInterrupt):
            go(tmp_path, dataset, llama, epochs=2)
    weights = tmp_path / "state" / "tuned" / "2" / "adapter_model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(LedgerError, match="not the file that the run made"):
        go(tmp_path, dataset, llama, epochs=2)
    weights.write_bytes(kept)
    left = tmp_path / "state" / "tuned" / ".2.99.tmp" / "adapter_model.safetensors"  # by a kill while it was written
    left.parent.mkdir()
    left.write_bytes(kept)
    go(tmp_path, dataset, llama, epochs=2)
    assert weights.read_bytes() == kept and certificate.verify(tmp_path)


def test_without_noise_it_stays_private(tmp_path, dataset, llama):
    go(tmp_path, dataset, llama, privacy={"epsilon": math.inf}, epochs=2)
    assert [path.name for path in tmp_path.iterdir()] == ["private"]
    assert (tmp_path / "private" / "state" / "tuned" / "2").is_dir()


def test_what_cannot_be_tuned_is_said_before_anything_is_spent(tmp_path, dataset, llama, monkeypatch):
    with pytest.raises(InputError, match="takes one that is loaded here"):
        go(tmp_path / "run", dataset, llama, engine=EngineOptions("ray"))
    with pytest.raises(InputError, match="one_var releases variations"):
        go(tmp_path / "run", dataset, llama, save_syn_mode="one_var")
    with pytest.raises(InputError, match="cannot load the model"):
        go(tmp_path / "run", dataset, str(tmp_path / "nowhere"))
    odd = words_tokenizer()
    odd.pad_token, odd.eos_token = "<unk>", None
    shutil.copytree(llama, tmp_path / "endless")
    odd.save_pretrained(tmp_path / "endless")
    with pytest.raises(InputError, match="no end-of-text token"):
        go(tmp_path / "run", dataset, str(tmp_path / "endless"))
    monkeypatch.setattr(adapter, "ATTENTION", ())
    with pytest.raises(InputError, match="none of the attention modules that are known"):
        go(tmp_path / "run", dataset, llama)
    assert not list(tmp_path.rglob("*counts.csv"))


def test_killed_at_random_moments(tmp_path, dataset, llama):
    """Votes that are stored stay, no adapter is trained twice, and epsilon is that of a run that nobody killed."""
    root = tmp_path / "run"
    killer = Killer(
        "from tests.augpe.test_tuned import go, pytest, use; use(pytest.MonkeyPatch())",
        f"go(Path({str(root)!r}), Path({str(dataset)!r}), {llama!r})",
        root,
    )
    unkilled = certificate.verify(root)["epsilon"]
    for _ in range(5):
        shutil.rmtree(root)
        assert killer.kill() in (0, signal.SIGKILL)
        stored = stored_votes(root)
        made = Ledger(root, read_only=True).made() if (root / "state" / "ledger.jsonl").exists() else {}
        go(root, dataset, llama)
        after = Ledger(root, read_only=True).made()
        assert not list((root / "state").glob(".tuned-*"))
        assert stored.items() <= stored_votes(root).items()
        assert made.items() <= after.items() and certificate.verify(root)["epsilon"] == unkilled
    killer.close()


def test_it_learns_the_texts_and_their_labels(tmp_path, llama):
    """After many passes, the likeliest text of a label is the one that stood under it."""
    labels = (Label("stars", ("low", "high")),)
    prefixes = cell_prefixes(DatasetSpec("made up", tmp_path, "text", {}, labels), conditional=True)
    model, tokenizer = load_model("AutoModelForCausalLM", llama)
    texts, cells = ["w1 w2 w3", "w7 w8 w9"] * 8, np.array([0, 1] * 8)
    tokens = encode(texts, cells, prefixes, tokenizer, 32, tokenizer.pad_token_id)
    fit(model, tokens, epochs=60, learning_rate=0.01, device="cpu", seed=0, desc="")
    model.save_pretrained(tmp_path)
    words_tokenizer().save_pretrained(tmp_path)
    written = HFAPI(str(tmp_path), do_sample=False, progress=False, device="cpu", dtype="float32")
    assert written.tokenizer.chat_template  # a conversation's, which the merged model of a run does not have
    written.tokenizer.chat_template = None
    answers = written.generate([Prompt(prefix, max_new_tokens=3) for prefix in prefixes], 0)
    assert [answer.strip() for answer in answers] == ["w1 w2 w3", "w7 w8 w9"]


def test_adapters_alone_are_trained_and_the_seed_of_others_is_left_alone(llama):
    model = add_lora(tiny("llama"), LoraOptions(llama))
    tokens = encode(["w1 w2"], np.zeros(1, int), [""], words_tokenizer_with_padding(), 16, 0)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    fit(model, tokens, epochs=2, learning_rate=1e-3, device="cpu", seed=1, desc="")
    assert torch.equal(torch.rand(3), wanted)
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved and all("lora_" in name for name in moved)


def words_tokenizer_with_padding():
    tokenizer = words_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
