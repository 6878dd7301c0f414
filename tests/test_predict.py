"""predict.py on the made-up data set: what a step leaves, what an answer is drawn from, kills, leaks and bad input."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dpsda.arg_utils import parse
from dpsda.commands import COMMANDS
from dpsda.data import DatasetSpec, load
from dpsda.errors import InputError
from dpsda.pmixed.answers import Text, Writer
from dpsda.pmixed.bank import NONE, Bank
from dpsda.pmixed.ensemble import Ensemble
from dpsda.pmixed.options import AnswerOptions, HardwareOptions
from dpsda.pmixed.shards import assign
from dpsda.privacy import certificate
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mixture import ClippedLogits, MaxDivergence, Mixture, Renyi
from dpsda.routes import finetune
from dpsda.routes import predict as steps
from tests.conftest import number, write_rows
from tests.finetune.tiny import SIZE, saved
from tests.kills import Killer

ROOT = Path(__file__).parents[1]
CPU = ("--device", "cpu", "--dtype", "float32")


def step(name: str, root, *words) -> None:
    argv = [str(word) for word in ("--result_folder", root, *CPU, *words)]
    getattr(steps, name)(*parse(argv, "predict.py", "", *COMMANDS["predict"].steps[name]))


def train(root, dataset, model, *words) -> None:
    few = ("--shards", 4, "--epochs", 3, "--block_length", 24, "--learning_rate", 0.05, "--lora_r", 2)
    step("train", root, "--dataset", dataset, "--model_type", model, *few, *words)


def generate(root, *words) -> pd.DataFrame:
    few = ("--epsilon", 8, "--queries", 60, "--length", 10, "--together", 3, "--block_queries", 25, "--inclusion", 0.5)
    step("generate", root, *few, *words)
    return pd.read_csv(shared(root) / "release" / "synthetic.csv", keep_default_na=False)


def shared(root: Path) -> Path:
    """Where the results of a run lie: those of a mechanism whose claim does not hold are private."""
    return root if (root / "state" / "ledger.jsonl").exists() else root / "private"


def refused(match: str, call, *words) -> None:
    with pytest.raises((InputError, PrivacyError), match=match) as error:
        call(*words)
    assert "\n" not in str(error.value)


@pytest.fixture
def trained(tmp_path, dataset, llama) -> Path:
    train(tmp_path / "run", dataset, llama)
    return tmp_path / "run"


def adapters(root: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in (root / "private" / "ensemble").glob("*/adapter_model.safetensors")}


def test_a_run_leaves_what_it_promises(trained, capsys):
    frame = generate(trained)
    facts, book = certificate.verify(trained), Ledger(trained, read_only=True)
    assert list(frame.columns) == ["id", "parent_id", "text", "stars", "kind"] and set(frame.stars) <= {"low", "high"}
    assert 7.5 < facts["epsilon"] <= 8 and "NOT A" not in facts["statement"]
    names = [line.name for line in book.reservations()]
    assert names == ["label_counts", "answers/0-25", "answers/25-50", "answers/50-60"]
    assert "60 answers, 60 charged: the budget of queries is spent" in capsys.readouterr().out
    given = [json.loads(path.read_text()) for path in sorted((trained / "state" / "answers").iterdir())]
    assert [sum(len(tokens) for _, tokens in block) for block in given] == [25, 25, 10]
    head = book.head
    assert generate(trained).equals(frame) and Ledger(trained, read_only=True).head == head
    assert "complete" in capsys.readouterr().out
    outside = {p.relative_to(trained).parts[0] for p in trained.rglob("adapter_model*")}
    assert outside == {"private"}  # adapters carry no noise


def test_two_runs_with_one_seed_differ_in_what_they_draw(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "other")
    assert not generate(trained).text.equals(generate(tmp_path / "other").text)


def test_more_queries_only_as_far_as_the_budget_goes(trained):
    generate(trained)
    refused(
        r"--queries 5000: within epsilon 8 the mechanism of this run may give \d+ answers",
        generate,
        trained,
        "--queries",
        5000,
    )
    refused("epsilon .* is spent", generate, trained, "--epsilon", 1)
    refused("--queries 59: this run was begun with 60; ask for no fewer", generate, trained, "--queries", 59)
    refused("--num_samples 3: this run was begun with 10000", generate, trained, "--num_samples", 3)
    spent = certificate.verify(trained)["epsilon"]
    generate(trained, "--epsilon", 20, "--queries", 80)
    assert spent < certificate.verify(trained)["epsilon"] <= 20
    refused("another configuration", generate, trained, "--epsilon", 20, "--queries", 80, "--inclusion", 0.4)


@pytest.mark.parametrize("method", ["max", "renyi", "paper", "dclip"])
def test_every_mechanism_writes_texts(trained, method):
    words = ("--aggregation", "dclip", "--top_k", 5) if method == "dclip" else ("--projection", method)
    frame = generate(trained, *words, "--order", 4)
    facts = certificate.verify(trained)
    kinds = {"max": "MaxDivergence", "renyi": "Renyi", "paper": "Published", "dclip": "ClippedLogits"}
    assert facts["mechanisms"][1]["mechanism"] == kinds[method] and len(frame)
    assert facts["claimed" if method == "paper" else "mechanisms"] and (method == "paper") == (
        facts["epsilon"] == "inf"
    )
    assert facts.get("claimed", facts)["epsilon"] <= 8
    card = (shared(trained) / "release" / "README.md").read_text()
    assert (method == "paper") == ("| epsilon |" not in card) == ("No guarantee" in card)
    assert (method == "paper") == facts["statement"].startswith("NOT A VERIFIED GUARANTEE") == ("NOT A" in card)
    assert (method == "paper") == ("does not hold" in facts["not_protected"][0])
    report(trained)
    page = (shared(trained) / "release" / "report.html").read_text()
    assert "each on a part of them" in page and "sees no private record" not in page
    assert (method == "paper") == ("None that is verified" in page) == ("best possible attacker" not in page)
    if method == "paper":
        refused("does not hold, so no total", certificate.total, [trained])
        assert {path.name for path in trained.iterdir()} == {"private", "state"}
        assert {path.name for path in (trained / "state").iterdir()} == {"ensemble.json", "ledger.lock"}


def report(root: Path) -> None:
    from dpsda.report.__main__ import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["report", str(root)])
        main()


@pytest.mark.parametrize(
    "mechanism", [MaxDivergence(4, 1.0, 0.7), Renyi(4, 1.0, 3, 0.5, 0.4), ClippedLogits(4, 1.0, 0.8)]
)
def test_a_model_that_went_to_infinity_answers_as_the_public_one(trained, mechanism):
    """Its law is no law: no bound would hold for what came of it."""
    from safetensors.torch import load_file, save_file

    for shard in range(4):
        path = trained / "private" / "ensemble" / f"shard-{shard:05d}" / "adapter_model.safetensors"
        save_file({name: torch.full_like(t, math.nan) for name, t in load_file(path).items()}, path)
    writer = writer_of(trained, mechanism)
    with pytest.MonkeyPatch.context() as patch:
        laws: list[np.ndarray] = []
        patch.setattr("dpsda.pmixed.answers.draw", lambda law: laws.append(law) or 5)
        patch.setattr(Mixture, "component", lambda self: 1)
        writer.answer(3)
    for law, text in zip(laws, writer.texts, strict=False):
        assert np.allclose(law, law_of(writer, text.opening, NONE, 0).numpy(), atol=1e-6)


def test_prompts_are_continued(trained, tmp_path):
    pd.DataFrame({"prompt": ["A thing", "w1 w2", "w3"]}).to_csv(tmp_path / "prompts.csv", index=False)
    frame = generate(trained, "--prompts", tmp_path / "prompts.csv")
    assert len(frame) == 3 and [t.split()[0] for t in frame.text] == ["A", "w1", "w3"]
    assert Ledger(trained, read_only=True).reservations()[0].kind == "answers"


def test_a_document_changes_one_shard_only(tmp_path, dataset, llama):
    """Bitwise, with the key of the first run; a user likewise moves one shard."""
    train(tmp_path / "one", dataset, llama)
    for unit, gone in (("record", 1), ("user", 4)):
        root = tmp_path / unit
        whole = tmp_path / f"{unit}-whole"
        key = tmp_path / "one" / "private" / "fingerprint.key"
        rows = pd.read_csv(dataset / "train.csv", keep_default_na=False).to_dict("records")
        fewer = [row for row in rows if row["author"] != "author 7"] if unit == "user" else rows[:40] + rows[41:]
        assert len(rows) - len(fewer) == gone
        shutil.copytree(dataset, tmp_path / f"data-{unit}")
        write_rows(tmp_path / f"data-{unit}" / "train.csv", fewer)
        for folder, source in ((whole, dataset), (root, tmp_path / f"data-{unit}")):
            (folder / "private").mkdir(parents=True)
            shutil.copy(key, folder / "private")
            train(folder, source, llama, "--privacy_unit", unit)
        before, after = adapters(whole), adapters(root)
        assert sum(before[name] != after[name] for name in before) == 1 and len(before) == 4


def test_shards_follow_the_unit_and_the_key(dataset):
    corpus = load(DatasetSpec.read(dataset), "train")
    by_record = assign(corpus, "record", 8, b"a" * 32)
    assert len(np.unique(by_record)) == 8 and not np.array_equal(by_record, assign(corpus, "record", 8, b"b" * 32))
    by_user = assign(corpus, "user", 8, b"a" * 32)
    assert all(len(np.unique(by_user[corpus.users == user])) == 1 for user in np.unique(corpus.users))
    refused("--shards 31 is more than there are users", assign, corpus, "user", 31, b"a")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_bank_gives_every_row_its_own_adapter(kind, tmp_path, dataset, request):
    """Against peft, one adapter at a time; a row without an adapter is the public model."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = request.getfixturevalue(kind)
    train(tmp_path / "run", dataset, model)
    folders = steps._adapters(steps._trained(tmp_path / "run")[0], 4)
    ids = torch.arange(2, 14)[None].repeat(5, 1)
    public = AutoModelForCausalLM.from_pretrained(model).eval()
    bank_model = AutoModelForCausalLM.from_pretrained(model).eval()
    bank = Bank(bank_model, folders)
    with torch.inference_mode(), bank.use(torch.tensor([2, NONE, 0, 3, 2])):
        found = bank_model(input_ids=ids).logits
    with torch.inference_mode():
        assert torch.allclose(found[1], public(input_ids=ids[:1]).logits[0], atol=1e-5)
        assert torch.equal(bank_model(input_ids=ids).logits[0], bank_model(input_ids=ids).logits[1])  # none outside
        for row, shard in ((0, 2), (2, 0), (3, 3), (4, 2)):
            one = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folders[shard]).eval()
            logits = one(input_ids=ids[:1]).logits[0]
            assert torch.allclose(found[row], logits, atol=1e-5) and not torch.allclose(found[row], found[1], atol=1e-3)


