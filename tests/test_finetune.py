"""Whole runs of finetune.py on tiny random models."""

from __future__ import annotations

import contextlib
import html
import json
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from dpsda import start
from dpsda.arg_utils import parse
from dpsda.commands import COMMANDS
from dpsda.data import DatasetSpec
from dpsda.dry_run import HashEncoder
from dpsda.errors import InputError
from dpsda.evaluation.distances import measure
from dpsda.evaluation.options import MetricOptions, SubjectOptions
from dpsda.options import EmbeddingOptions, PrivacyOptions, RunOptions
from dpsda.privacy import certificate
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import histogram
from dpsda.routes import finetune
from dpsda.routes.finetune import Tuning
from dpsda.tuning.generator import made_up
from tests import forks
from tests.conftest import number, write_rows
from tests.evaluation.conftest import StandInEncoder
from tests.finetune.made import options
from tests.finetune.tiny import SIZE
from tests.kills import Killer

ROOT = Path(__file__).parents[1]


def run(root, dataset, model, **settings) -> pd.DataFrame | None:
    finetune.generate(root, *options(dataset, model, **settings))
    files = [root / p / "release" / "synthetic.csv" for p in ("", "private")]
    return next((pd.read_csv(p, keep_default_na=False) for p in files if p.exists()), None)


def ledger(root) -> Ledger:
    return Ledger(root, read_only=True)


def refused(root, dataset, model, match, **settings) -> None:
    with pytest.raises((InputError, PrivacyError), match=match) as error:
        run(root, dataset, model, **settings)
    assert "\n" not in str(error.value)


def test_a_run_leaves_what_it_promises(tmp_path, dataset, llama, capsys):
    texts = run(tmp_path, dataset, llama, privacy={"epsilon": 1.0})
    assert list(texts.columns) == ["id", "parent_id", "text", "stars", "kind"] and 20 < len(texts) <= 40
    assert texts.text.is_unique and set(texts.stars) <= {"low", "high"}
    facts = certificate.verify(tmp_path)
    assert 0.99 < facts["epsilon"] <= 1 and facts["accountant"] == "PLD" and "rounding" in facts["not_protected"][-1]
    names = [x.name for x in ledger(tmp_path).reservations()]
    assert names == ["steps/0-2", "steps/2-4", "steps/4-6", "label_counts"]
    assert [p.name for p in (tmp_path / "state" / "checkpoints").iterdir()] == ["4-6.safetensors"]
    assert not (tmp_path / "state" / "merged").exists() and not list(tmp_path.rglob(".*.tmp*"))
    printed = capsys.readouterr().out
    assert "30 / 120 = 0.25" in printed and facts["statement"] in printed
    head = ledger(tmp_path).head
    assert run(tmp_path, dataset, llama, privacy={"epsilon": 1.0}).equals(texts)
    assert "complete" in capsys.readouterr().out and ledger(tmp_path).head == head
    charges = ledger(tmp_path).charges()
    more = run(tmp_path, dataset, llama, privacy={"epsilon": 1.0}, sampling={"num_samples": 70})
    assert more[: len(texts)].equals(texts) and len(texts) + 10 < len(more) <= 70
    again = certificate.verify(tmp_path)
    assert {**again, "ledger": 0} == {**facts, "ledger": 0} and ledger(tmp_path).charges() == charges  # it cost nothing
    refused(tmp_path, dataset, llama, "70 are drawn", privacy={"epsilon": 1.0}, sampling={"num_samples": 60})


def test_more_steps_extend_a_run(tmp_path, dataset, llama):
    first = run(tmp_path, dataset, llama)
    spent = certificate.verify(tmp_path)["epsilon"]
    second = run(tmp_path, dataset, llama, training={"steps": 9})
    assert certificate.verify(tmp_path)["epsilon"] > spent and not second.text.equals(first.text)
    assert [x.name for x in ledger(tmp_path).reservations()][-2:] == ["steps/6-8", "steps/8-9"]


