"""Models that are damaged, or of a kind that cannot be used here: one line, wherever they are loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken

from apis.api import Prompt
from apis.hf_api import HFAPI, check_decodable
from dpsda.embedding import Encoder
from dpsda.errors import LONGEST, InputError, first_line
from dpsda.libraries import loading
from dpsda.models import load_model, load_tokenizer
from dpsda.tuning.adapter import add_lora, export_adapter, load_adapter, merge
from tests import forks
from tests.finetune.made import options
from tests.finetune.tiny import SIZE, WORDS, saved, words_tokenizer

ROOT = Path(__file__).parents[1]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 269060552\n"
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
TEMPLATE = "{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' ' }}{% endfor %}"

DOORS = {
    "write": lambda folder: HFAPI(folder, device="cpu", progress=False),
    "train": lambda folder: load_model("AutoModelForCausalLM", folder),
    "classify": lambda folder: load_model("AutoModelForSequenceClassification", folder, num_labels=2),
    "embed": lambda folder: Encoder(folder, device="cpu", cache=False),
}


@pytest.fixture
def copied(request, tmp_path):
    """`copied(kind)` is a copy of the tiny model of a fixture, to be damaged."""
    return lambda kind: Path(shutil.copytree(request.getfixturevalue(kind), tmp_path / kind))


def config(**settings):
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))

    return damage


def weights(change):
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return damage


def without(part: str):
    """Takes a tensor of the second layer away."""

    def change(tensors: dict) -> None:
        for name in [name for name in tensors if part in name and ".1." in name][:1]:
            del tensors[name]

    return weights(change)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def own_code(folder: Path) -> None:
    classes = {f"Auto{kind}": "own.Model" for kind in ("Config", "Model", "ModelForCausalLM", "Tokenizer")}
    config(model_type="own", auto_map=classes)(folder)
    (folder / "own.py").write_text(CODE)


def own_module(folder: Path) -> None:
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "own.Model"}]))
    (folder / "own.py").write_text(CODE)


def words(number: int):
    """Makes the tokenizer longer by so many words, of which the model knows nothing."""

    def damage(folder: Path) -> None:
        path = folder / "tokenizer.json"
        state = json.loads(path.read_text())
        state["model"]["vocab"] |= {f"more{i}": SIZE + i for i in range(number)}
        path.write_text(json.dumps(state))

    return damage


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text(POINTER)


def adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "gpt2"}))


def quantized(method: str, **settings):
    return config(quantization_config={"quant_method": method, **settings})


ALL = ("write", "train", "embed")
CASES = {
    "a pointer of Git LFS": ("llama", pointer, ALL, "cannot load"),
    "half a file": ("llama", cut, ALL, "cannot load"),
    "half a file of an encoder": ("bert", cut, ("classify", "embed"), "cannot load"),
    "GPTQ": ("llama", quantized("gptq", bits=4), ALL, "before quantization"),
    "AWQ": ("llama", quantized("awq", bits=4), ALL, "before quantization"),
    "bitsandbytes": ("llama", quantized("bitsandbytes", load_in_4bit=True), ALL, "before quantization"),
    "other shapes": ("llama", config(intermediate_size=40), ALL, r"configuration asks for \(.*down_proj"),
    "other shapes of an encoder": ("bert", config(intermediate_size=40), ("classify", "embed"), "asks for"),
    "a tensor less": ("llama", without("q_proj"), ALL, r"asks for \(.*layers.1.self_attn.q_proj.weight is missing or"),
    "a tensor less of an encoder": ("bert", without("query.weight"), ("classify", "embed"), "query.weight is missing"),
    "no config": ("llama", lambda folder: (folder / "config.json").unlink(), ALL, "config.json"),
    "a config that is no JSON": ("llama", lambda folder: (folder / "config.json").write_text("{"), ALL, "config.json"),
    "an unknown architecture": ("llama", config(model_type="gpt9"), ALL, "gpt9"),
    "no weights": ("llama", lambda folder: (folder / "model.safetensors").unlink(), ALL, "model.safetensors"),
    "no tokenizer": ("llama", lambda folder: [f.unlink() for f in folder.glob("tokenizer*")], ALL, "cannot load"),
    "half a tokenizer": ("llama", lambda folder: (folder / "tokenizer.json").write_text('{"a'), ALL, "cannot load"),
    "more words than rows": ("llama", words(5), ("train", "embed"), "different models"),
    "more words than rows of an encoder": ("bert", words(5), ("classify", "embed"), "different models"),
    "an adapter": ("llama", adapter, ("write", "train"), "is an adapter, not a whole model"),
    "an adapter of an encoder": ("bert", adapter, ("embed",), "cannot load"),
    "code of its own": ("llama", own_code, ALL, "code of their own are not run"),
    "a module of its own": ("bert", own_module, ("embed",), "code of their own are not run"),
    "an encoder": ("t5", lambda folder: None, ("write", "train"), "cannot load"),
}


@pytest.fixture(scope="session")
def t5(tmp_path_factory) -> str:
    from transformers import T5Config, T5EncoderModel

    folder = tmp_path_factory.mktemp("t5")
    small = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    T5EncoderModel(T5Config(vocab_size=SIZE, **small)).save_pretrained(folder)
    words_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(("case", "door"), [(case, door) for case, (*_, doors, _) in CASES.items() for door in doors])
def test_a_damaged_model_is_one_line(case, door, copied, monkeypatch, capfd):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    kind, damage, _, match = CASES[case]
    folder = copied(kind)
    damage(folder)
    capfd.readouterr()
    with pytest.raises(InputError, match=match) as error:
        DOORS[door](str(folder))
    line = str(error.value)
    assert line.isprintable() and len(line) < LONGEST + 500 and str(folder) in line and "; " in line
    assert capfd.readouterr().out == "" and not (folder / "ran").exists()


def test_a_new_head_is_no_damage(bert, copied):
    """A classifier and a language model are made of an encoder that has neither head; its other weights are its own."""
    folder = copied("bert")
    weights(lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("cls.")])(folder)
    config(architectures=["BertModel"])(folder)
    there = load_file(folder / "model.safetensors")
    for kind, more in (("AutoModelForSequenceClassification", {}), ("AutoModelForCausalLM", {"is_decoder": True})):
        state = load_model(kind, str(folder), **more)[0].state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in there.items())
    with pytest.raises(InputError, match=r"cls\.predictions.* is missing"):  # that nothing will train
        load_model("AutoModelForCausalLM", str(folder))
    config(id2label={"0": "a", "1": "b", "2": "c"}, architectures=["BertForSequenceClassification"])(folder)
    load_model("AutoModelForSequenceClassification", str(folder), num_labels=3)[0].save_pretrained(folder)
    assert load_model("AutoModelForSequenceClassification", str(folder), num_labels=2)[0].num_labels == 2


def test_an_encoder_whose_files_lack_its_pooler_has_one_identity(bert):
    first, second = (Encoder(bert, device="cpu", cache=False) for _ in range(2))
    assert first.identity == second.identity
    assert np.isfinite(first.embed(["A thing"], private=False)).all()


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (MemoryError(), "smaller batch"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "smaller batch"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            "smaller batch",
        ),
        (OSError(28, "No space left on device"), "room on the disk"),
        (ValueError("Please pass the argument `trust_remote_code=True` to allow"), "code of their own"),
        (ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes"), "before quantization"),
        (KeyError("gpt9"), "KeyError: 'gpt9'"),
        (AssertionError(), "AssertionError"),
        (RuntimeError("a " * 1000), " ...); take another"),
        (RuntimeError("\x1b[31mred\x07 and \u202e\nmore"), "[31mred  and"),
    ],
)
def test_what_a_library_says_becomes_one_line_with_a_remedy(error, remedy):
    with pytest.raises(InputError) as caught, loading("the model 'm'", "take another"):
        raise error
    line = str(caught.value)
    assert remedy in line and line.isprintable() and len(line) < LONGEST + 200 and line.startswith("cannot load the ")
    assert ("take another" in line) == (type(error) in (KeyError, AssertionError) or "..." in remedy or "red" in remedy)


def test_what_is_no_fault_of_the_library_passes():
    for error in (InputError("as it is"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, loading("a", "b"):
            raise error
        assert caught.value is error
    assert first_line(ValueError("one\ntwo")) == "ValueError: one" and first_line(ValueError("one two.\n")) == "one two"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2", "mixtral"])
def test_models_that_can_be_decoded(kind, tmp_path):
    check_decodable(saved(kind, tmp_path))
    HFAPI(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("bloom", "bloom, whose attention cannot be batched here; serve it instead"),
        ("falcon", "falcon, whose attention cannot be batched here; serve it instead"),
        ("gptj", "gptj, whose attention cannot be batched here; serve it instead"),
        ("gemma2", "gemma2: this model caps its attention scores .*; serve it instead"),
        ("gpt_oss", "gpt_oss: this model caps its attention scores .*; serve it instead"),
        ("minimax", "cache of its own"),
    ],
)
def test_models_that_cannot_be_decoded_are_known_by_their_config(kind, match, tmp_path):
    """The line is that of loading; no weights are needed for it."""
    folder = saved(kind, tmp_path / kind)
    with pytest.raises(InputError, match=match) as loaded:
        HFAPI(folder, device="cpu", dtype="float32")
    (tmp_path / kind / "model.safetensors").unlink()
    with pytest.raises(InputError) as told:
        check_decodable(folder)
    assert str(told.value) == str(loaded.value)


def test_what_else_loading_refuses_check_decodable_refuses(copied, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = copied("llama")
    adapter(folder)
    for name in (str(folder), "./nowhere", "no-such-owner/no-such-model"):
        with pytest.raises(InputError):
            check_decodable(name)


def templated(folder: Path, template: str) -> str:
    tokenizer = words_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return str(folder)


REQUEST = Prompt("w1", max_new_tokens=2)
SYSTEM = Prompt("w1", "w2", max_new_tokens=2)
SHOTS = Prompt("w1", "", (("w3", "w4"), ("w5", "w6")), 2)
WHOLE = Prompt("w1", "w2", SHOTS.shots, 2)


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0]['content'] | no_such_filter }}",
        "{{ raise_exception('never') }}",
        "{{ 1 / 0 }}",
        "{% for m in messages %}",
        "{{ messages[0]['content'].nothing.at.all }}",
        "a constant",
    ],
)
def test_a_template_that_never_works_is_one_line_at_the_start(template, copied):
    with pytest.raises(InputError, match="template") as error:
        HFAPI(templated(copied("llama"), template), device="cpu")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("refuses", "prompt"),
    [
        ("{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}", None),
        ("{% if messages[0]['role'] == 'system' %}{{ 1 / 0 }}{% endif %}", None),
        ("{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}", None),
        ("{% set messages = messages | rejectattr('role', 'equalto', 'assistant') | list %}", SHOTS),
        ("{% set messages = messages[-2:] %}", SHOTS),
        ("{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}", SHOTS),
    ],
)
def test_a_turn_that_a_template_leaves_out_is_noticed(refuses, prompt, copied):
    """The system turn goes to the first request then; without another one there is no such conversation."""
    api = HFAPI(templated(copied("llama"), refuses + TEMPLATE), device="cpu", progress=False)
    api.check(REQUEST)
    if prompt is None:
        assert api.render(SYSTEM) == "user w2\n\nw1 "
        assert api.render(WHOLE) == "user w2\n\nw3 assistant w4 user w5 assistant w6 user w1 "
        assert api.render(SHOTS) == "user w3 assistant w4 user w5 assistant w6 user w1 "
        api.check(WHOLE)
    else:
        for call in (api.check, lambda prompt: api.generate([prompt], 0)):
            with pytest.raises(InputError, match="template") as error:
                call(prompt)
            assert str(error.value).isprintable()


def test_a_template_that_strips_and_one_that_knows_all_turns_are_left_alone(copied):
    strips = TEMPLATE.replace("m['content']", "(m['content'] | trim)")
    api = HFAPI(templated(copied("llama"), strips), device="cpu")
    assert api.render(Prompt(" w1\n", "\nw2 ")) == "system w2 user w1 "


def test_a_template_is_asked_once_for_each_shape(copied, monkeypatch):
    """And is told nothing of the prompts: its errors may quote them."""
    api = HFAPI(templated(copied("llama"), TEMPLATE), device="cpu")
    real, seen = api._needs_folding, []
    monkeypatch.setattr(api, "_needs_folding", lambda *shape: seen.append(shape) or real(*shape))
    api.requests([REQUEST, SYSTEM, SHOTS, WHOLE] * 50)
    assert seen == [(True, 0), (False, 2), (True, 2)]  # that of the first was seen when the engine was made


def test_a_token_without_a_row_is_refused_and_others_are_not(copied):
    folder = copied("llama")
    words(3)(folder)
    api = HFAPI(str(folder), device="cpu", progress=False)
    assert len(api.generate([Prompt("w1", max_new_tokens=2)], 0)) == 1
    for call in (api.check, lambda prompt: api.generate([REQUEST, prompt], 0)):
        with pytest.raises(InputError, match=rf"has the token {SIZE + 2}, .* rows for {SIZE}"):
            call(Prompt("w1 more2", max_new_tokens=2))


def test_check_draws_a_token_and_counts_none(llama):
    api = HFAPI(llama, device="cpu", progress=False)
    api.check(Prompt("w1", "w2", max_new_tokens=50))
    assert api.tokens_generated == 0
    with pytest.raises(InputError, match="shorten"):
        api.check(Prompt("w1 " * 100))


def test_what_fails_in_the_first_forward_pass_alone_fails_at_the_start(llama, bert, monkeypatch):
    from transformers import BertModel, LlamaModel

    def fail(*_, **__):
        raise RuntimeError("no kernel for this\nand more")

    for model, doors, folder in ((LlamaModel, ("write", "train"), llama), (BertModel, ("classify", "embed"), bert)):
        monkeypatch.setattr(model, "forward", fail)
        for door in doors:
            with pytest.raises(InputError, match=r"no kernel for this\); give"):
                DOORS[door](folder)


def added(folder: Path, *tokens: str, **more) -> str:
    """Adds tokens to the tokenizer that the model has no rows for."""
    tokenizer = words_tokenizer()
    tokenizer.add_tokens([AddedToken(token, special=True) for token in tokens])
    for name, token in more.items():
        setattr(tokenizer, name, token)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_text_that_spells_an_added_token_without_a_row_stops_nothing(copied):
    """Some tokenizers have more added tokens than their model has rows: one private text would end a run."""
    folder = added(copied("llama"), "<image>", pad_token="<image>")
    tokenizer = load_model("AutoModelForCausalLM", folder)[1]
    ids = tokenizer("w1 <image> w2")["input_ids"]
    assert max(ids) < SIZE and ids == words_tokenizer()("w1 nothing w2")["input_ids"] and tokenizer.pad_token_id < SIZE
    folder = added(copied("bert"), "<image>")
    encoder = Encoder(folder, device="cpu", cache=False)
    vectors = encoder.embed(["w1 <image> w2", "w1 nothing w2", "w1 w2"], private=True)
    assert np.array_equal(vectors[0], vectors[1]) and not np.array_equal(vectors[0], vectors[2])
    folder = added(copied("gpt2"), "<stop>", eos_token="<stop>")
    with pytest.raises(InputError, match="different models"):  # no text could end
        load_model("AutoModelForCausalLM", folder)


def test_a_tokenizer_without_a_token_to_pad_with_is_one_line(copied):
    folder = copied("llama")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in settings.items() if name != "eos_token"}))
    with pytest.raises(InputError, match="neither a padding nor an end token"):
        load_tokenizer(str(folder))


def test_an_adapter_that_is_damaged_or_of_another_model(llama, gpt2, tmp_path):
    model, tokenizer = load_model("AutoModelForCausalLM", llama)
    tuning = options("unused", llama)[2]
    export_adapter(add_lora(model, tuning), llama, tmp_path / "whole")
    fresh = lambda name: load_model("AutoModelForCausalLM", name)[0]  # noqa: E731
    load_adapter(fresh(llama), tmp_path / "whole")
    for damage in (cut, pointer, without("lora_A"), lambda folder: (folder / "config.json").unlink()):
        folder = Path(shutil.copytree(tmp_path / "whole", tmp_path / "damaged"))
        for name in ("config.json", "model.safetensors"):
            (folder / f"adapter_{name}").rename(folder / name)
        damage(folder)
        for name in ("config.json", "model.safetensors"):
            if (folder / name).exists():
                (folder / name).rename(folder / f"adapter_{name}")
        with pytest.raises(InputError, match="cannot load the adapter") as error:
            merge(fresh(llama), tokenizer, folder, tmp_path / "merged")
        assert str(error.value).isprintable() and not (tmp_path / "merged").exists()
        shutil.rmtree(folder)
    with pytest.raises(InputError, match="cannot load the adapter"):
        load_adapter(fresh(gpt2), tmp_path / "whole")


def ended(script: str, *words: object) -> tuple[int, str]:
    """The exit code of a command, and what it said on stderr."""
    done = forks.run([ROOT / script, *words])
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("script", "kind", "damage", "match"),
    [
        ("main.py", "llama", own_code, "code of their own are not run here"),
        ("finetune.py", "llama", without("q_proj"), "is missing"),
        ("metric.py", "bert", pointer, "cannot load the encoder"),
    ],
)
def test_a_command_ends_with_one_line_and_exit_code_2(script, kind, damage, match, dataset, copied, tmp_path):
    folder = copied(kind)
    damage(folder)
    common = ["--dataset", dataset, "--result_folder", tmp_path / "run"]
    more = ["--epsilon", "4", "--model_type", folder]
    if script == "finetune.py":
        more += ["--batch_size", 30, "--steps", 4]
    if script == "metric.py":
        pd.DataFrame({"text": [f"A thing {word}" for word in WORDS], "stars": "low"}).to_csv(tmp_path / "made.csv")
        (tmp_path / "run").mkdir()
        more = ["--synthetic_file", tmp_path / "made.csv", "--feature_extractor", folder]
    code, said = ended(script, *common, *more)
    assert (code, said.count("\n")) == (2, 1), said
    assert match in said and str(folder) in said and "Traceback" not in said