def writer_of(trained, mechanism, **options) -> Writer:
    folder, config = steps._trained(trained)
    ensemble = steps._load(folder, config, HardwareOptions("cpu", "float32"))
    openings = [[2, 3, 4], [5], [2, 3, 4, 6, 7]]
    texts = [Text(i, openings[i % 3]) for i in range(5)]
    return Writer(ensemble, mechanism, AnswerOptions(**{"length": 6, "together": 3, **options}), texts)


@pytest.mark.parametrize("mechanism", [MaxDivergence(4, 1.0, 0.7), ClippedLogits(4, 1.0, 0.8, 0.7)])
@pytest.mark.parametrize("top_k", [0, 4])
def test_answers_are_drawn_from_the_law_of_their_own_context(trained, monkeypatch, mechanism, top_k):
    """Padding, caches, texts that end and blocks that stop in the middle of a step change nothing: each law is that of
    the context alone."""
    writer = writer_of(trained, mechanism, top_k=top_k)
    draws = np.random.default_rng(0)
    seen: list[tuple[list[int], int, np.ndarray, int]] = []
    components = iter(draws.integers(-1, 4, 1000).tolist())
    monkeypatch.setattr(Mixture, "component", lambda self: next(components))
    real = Writer._draw

    def watch(self, step, cache):
        contexts = [list(text.context) for text in step]
        laws: list[np.ndarray] = []

        def fake(law):
            laws.append(law)
            return int(draws.choice(len(law), p=law / law.sum()))

        monkeypatch.setattr("dpsda.pmixed.answers.draw", fake)
        used: list[int] = []
        inner = Mixture.component

        def component(self):
            used.append(inner(self))
            return used[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Mixture, "component", component)
            tokens = real(self, step, cache)
        seen.extend(zip(contexts, used or [None] * len(step), laws, tokens, strict=True))
        return tokens

    monkeypatch.setattr(Writer, "_draw", watch)
    for queries in (4, 7, 1, 100):
        writer.take(writer.answer(queries))
    assert writer.unfinished == 0 and len(seen) >= 12
    for context, shard, law, token in seen:
        expected = law_of(writer, context, shard, top_k)
        if top_k:
            chosen = expected.topk(top_k).values.min() - 1e-9
            assert float(expected[token]) >= float(chosen) or isinstance(mechanism, ClippedLogits)
            assert np.allclose(np.sort(law)[-2:], np.sort(expected[expected > 1e-200].numpy())[-2:], atol=1e-4)
        else:
            assert np.allclose(law, expected.numpy(), atol=1e-5)