def test_the_adapter_is_peft_s_and_the_samples_are_its_own(tmp_path, dataset, llama):
    """Loaded by peft on the base model it gives the logits of the last checkpoint."""
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    run(tmp_path, dataset, llama, sampling={"skip_sampling": True})
    adapter = tmp_path / "state" / "adapter"
    assert sorted(p.name for p in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    text = (adapter / "adapter_config.json").read_text()
    assert str(Path(llama).parent) not in text and json.loads(text)["base_model_name_or_path"] == Path(llama).name
    base = AutoModelForCausalLM.from_pretrained(llama).eval()
    inputs = {"input_ids": made_up(SIZE, "cpu")["input_ids"]}
    with torch.no_grad():
        before = base(**inputs).logits
        tuned = PeftModel.from_pretrained(base, adapter).eval()
        after = tuned(**inputs).logits
    assert not torch.allclose(before, after, atol=1e-4)
    last = load_file(tmp_path / "state" / "checkpoints" / "4-6.safetensors")
    stored = load_file(adapter / "adapter_model.safetensors")
    for name, tensor in stored.items():
        assert torch.equal(tensor, last["weight/" + name.replace(".weight", ".default.weight")])
    assert sorted(p.name for p in (tmp_path / "release").iterdir()) == ["README.md", "certificate.json"]
    assert certificate.verify(tmp_path)["epsilon"] > 0 and len(ledger(tmp_path).reservations()) == 3


@pytest.mark.parametrize("full", [True, False])
def test_without_noise_everything_stays_private(tmp_path, dataset, llama, capsys, full):
    _, privacy, *_ = parse(
        ["--dataset", "x", "--result_folder", "y", "--dp", "none"], "", "", *COMMANDS["finetune"].groups
    )
    assert not privacy.protected
    root = tmp_path / "run"
    run(root, dataset, llama, privacy={"epsilon": privacy.epsilon}, tuning={"full": full})
    assert [p.name for p in root.iterdir()] == ["private"]
    assert (root / "private" / "state" / ("model" if full else "adapter")).is_dir()
    assert "nothing is protected" in capsys.readouterr().out and certificate.verify(root)["epsilon"] == "inf"
    refused(root, dataset, llama, "with and without noise", privacy={"noise": 5.0}, tuning={"full": full})


def test_labels_that_are_public_or_not_asked_for_are_no_event(tmp_path, dataset, llama):
    public = run(tmp_path / "a", dataset, llama, privacy={"noise": 5.0, "label_counts": "public"})
    plain = run(tmp_path / "b", dataset, llama, tuning={"conditional": False})
    assert "stars" in public and list(plain.columns) == ["id", "parent_id", "text"]
    for name in "ab":
        assert [x.name for x in ledger(tmp_path / name).reservations()] == ["steps/0-2", "steps/2-4", "steps/4-6"]


def test_all_weights_and_users(tmp_path, dataset, llama):
    training = {"batch_size": 10, "examples_per_user": 2, "optimizer": "sgd"}
    run(
        tmp_path,
        dataset,
        llama,
        privacy={"noise": 5.0, "privacy_unit": "user"},
        tuning={"full": True},
        training=training,
    )
    facts = certificate.verify(tmp_path)
    assert facts["unit"] == "user" and facts["units"] == 30 and facts["accountant"] == "RDP"
    assert facts["mechanisms"][0]["event"]["sampling_rate"] == 10 / 30 and not number("120", json.dumps(facts))
    assert "path" not in (tmp_path / "state" / "model" / "config.json").read_text()


def test_one_seed_and_two_noises(tmp_path, dataset, llama):
    for name in ("one", "two"):
        run(tmp_path / name, dataset, llama, seed=5)
    for file in ("state/adapter/adapter_model.safetensors", "state/checkpoints/4-6.safetensors", "label_counts.csv"):
        assert (tmp_path / "one" / file).read_bytes() != (tmp_path / "two" / file).read_bytes()


def test_a_classifier_is_tested_on_a_public_split(tmp_path, dataset, bert, capsys):
    tuning = {"task": "classifier", "target": "kind"}
    run(tmp_path / "a", dataset, bert, tuning=tuning)
    row = pd.read_csv(tmp_path / "a" / "downstream_test.csv").iloc[0]
    assert row.target == "kind" and 0 <= row.accuracy <= 1 and row.texts == 120
    assert "accuracy" in capsys.readouterr().out
    assert [x.name for x in ledger(tmp_path / "a").reservations()] == ["steps/0-2", "steps/2-4", "steps/4-6"]
    (dataset / "spec.yaml").write_text((dataset / "spec.yaml").read_text().replace("  public: [test]\n", ""))
    run(tmp_path / "b", dataset, bert, tuning=tuning)
    assert (tmp_path / "b" / "private" / "downstream_test.csv").exists()
    assert not (tmp_path / "b" / "downstream_test.csv").exists() and "accuracy" not in capsys.readouterr().out


def test_a_classifier_learns_without_noise(tmp_path, dataset, bert):
    """The word tells the label: 'film' texts of one kind, 'food' texts of the other."""
    rows = [
        {"text": f"A {w} thing", "stars": s, "kind": "film", "author": f"a{i}"}
        for i in range(60)
        for w, s in (("w1", "low"), ("w2", "high"))
    ]
    write_rows(dataset / "train.csv", rows)
    training = {"batch_size": 60, "steps": 200, "checkpoint_steps": 200, "warmup_steps": 10, "learning_rate": 3e-3}
    tuning = {"task": "classifier", "full": True}
    run(tmp_path, dataset, bert, privacy={"epsilon": float("inf")}, tuning=tuning, training=training)
    assert pd.read_csv(tmp_path / "private" / "downstream_test.csv").accuracy[0] > 0.95


def test_dropout_has_no_public_seed(tmp_path, dataset, llama):
    """Masks that everybody can compute would move with who is in the batch: their generator is seeded in secret."""
    seeds = set()
    for name in ("a", "b"):
        run(tmp_path / name, dataset, llama, seed=0, sampling={"skip_sampling": True})
        seeds.add(torch.initial_seed())
    assert len(seeds) == 2 and 0 not in seeds
    run(tmp_path / "c", dataset, llama, seed=5, privacy={"epsilon": float("inf")}, sampling={"skip_sampling": True})
    assert torch.initial_seed() == 5  # nothing to hide


def test_what_comes_after_does_not_break_what_is_certified(tmp_path, dataset, llama, capsys):
    run(tmp_path, dataset, llama)
    run(tmp_path, dataset, llama, sampling={"skip_sampling": True})
    assert certificate.verify(tmp_path) and not (tmp_path / "release" / "synthetic.csv").exists()
    run(tmp_path, dataset, llama)
    assert certificate.verify(tmp_path) and (tmp_path / "release" / "synthetic.csv").exists()
    with contextlib.closing(Ledger(tmp_path)) as book:  # as resample.py does
        mechanism = histogram("record", 10.0)
        book.release("resample", "clusters", "resample/counts.csv", mechanism, mechanism.event, lambda: b"x")
    before = (tmp_path / "release" / "synthetic.csv").stat().st_mtime_ns
    run(tmp_path, dataset, llama)
    assert "a later stage went on with its texts" in capsys.readouterr().out
    assert (tmp_path / "release" / "synthetic.csv").stat().st_mtime_ns == before
    head = ledger(tmp_path).head
    refused(tmp_path, dataset, llama, "more steps would replace", training={"steps": 8}, privacy={"epsilon": 9.0})
    run(tmp_path, dataset, llama, privacy={"epsilon": 9.0})
    assert ledger(tmp_path).head == head  # neither a refused command nor one with nothing to do


def test_an_extension_that_fails_at_its_start_costs_nothing(tmp_path, dataset, llama, monkeypatch):
    run(tmp_path, dataset, llama)

    def missing(self, kind, **config):
        raise InputError("cannot load the model")

    head = ledger(tmp_path).head
    with monkeypatch.context() as patched:
        patched.setattr(Tuning, "_load_model", missing)
        refused(tmp_path, dataset, llama, "cannot load", training={"steps": 8}, privacy={"epsilon": 9.0})
    assert ledger(tmp_path).head == head and certificate.verify(tmp_path)
    assert (tmp_path / "state" / "adapter").is_dir() and any((tmp_path / "state" / "samples").glob("*.parquet"))


def test_a_model_that_nothing_protects_makes_no_certified_text(tmp_path, dataset, llama):
    run(tmp_path / "a", dataset, llama, privacy={"epsilon": float("inf")}, tuning={"full": True})
    refused(tmp_path / "b", dataset, tmp_path / "a" / "private" / "state" / "model", "no certificate could cover")


def test_a_model_of_another_run_is_not_free(tmp_path, dataset, llama):
    """What it spent on these records may not be missing in a certificate; elsewhere it is its owner's word."""
    run(tmp_path / "a", dataset, llama, tuning={"full": True})
    model = tmp_path / "a" / "state" / "model"
    refused(tmp_path / "b", dataset, str(model), "belongs to another run")
    run_options = (PrivacyOptions(epsilon=1.0), RunOptions(str(tmp_path / "b")))
    with pytest.raises(InputError, match=r"--feature_extractor .* belongs to another run"):
        start.configuration(DatasetSpec.read(dataset), *run_options, EmbeddingOptions(feature_extractor=str(model)))
    run(tmp_path / "b", dataset, str(shutil.copytree(model, tmp_path / "copy")))


def test_pages_and_figures_of_what_was_trained(tmp_path, dataset, llama, bert, monkeypatch, capsys):
    """A generator's run and a classifier's are evaluated, told of and compared like any other run."""
    from dpsda.report import owner
    from dpsda.report.__main__ import report
    from dpsda.report.compare import compare

    monkeypatch.setattr("dpsda.embedding.Encoder", StandInEncoder)
    monkeypatch.setattr(owner, "_load", lambda name: HashEncoder())
    roots = [tmp_path / "generator", tmp_path / "classifier"]
    run(roots[0], dataset, llama)
    run(roots[1], dataset, bert, tuning={"task": "classifier", "target": "kind"})
    flags = ["--result_folder", str(roots[0]), "--reference_split", "test", "--run", "2"]
    measure(*parse(flags, "", "", SubjectOptions, MetricOptions))
    assert list(pd.read_csv(roots[0] / "metrics_test.csv")["set"]) == ["floor", "release"]
    capsys.readouterr()
    report(roots)
    print(*compare(roots))
    text, _, model, owned, comparison = (
        html.unescape(re.sub("<[^>]*>", " ", Path(line).read_text())) for line in capsys.readouterr().out.splitlines()
    )
    assert "The model was trained on private records" in text and "GradientSum" in text and "votes gathered" not in text
    assert "A model with a privacy guarantee" in model and "all private texts, under DP" in model
    assert "The texts" not in model and "Where the texts lie" not in owned
    assert "DP fine-tuning of a classifier" in comparison and "Accuracy of kind, Fine-tuned classifier" in comparison
    assert "Distance from real to synthetic" in comparison and "All are against the split test." in comparison


# crashes

SETUP = """
import opacus, peft, torch, transformers, apis.hf_api, pandas, pyarrow.parquet, scipy.stats, dp_accounting
from dpsda.routes import finetune
import dpsda.finetune.training, dpsda.finetune.sampling, dpsda.tuning.adapter, dpsda.models
from tests.finetune.made import options
"""


def test_killed_at_ten_random_moments_a_run_still_spends_what_it_would_have(tmp_path, dataset, llama):
    """SIGKILL in training and sampling, each on what the one before left: no event twice, no stored result replaced."""
    root = tmp_path / "run"
    killer = Killer(
        SETUP,
        f"finetune.generate(Path({str(root)!r}), *options(Path({str(dataset)!r}), {llama!r}, training={{'steps': 8}}))",
        root,
    )
    unkilled, lines = certificate.verify(root)["epsilon"], ledger(root).reservations()
    shutil.rmtree(root)
    stored: dict[str, bytes] = {}
    for _ in range(10):
        code = killer.kill()
        assert code in (0, signal.SIGKILL)
        book = ledger(root)
        for name in {x["name"] for x in book.lines if x["type"] == "commit"} - book.superseded():
            assert stored.setdefault(name, book.stored(name)) == book.stored(name)
        if code == 0 and (root / "release").exists():  # it got through: take back what costs nothing
            shutil.rmtree(root / "release")
            shutil.rmtree(root / "state" / "samples")
    killer.close()
    run(root, dataset, llama, training={"steps": 8})
    book = ledger(root)
    assert certificate.verify(root)["epsilon"] == unkilled
    assert [x.event for x in book.reservations()] == [x.event for x in lines]
    commits = [x["name"] for x in book.lines if x["type"] == "commit"]
    assert sorted(commits) == sorted(x.name for x in book.reservations()) and len(set(commits)) == 5
    assert not list(root.rglob(".*.tmp*"))


@pytest.mark.parametrize("kind", ["reserve", "commit"])
def test_killed_around_a_checkpoint(tmp_path, dataset, llama, monkeypatch, kind):
    """Right after the second interval is reserved, it is trained under that reservation; right before it is committed,
    the stored checkpoint is taken as it is, and training goes on from it."""
    append, checkpoint = Ledger._append, tmp_path / "state" / "checkpoints" / "2-4.safetensors"

    def stop(self, what, fields):
        if fields.get("name") == "steps/2-4" and what == kind:
            if what == "reserve":
                append(self, what, fields)
            raise KeyboardInterrupt
        append(self, what, fields)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_append", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, dataset, llama)
    assert checkpoint.exists() == (kind == "commit")
    before = checkpoint.read_bytes() if checkpoint.exists() else b""
    loaded = []
    with monkeypatch.context() as patch:
        from dpsda.finetune.training import Trainer

        load = Trainer.load
        patch.setattr(Trainer, "load", lambda self, data: (loaded.append(data), load(self, data))[1])
        run(tmp_path, dataset, llama)
    assert len(loaded) == 1 + (kind == "commit") and (loaded[-1] == before or kind == "reserve")
    book = ledger(tmp_path)
    assert [x.name for x in book.reservations()] == ["steps/0-2", "steps/2-4", "steps/4-6", "label_counts"]
    assert sum(x["type"] == "retry" for x in book.lines) == (kind == "reserve")
    certificate.verify(tmp_path)


# leaks


def test_no_private_text_leaves_the_private_folder(tmp_path, dataset, llama, bert):
    draw = random.Random(1)
    markers = [f"{draw.getrandbits(128):032x}" for _ in range(240)]
    pattern = re.compile("|".join(markers).encode())
    rows = [
        {
            "text": f"A film {markers[i]} to see. " * (1 + i % 40),
            "stars": ("low", "high")[i % 2],
            "kind": "film",
            "author": markers[120 + i],
        }
        for i in range(120)
    ]
    rows.append({"text": f"Dropped {markers[0]}", "stars": markers[1], "kind": "film", "author": "x"})
    write_rows(dataset / "train.csv", rows)
    argv = ["--dataset", str(dataset), "--noise", "5", "--batch_size", "30", "--steps", "3", "--checkpoint_steps", "2"]
    argv += ["--num_samples", "20", "--length", "6", "--device", "cpu", "--max_length", "40"]
    for name, more in (("a", ["--model_type", llama]), ("b", ["--model_type", bert, "--task", "classifier"])):
        done = command(*argv, *more, "--result_folder", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        assert not pattern.search((done.stdout + done.stderr).encode())
    broken = BROKEN.format(argv=[*argv, "--model_type", llama, "--result_folder", str(tmp_path / "c")])
    done = forks.run(code=broken, cwd=ROOT)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    assert not pattern.search((done.stdout + done.stderr).encode())
    files = [p for p in tmp_path.rglob("*") if p.is_file() and dataset not in p.parents]
    assert any(p.name == "adapter_config.json" for p in files)
    for path in files:
        if "private" not in path.relative_to(tmp_path).parts:
            assert not pattern.search(path.read_bytes()), path


BROKEN = """
import sys
sys.argv[1:] = {argv!r}
from dpsda.finetune.gradients import GradientSums
GradientSums._add_clipped = lambda self, weights: 1 / 0 if len(weights) != 3 else None
from dpsda.finetune import gradients
gradients.check_per_sample = lambda *call: None
from dpsda.commands import COMMANDS
COMMANDS["finetune"].main("finetune.py", "")
"""


# bad input


def command(*argv):
    return forks.run([ROOT / "finetune.py", *argv])


def test_bad_input_is_one_line(tmp_path, dataset, llama, bert):
    tried = []

    def no(match, **settings):
        tried.append(tmp_path / f"run{len(tried)}")
        refused(tried[-1], dataset, settings.pop("model", llama), match, **settings)

    no("--batch_size 121 is more than there is", training={"batch_size": 121})
    no(
        "31 is more than there is, 30 users",
        training={"batch_size": 31},
        privacy={"noise": 5.0, "privacy_unit": "user"},
    )
    no("takes of: .*down_proj.*lm_head.*q_proj", tuning={"lora_targets": ["attention"]})
    no("label columns?|no label column age; there are: stars, kind", tuning={"task": "classifier", "target": "age"})
    no("leaves nothing for what is still to be released.*--label_noise", privacy={"epsilon": 0.05})
    no("leaves nothing", privacy={"epsilon": 1.0}, training={"histogram_noise": 0.5})
    no("--max_length", tuning={"max_length": 5})
    no("no model at", model=str(tmp_path / "nowhere"))
    no("bfloat16", tuning={"dtype": "bfloat16", "full": True})
    for name, value in (("clip_norm", 0.0), ("learning_rate", float("nan")), ("epochs", -1.0), ("steps", 0)):
        no(f"--{name}", training={name: value})
    assert not any((root / "release").exists() for root in tried)


def test_tied_weights_that_opacus_misses_are_refused(tmp_path, dataset, llama, monkeypatch):
    from dpsda.tuning.generator import NextToken

    whole = NextToken.__call__
    tied = lambda self, batch: whole(self, batch) + 5 * self.head.weight.square().mean() * len(batch["label"])  # noqa: E731
    monkeypatch.setattr(NextToken, "__call__", tied)
    refused(tmp_path, dataset, llama, "per-sample gradients", tuning={"full": True})
    assert not ledger(tmp_path).reservations()


def test_another_configuration_or_spent_budget_is_refused(tmp_path, dataset, llama):
    run(tmp_path, dataset, llama)
    refused(tmp_path, dataset, llama, "clip_norm was 0.5, now 0.7", training={"clip_norm": 0.7})
    refused(tmp_path, dataset, llama, "temperature was 1.0", sampling={"temperature": 0.5})
    refused(tmp_path, dataset, llama, "is spent, which is above the 0.3", privacy={"epsilon": 0.3})
    refused(
        tmp_path, dataset, llama, "unit", privacy={"noise": 5.0, "privacy_unit": "user"}, training={"batch_size": 20}
    )
    certificate.verify(tmp_path)


def test_a_dry_run_says_the_plan_and_keeps_nothing(tmp_path, dataset):
    argv = ["--dataset", str(dataset), "--noise", "5", "--result_folder", str(tmp_path / "run"), "--dry_run"]
    done = command(*argv, "--batch_size", "30", "--epochs", "20", "--histogram_noise", "10")
    assert done.returncode == 0, done.stderr
    assert (
        "training: 80 steps" in done.stdout and "2 checkpoints" in done.stdout and "noise multiplier 5" in done.stdout
    )
    assert not (tmp_path / "run").exists() and "torch" not in done.stdout
    done = command(*argv, "--batch_size", "500")
    assert done.returncode == 2 and done.stderr.startswith("error: --batch_size") and done.stderr.count("\n") == 1


def test_help_needs_nothing_heavy():
    code = "import sys; from dpsda.commands import *; parse(['--help'], '', '', *COMMANDS['finetune'].groups)"
    at_exit = "import sys, atexit; atexit.register(lambda: print({'torch', 'pandas', 'numpy'} & set(sys.modules)));"
    done = subprocess.run([sys.executable, "-c", at_exit + code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.rstrip().endswith("set()") and "--histogram_noise" in done.stdout