def law_of(writer: Writer, context: list[int], shard: int | None, top_k: int) -> torch.Tensor:
    """(V,) the law by hand, with the whole context read at once and no padding."""
    from dpsda.pmixed.projection import onto_max_divergence

    ensemble, mechanism = writer.ensemble, writer.mechanism
    ids = torch.tensor([context])

    def law(row: int) -> torch.Tensor:
        hidden = ensemble.hidden(ids, torch.tensor([row]), use_cache=False).last_hidden_state[:, -1]
        return ensemble.laws(hidden)

    public = law(NONE)
    if isinstance(mechanism, ClippedLogits) and shard == NONE:
        return public.exp()[0]
    left_out = torch.zeros_like(public, dtype=torch.bool)
    if top_k:
        slack = 2 * mechanism.clip / 4 if isinstance(mechanism, ClippedLogits) else 0.0
        left_out = public < public.topk(top_k).values[:, -1:] - slack

    def kept(logs: torch.Tensor) -> torch.Tensor:
        return torch.where(left_out, -700.0, logs).log_softmax(-1)

    if isinstance(mechanism, ClippedLogits):
        gaps = sum((kept(law(i)) - kept(public)).clamp(-mechanism.clip, mechanism.clip) for i in range(4))
        return ((kept(public) + gaps / 4) / mechanism.temperature).softmax(-1)[0]
    if shard == NONE:
        return kept(public).exp()[0]
    return onto_max_divergence(kept(law(shard)), kept(public), mechanism.bound)[0]


def test_evaluation_is_private_and_compares(trained, tmp_path, capsys, dataset, llama):
    from tests.finetune.made import options

    finetune.generate(tmp_path / "tuned", *options(dataset, llama, tuning={"conditional": True}))
    before = {p for p in trained.rglob("*") if "private" not in p.relative_to(trained).parts}
    words = ("--queries", 100, "--runs", 3, "--inclusion", 0.5, "--compare", tmp_path / "tuned", "--epsilons", 8, 4)
    step("evaluate", trained, *words)
    table = pd.read_csv(trained / "private" / "perplexity.csv")
    names = [f"{method} {epsilon}" for epsilon in (8, 4) for method in ("max", "renyi", "paper", "dclip")]
    assert list(table.model) == ["public", *names, "unprotected", "tuned"] and (table.perplexity > 1).all()
    settings = ["shards", "inclusion", "queries", "delta", "runs"]
    assert (table[settings] == [4, 0.5, 100, 1e-5, 3]).all(axis=None)
    assert (table.order.notna() == table.model.str.startswith("paper")).all()
    assert not number(f"{table.perplexity[0]:.4f}", capsys.readouterr().out)
    assert before == {p for p in trained.rglob("*") if "private" not in p.relative_to(trained).parts}
    step("evaluate", trained, *words, "--log_private", "--name", "again")
    assert f"{table.perplexity[0]:.4f}" in capsys.readouterr().out
    again = pd.read_csv(trained / "private" / "again.csv")
    exact = [name for name in table.model if not name.startswith("paper")]
    assert np.allclose(table.set_index("model").perplexity[exact], again.set_index("model").perplexity[exact])


def test_perplexity_is_exp_of_the_mean_loss_of_the_law(trained):
    """Against all models in turn and brute force, for the public model, the mixture and clipped logits."""
    from dpsda.pmixed.evaluation import Queries, losses, perplexities
    from dpsda.pmixed.projection import onto_max_divergence

    folder, config = steps._trained(trained)
    ensemble = steps._load(folder, config, HardwareOptions("cpu", "float32"))
    ids = np.array([2, 3, 4, 7, 8, 9, 10, 3, 2, 11, 12, 5, 6, 7, 20, 21, 22, 23, 30, 31])
    asked = [Queries(ids, np.array([-1, -1] + [0] * 9 + [1] * 8)), Queries(ids[::-1].copy(), np.full(19, -1))]
    bounded, clip = MaxDivergence(4, 0.5, 0.3), ClippedLogits(4, 1.0, 0.5)
    found = losses(ensemble, asked, {"public": None, "max": bounded, "clip": clip, "all": Mixture(4, 1.0)})
    rows = torch.tensor([NONE, 0, 1, 2, 3])
    hidden = ensemble.hidden(torch.tensor(ids)[None].repeat(5, 1), rows, use_cache=False).last_hidden_state
    logs = torch.stack([ensemble.laws(h) for h in hidden])[:, :-1]  # (5, T - 1, V)
    truth = torch.tensor(ids[1:])[:, None]
    own = [onto_max_divergence(logs[i], logs[0], 0.3) for i in range(1, 5)]
    gaps = sum((logs[i] - logs[0]).clamp(-0.5, 0.5) for i in range(1, 5)) / 4
    expected = {
        "public": logs[0].exp(),
        "max": (1 - bounded.private_share) * logs[0].exp() + bounded.weight * sum(own),
        "clip": (logs[0] + gaps).softmax(-1),
        "all": logs[1:].exp().mean(0),
    }
    for name, law in expected.items():
        loss = -law.gather(1, truth)[2:, 0].log().numpy()
        assert np.allclose(found[name], loss, atol=1e-5)
        assert np.allclose(perplexities(found[name], asked), [math.exp(loss[:9].mean()), math.exp(loss[9:].mean())])


# crashes and leaks


@pytest.mark.parametrize("method", ["max", "renyi", "paper"])
def test_a_block_that_was_charged_and_not_answered_is_answered_under_its_charge(trained, monkeypatch, method):
    words = ("--projection", method, "--order", 4)

    def stop(self, queries):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "answer", stop)
        with pytest.raises(KeyboardInterrupt):
            generate(trained, *words)
    head = Ledger(trained, read_only=True)
    assert [line.name for line in head.reservations()] == ["label_counts", "answers/0-25"]
    generate(trained, *words, "--block_queries", 25)
    names = [line.name for line in Ledger(trained, read_only=True).reservations()]
    assert names == ["label_counts", "answers/0-25", "answers/25-50", "answers/50-60"]
    assert "retry" in {line["type"] for line in Ledger(trained, read_only=True).lines}
    certificate.verify(trained)


SETUP = """
import torch, transformers, peft, safetensors.torch, scipy.stats, pandas, pyarrow.parquet
import dpsda.pmixed.ensemble, dpsda.pmixed.evaluation, dpsda.pmixed.answers
from tests.test_predict import generate, train
"""


def test_killed_at_ten_random_moments_no_answer_is_uncharged_or_replaced(tmp_path, dataset, llama):
    root = tmp_path / "run"
    run, data = f"Path({str(root)!r})", f"Path({str(dataset)!r})"
    killer = Killer(SETUP, f"train({run}, {data}, {llama!r}); generate({run})", root)
    unkilled = certificate.verify(root)["epsilon"]
    stored: dict[str, bytes] = {}
    shutil.rmtree(root)
    for _ in range(10):
        assert killer.kill() in (0, signal.SIGKILL)
        charged = 0
        if (root / "state" / "ledger.jsonl").exists():
            book = Ledger(root, read_only=True)
            for release in book.reservations():
                if release.kind == "answers":
                    start, stop = release.start, release.stop
                    charged += stop - start
                if book.result(release.name):
                    assert stored.setdefault(release.name, book.stored(release.name)) == book.stored(release.name)
        answers = [json.loads(p.read_text()) for p in (root / "state" / "answers").glob("*.json")]
        assert sum(len(tokens) for block in answers for _, tokens in block) <= charged
    killer.close()
    train(root, dataset, llama)
    generate(root)
    assert certificate.verify(root)["epsilon"] == pytest.approx(unkilled, abs=1e-3)
    assert len(adapters(root)) == 4 and not list(root.rglob(".*.tmp"))


def test_no_private_text_leaves_private(tmp_path, dataset, llama, capsys):
    draw = random.Random(1)
    markers = [f"{draw.getrandbits(128):032x}" for _ in range(120)]
    rows = [
        {"text": f"A thing {m} w1 w2" + 80 * " w3", "stars": "low", "kind": "film", "author": f"author {i % 30}"}
        for i, m in enumerate(markers)
    ]
    write_rows(dataset / "train.csv", rows)
    root = tmp_path / "run"
    train(root, dataset, llama)
    generate(root)
    step("evaluate", root, "--queries", 20, "--runs", 2, "--methods", "max", "--test_split", "test")
    captured = capsys.readouterr()
    told = [captured.out, captured.err]
    told += [
        p.read_bytes().decode(errors="replace") for p in root.rglob("*") if p.is_file() and "private" not in p.parts
    ]
    assert "sequence length" not in captured.err + captured.out  # of a tokenizer that a text is too long for
    assert len(told) > 6 and not any(marker in text for marker in markers for text in told)


# bad input


def test_bad_input_is_one_line(tmp_path, dataset, llama, gpt2, trained):
    refused("--shards 121 is more than there are records", train, tmp_path / "a", dataset, llama, "--shards", 121)
    for words, match in (
        (("--inclusion", 0), "--inclusion has to be above 0 and at most 1"),
        (("--inclusion", 1.5), "--inclusion has to be above 0 and at most 1"),
        (("--order", 1), "--order has to be at least 2"),
        (("--queries", 0), "--queries has to be at least 1"),
        (("--epsilon", "inf"), "--epsilon has to be finite here"),
        (("--privacy_unit", "user"), "the shards are of whole records"),
        (("--length", 62), "the model takes 64"),
        (("--epsilon", 0.01), "leaves nothing for answers"),
        (("--prompts", tmp_path / "none.csv"), "there is no such file"),
        (("--prompts", dataset / "train.csv"), "is private, and a prompt is released"),
        (("--prompts", trained / "private" / "fingerprint.key"), "is private, and a prompt is released"),
    ):
        refused(match, generate, trained, *words)
    refused("no ensemble is here", generate, tmp_path / "nowhere")
    paper = ("--projection", "paper", "--order", 2, "--epsilon", 0.5)
    refused("with and without noise do not share a folder", generate, trained, *paper)
    (trained / "state" / "ledger.jsonl").unlink()
    refused("--order 2 leaves nothing of epsilon 0.5; take a", generate, trained, *paper)
    shutil.rmtree(trained / "private" / "state")
    refused("another configuration", train, trained, dataset, gpt2)
    refused("more tokens than the test split has", step, "evaluate", trained, "--queries", 100000)
    for words, match in (
        (("--methods", "best"), "there are max, renyi"),
        (("--epsilons", "inf"), "--epsilons has to be above 0 and at most 100"),
        (("--epsilons", 0.01, "--methods", "paper"), "--order 3 leaves nothing of epsilon 0.01"),
        (("--seed", -1), "--seed has to be at least 0"),
        (("--name", "../x"), "without a folder"),
        (("--test_split", "train"), "the models were trained on it"),
        (("--compare", dataset), "is not the folder of a run"),
    ):
        refused(match, step, "evaluate", trained, *words)
    refused(
        "its adapter is not of this model",
        Ensemble,
        gpt2,
        steps._adapters(steps._trained(trained)[0], 4),
        HardwareOptions("cpu", "float32"),
    )
    folders = steps._adapters(steps._trained(trained)[0], 4)
    refused("another size", Bank, torch.nn.ModuleDict({"model": Nested(torch.nn.Linear(5, 5))}), folders)
    other = saved("llama", tmp_path / "resized")
    resized = torch.nn.Embedding(SIZE + 8, 16)
    from transformers import AutoModelForCausalLM

    grown = AutoModelForCausalLM.from_pretrained(other)
    grown.resize_token_embeddings(resized.num_embeddings)
    grown.save_pretrained(other)
    path = trained / "state" / "ensemble.json"
    whole = path.read_text()
    path.write_text(whole.replace(llama, other))
    refused("is not the model that the adapters were trained on", generate, trained)
    path.write_text(whole)
    victim = steps._adapters(steps._trained(trained)[0], 4)[2]
    shutil.rmtree(victim)
    refused("this model is missing; run `", generate, trained)
    rows = pd.read_csv(dataset / "train.csv", keep_default_na=False).to_dict("records")
    write_rows(dataset / "train.csv", rows[:-1])
    refused("was trained on other private data", train, trained, dataset, llama)


class Nested(torch.nn.Module):
    """The places of a Llama's attention, with linear modules of another size."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        attention = torch.nn.ModuleDict({f"{name}_proj": linear for name in "qkvo"})
        self.layers = torch.nn.ModuleList([torch.nn.ModuleDict({"self_attn": attention}) for _ in range(2)])


def test_the_command_line(trained):
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    start = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "predict.py", "generate", "--help"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert shown.returncode == 0 and "--aggregation" in shown.stdout and time.monotonic() - start < 20
    wrong = subprocess.run([sys.executable, "predict.py", "guess"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: no step 'guess'") and wrong.stderr.count("\n") == 1
