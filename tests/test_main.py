"""Whole runs of main.py: on stand-ins for the models where the loop is meant, on the real ones once."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from apis.echo import EchoAPI
from dpsda.assets import resolve
from dpsda.augpe.options import EXAMPLES
from dpsda.data import DatasetSpec, load
from dpsda.errors import InputError
from dpsda.privacy import certificate
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.files import sha256
from dpsda.privacy.ledger import Ledger
from dpsda.routes import augpe
from dpsda.stages import AS_BEFORE, AUGPE
from tests import forks
from tests.conftest import number, options, use, write_rows
from tests.kills import Killer

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("stand_ins")


def run(root, dataset, **settings):
    augpe.generate(root, *options(dataset, **settings))
    return pd.read_csv(Path(root) / "release" / "synthetic.csv", keep_default_na=False)


def ledger(root):
    return Ledger(Path(root), read_only=True)


# the loop


def test_a_run_leaves_what_it_promises(tmp_path, dataset, capsys):
    texts = run(tmp_path / "run", dataset)
    assert list(texts.columns) == ["id", "parent_id", "text", "stars", "kind"] and len(texts) == 24
    assert set(zip(texts.stars, texts.kind, strict=True)) <= {
        (s, k) for s in ("low", "high") for k in ("food", "film", "book")
    }
    root = tmp_path / "run"
    for t in range(4):
        samples = pd.read_csv(root / str(t) / "samples.csv")
        assert len(samples) == 24
        if t:
            counts = pd.read_csv(root / str(t) / "counts.csv")
            assert list(counts.columns) == ["candidate_id", "stars", "kind", "noisy"]
            assert len(counts) == (24 if t == 1 else 72)
            assert set(samples.id) <= set(counts.candidate_id)
            assert counts.noisy.between(-1000, 1000).all() and (counts.noisy == counts.noisy.round()).all()
    assert not (root / "4").exists() and not (root / "state" / "candidates-4.csv").exists()
    facts = certificate.verify(root)
    assert 3.99 < facts["epsilon"] <= 4 and facts["units"] == 120 and facts["unit"] == "record"
    assert sum(row["releases"] for row in facts["mechanisms"]) == 4  # three votes and the label counts
    printed = capsys.readouterr().out
    assert (
        "iteration  epsilon  nn_real  fid" in printed
        and re.search(r"\n +0 +[12]\.", printed)
        and "4.0-differentially private" not in printed
    )
    assert facts["statement"] in printed and str(root / "release") in printed
    assert oct((root / "private").stat().st_mode & 0o777) == "0o700"
    parquet = pd.read_parquet(root / "release" / "synthetic.parquet")
    assert parquet["text"].tolist() == texts["text"].tolist()


def test_a_release_is_a_data_set_that_others_load(tmp_path, dataset):
    import datasets

    texts = run(tmp_path / "run", dataset)
    loaded = datasets.load_dataset(str(tmp_path / "run" / "release"), cache_dir=str(tmp_path / "cache"))
    assert "- differential-privacy" in (tmp_path / "run" / "release" / "README.md").read_text()
    assert list(loaded) == ["train"] and loaded["train"].column_names == list(texts.columns)
    assert loaded["train"]["text"][:] == texts["text"].tolist()


def test_a_complete_run_says_so_and_draws_nothing(tmp_path, dataset, capsys):
    first = run(tmp_path / "run", dataset)
    head = ledger(tmp_path / "run").head
    second = run(tmp_path / "run", dataset)
    assert "complete" in capsys.readouterr().out
    assert ledger(tmp_path / "run").head == head and second.equals(first)


def test_more_epochs_and_epsilon_extend_a_run(tmp_path, dataset):
    run(tmp_path / "run", dataset)
    with pytest.raises(PrivacyError, match="larger --epsilon"):
        run(tmp_path / "run", dataset, evolution={"epochs": 5})
    run(tmp_path / "run", dataset, privacy={"epsilon": 6.0}, evolution={"epochs": 5})
    facts = certificate.verify(tmp_path / "run")
    assert 4 < facts["epsilon"] <= 6 and len(ledger(tmp_path / "run").reservations()) == 6


@pytest.mark.parametrize(
    "evolution",
    [
        {"select_syn_mode": "prob", "count_threshold": 2.0},
        {"lookahead_degree": 2},
        {"lookahead_degree": 2, "lookahead_self": True, "nn_mode": "cos_sim"},
        {"num_nearest_neighbor": 3, "nn_mode": "IP"},
        {"donnot_keep_last_iter": True},
        {"init_L": 3, "num_samples_schedule": [90, 36, 18]},
        {"variation_type": "blank_fill", "variation_degree_schedule": [0.6, 0.2]},
        {"epochs": 1, "L": 1},
        {"save_syn_mode": "all"},
        {"save_syn_mode": "one_var", "donnot_keep_last_iter": True},
        {"save_syn_mode": "one_var"},
        {"num_seed_samples": 1},
    ],
)
def test_options_of_the_algorithm(tmp_path, dataset, evolution):
    texts = run(tmp_path / "run", dataset, evolution=evolution)
    kept = pd.read_csv(sorted((tmp_path / "run").glob("[0-9]/samples.csv"))[-1], dtype=str)
    assert 1 <= len(kept) <= 30
    if (mode := evolution.get("save_syn_mode", "selected")) == "all":
        assert len(texts) == 3 * len(kept) and set(kept.id) < set(texts.id)
        assert set(texts.parent_id[~texts.id.isin(kept.id)]) == set(kept.id)
    elif mode == "one_var":
        assert list(texts.parent_id) == list(kept.id) and list(texts.kind) == list(kept.kind)
    else:
        assert list(texts.id) == list(kept.id)
    assert certificate.verify(tmp_path / "run")["epsilon"] <= 4
    if "num_samples_schedule" in evolution:
        sizes = [len(pd.read_csv(tmp_path / "run" / str(t) / "samples.csv")) for t in range(4)]
        assert sizes == [30, 12, 6, 6]
        assert len(pd.read_csv(tmp_path / "run" / "1" / "counts.csv")) == 90
    if "donnot_keep_last_iter" in evolution:
        late = pd.read_csv(tmp_path / "run" / "3" / "samples.csv", dtype=str)
        assert late.id.str.startswith("3-").all()


def test_a_run_of_a_version_without_corrections_goes_on_as_it_was(tmp_path, dataset, capsys):
    """Its configuration does not name what there was no choice of."""
    root, config = tmp_path / "run", tmp_path / "run" / "state" / "augpe.json"
    run(root, dataset, evolution={"hub_correction": "none"})
    settings = json.loads(config.read_text())
    for name, value in AS_BEFORE[AUGPE].items():
        assert settings.pop(name) == value
    config.write_text(json.dumps(settings))
    run(root, dataset)
    assert "larger --epochs" in capsys.readouterr().out
    with pytest.raises(InputError, match="hub_correction was 'none', now 'csls'"):
        run(root, dataset, evolution={"hub_correction": "csls"})
    run(root, dataset, evolution={"epochs": 4}, privacy={"epsilon": 5.0})
    assert (root / "4" / "counts.csv").exists() and certificate.verify(root)


@pytest.mark.parametrize("correction", ["global", "csls"])
def test_a_correction_changes_the_votes_and_no_charge(tmp_path, dataset, correction):
    """Without noise, so that the votes can be compared."""
    settings = {"privacy": {"epsilon": float("inf")}, "evolution": {"epochs": 1, "hub_correction": correction}}
    augpe.generate(tmp_path / "corrected", *options(dataset, **settings))
    settings["evolution"]["hub_correction"] = "none"
    augpe.generate(tmp_path / "plain", *options(dataset, **settings))
    one, other = (pd.read_csv(tmp_path / name / "private/1/counts.csv") for name in ("corrected", "plain"))
    assert (one.candidate_id == other.candidate_id).all() and (one.noisy != other.noisy).any()
    assert one.noisy.sum() == other.noisy.sum() == 120


def test_texts_by_example_show_kept_texts_of_their_label(tmp_path, dataset):
    root = tmp_path / "run"
    run(root, dataset, evolution={"epochs": 2, "in_context_share": 0.5, "L": 4})
    kept = pd.read_csv(root / "1" / "samples.csv")
    label = dict(zip(kept.text, zip(kept.stars, kept.kind, strict=True), strict=True))
    prompts = [json.loads(line) for line in (root / "2" / "prompts.jsonl").read_text().splitlines()]
    shown = [prompt["shots"] for prompt in prompts if prompt["shots"]]
    assert 0.25 < len(shown) / len(prompts) < 0.75
    for shots in shown:
        assert 1 <= len(shots) <= EXAMPLES and len({answer for _, answer in shots}) == len(shots)
        assert len({label[answer] for _, answer in shots}) == 1
    groups = {json.dumps(shots) for shots in shown}  # what is shown together, an engine reads once
    answers = [answer for group in groups for _, answer in json.loads(group)]
    assert len(answers) == len(set(answers)) and len(groups) < len(shown)
    assert not any(prompt["shots"] for prompt in map(json.loads, (root / "0/prompts.jsonl").read_text().splitlines()))


def test_the_control_takes_no_vote(tmp_path, dataset):
    run(tmp_path / "run", dataset, evolution={"select_syn_mode": "random"})
    assert [x.name for x in ledger(tmp_path / "run").reservations()] == ["label_counts"]
    assert not list((tmp_path / "run").glob("*/counts.csv"))


def test_public_label_counts_are_no_event(tmp_path, dataset, capsys):
    texts = run(tmp_path / "run", dataset, privacy={"epsilon": 4.0, "label_counts": "public"})
    assert len(ledger(tmp_path / "run").reservations()) == 3
    assert "owner's word" in json.dumps(certificate.verify(tmp_path / "run"))
    assert (texts.kind == "book").sum() == 4  # 20 of 120 records have it, all of them low


def test_a_noise_multiplier_reports_its_epsilon(tmp_path, dataset):
    run(tmp_path / "run", dataset, privacy={"noise": 5.0})
    facts = certificate.verify(tmp_path / "run")
    assert facts["budget"] is None and facts["mechanisms"][0]["noise_multiplier"] == 5.0 and 0.9 < facts["epsilon"] < 1


def test_without_noise_everything_stays_private(tmp_path, dataset, capsys):
    augpe.generate(tmp_path / "run", *options(dataset, privacy={"epsilon": float("inf")}))
    printed = capsys.readouterr().out
    assert "nothing is protected" in printed
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["private"]
    assert "dry run" not in printed and "0.5" not in printed  # neither texts nor distances
    assert certificate.verify(tmp_path / "run")["epsilon"] == "inf"
    assert "- differential-privacy" not in (tmp_path / "run" / "private" / "release" / "README.md").read_text()
    with pytest.raises(PrivacyError, match="with and without noise"):
        run(tmp_path / "run", dataset)


def test_a_user_counts_once(tmp_path, dataset):
    run(tmp_path / "run", dataset, privacy={"epsilon": 4.0, "privacy_unit": "user"})
    facts = certificate.verify(tmp_path / "run")
    assert facts["unit"] == "user" and facts["units"] == 30 and facts["accountant"] == "RDP" and facts["epsilon"] <= 4
    assert not number("120", json.dumps(facts))  # how many records there are is private


def test_no_label_columns(tmp_path, dataset):
    (dataset / "spec.yaml").write_text("text: text\nsplits: {train: {file: train.csv}, test: {file: train.csv}}\n")
    (dataset / "prompts.yaml").write_text("init: Write.\nparaphrase: 'Rewrite: {text}'\n")
    texts = run(tmp_path / "run", dataset)
    assert list(texts.columns) == ["id", "parent_id", "text"]
    assert len(ledger(tmp_path / "run").reservations()) == 3


def test_a_dry_run_keeps_nothing(tmp_path, dataset):
    argv = ["--dataset", str(dataset), "--epsilon", "4", "--result_folder", str(tmp_path / "run"), "--dry_run"]
    done = command(*argv, "--epochs", "2", "--num_seed_samples", "20")
    assert done.returncode == 0, done.stderr
    assert "a real run would ask for 100 texts" in done.stdout and not (tmp_path / "run").exists()
    assert "Text" not in done.stdout and "differentially private" not in done.stdout


@pytest.mark.parametrize(("policy", "missing"), [("private", 0), ("public", 1)])
def test_a_dry_run_knows_label_counts_that_are_public(tmp_path, dataset, capsys, policy, missing):
    """No record here is a book with high stars. Where the counts are private, a dry run does not tell."""
    augpe.generate(tmp_path, *options(dataset, privacy={"noise": 1.0, "label_counts": policy}, dry_run=True))
    assert capsys.readouterr().out.count("warning: 1 of 6 labels are too rare") == missing


def test_a_dry_run_does_not_look_at_the_private_records(tmp_path, dataset, capsys):
    """The same lines for other records: only their number, which is public, counts."""
    printed = []
    for word in ("low", "high"):
        text = (dataset / "train.csv").read_text()
        (dataset / "train.csv").write_text(re.sub(",(low|high),", f",{word},", text))
        augpe.generate(tmp_path / word, *options(dataset, dry_run=True))
        shown = capsys.readouterr().out
        printed.append(re.sub(r"\d+ s\b|[\d,]+ tokens", "", shown))  # the stand-ins' label counts are noisy, too
    assert printed[0] == printed[1] and "120 records" in printed[0]


def test_mistakes_in_prompts_cost_nothing(tmp_path, dataset, capsys):
    good = (dataset / "prompts.yaml").read_text()
    for old, new, match in [
        ("{label.stars}", "{label.star}", "stands for nothing"),
        ("paraphrase:", "blank_fil:", "did you mean blank_fill"),
        ("book: [a plot]", "boot: [a plot]", "nothing is given for kind = 'book'"),
        ("Rewrite in", "Rewrite {in", "brace|stands for nothing"),
        ("max_words: 12", "max_words: 2", "min_words <= max_words"),
        ("tones: [dry, warm]", "reject: I cannot", "list of phrases"),
    ]:
        (dataset / "prompts.yaml").write_text(good.replace(old, new))
        refused(capsys, tmp_path / "run", dataset, match)
    assert not (tmp_path / "run").exists()


def test_a_refused_command_leaves_the_ledger_as_it_was(tmp_path, dataset, capsys):
    run(tmp_path / "run", dataset)
    refused(capsys, tmp_path / "run", dataset, "seed was 0, now 1", privacy={"epsilon": 8.0}, seed=1)
    certificate.verify(tmp_path / "run")


def test_a_run_without_noise_killed_at_its_start_goes_on(tmp_path, dataset, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "set_budget", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            augpe.generate(tmp_path / "run", *options(dataset, privacy={"epsilon": float("inf")}))
    augpe.generate(tmp_path / "run", *options(dataset, privacy={"epsilon": float("inf")}))
    assert certificate.verify(tmp_path / "run")["epsilon"] == "inf"


def test_no_text_is_asked_for_that_nobody_reads(tmp_path, dataset, capsys):
    """24 seeds, 2 more variations of each at the start, and of each kept text in every iteration but the last."""
    run(
        tmp_path / "run",
        dataset,
        evolution={"init_L": 3},
        dry_run=True,
        privacy={"epsilon": 4.0, "label_counts": "public"},
    )
    assert f"would ask for {24 * (3 + 2 * 2)} texts" in capsys.readouterr().out


def test_a_share_of_the_private_records(tmp_path, dataset):
    """Each unit is in or out by its own hash, whatever else is in the file."""
    spec = DatasetSpec.read(dataset)
    few, more = (set(load(spec, "train", share=share).texts) for share in (0.3, 0.7))
    assert few < more and 10 <= len(few) <= 60 <= len(more) <= 110
    augpe.generate(tmp_path / "run", *options(dataset, data={"private_share": 0.3}))
    assert ledger(tmp_path / "run").header["units"] == len(few)
    lines = (dataset / "train.csv").read_text().splitlines(keepends=True)
    (dataset / "train.csv").write_text("".join(line for line in lines if "number 7." not in line))
    for before, share in ((few, 0.3), (more, 0.7)):
        assert set(load(spec, "train", share=share).texts) == {text for text in before if "number 7." not in text}


class Deaf(EchoAPI):
    """Answers the initial prompts, and nothing after that: None or ""."""

    def __init__(self, answers, after=1):
        super().__init__()
        self.answers, self.after, self.calls = answers, after, 0

    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        self.calls += 1
        found = super().generate(prompts, seed)
        if self.calls > self.after:
            found = [self.answers[i % len(self.answers)] for i in range(len(prompts))]
        for i, answer in enumerate(found):
            on_answer(i, answer)
        return found


def test_a_round_without_a_new_text_costs_no_vote(tmp_path, dataset, monkeypatch, capsys):
    """It stops at once, says why, and the same command goes on when the model does."""
    settings = {"evolution": {"L": 2}}
    deaf = Deaf([None, ""])
    with monkeypatch.context() as patch:
        use(patch, lambda: deaf)
        refused(
            capsys,
            tmp_path / "run",
            dataset,
            r"made no new text of those kept at iteration 1 \(12 refused or filtered, 12 empty\)",
            **settings,
        )
        assert deaf.calls == 2 and [x.name for x in ledger(tmp_path / "run").charges()] == [
            "label_counts",
            "votes/1",
        ]
        shutil.rmtree(tmp_path / "run" / "state" / "answers")  # which would be taken again
    run(tmp_path / "run", dataset, **settings)


def test_a_model_that_says_nothing_is_asked_once_and_why_is_told(tmp_path, dataset, monkeypatch, capsys):
    deaf = Deaf([None, ""], after=0)
    use(monkeypatch, lambda: deaf)
    refused(capsys, tmp_path / "run", dataset, r"no initial prompt with a text \(12 refused or filtered, 12 empty\)")
    assert deaf.calls == 1


def test_the_candidates_of_a_vote_are_different_texts(tmp_path, dataset, monkeypatch, capsys):
    """Of a model that says every other thing twice."""

    class Stammers(EchoAPI):
        def generate(self, prompts, seed, on_answer=lambda number, answer: None):
            found = [f"Text {int(answer.split()[1]) // 2}." for answer in super().generate(prompts, seed)]
            for i, answer in enumerate(found):
                on_answer(i, answer)
            return found

    use(monkeypatch, Stammers)
    run(tmp_path / "run", dataset)
    assert re.search(r"no new text, and were asked for again: \d+ there already", capsys.readouterr().out)
    for t in (1, 2, 3):
        candidates = pd.read_csv(tmp_path / "run" / "state" / f"candidates-{t}.csv")
        assert len(candidates) == (24 if t == 1 else 72)
        assert not candidates.duplicated(["text", "stars", "kind"]).any()


def test_nothing_is_spent_on_a_model_that_does_not_answer(tmp_path, dataset, monkeypatch, capsys):
    class Gone(EchoAPI):
        def check(self, prompt):
            assert "review" in prompt.text
            raise InputError("no server is there")

    use(monkeypatch, Gone)
    refused(capsys, tmp_path / "run", dataset, "no server is there")
    assert not ledger(tmp_path / "run").charges()


def test_one_variation_of_each_where_l_is_one(tmp_path, dataset):
    texts = run(tmp_path / "run", dataset, evolution={"L": 1})
    assert texts.id.str.startswith("3-").all() and texts.parent_id.str.startswith("2-").all()


def test_answers_of_another_configuration_are_not_taken(tmp_path, dataset, capsys, monkeypatch):
    """Killed before its first step, a run that got answers is a run of its settings."""

    class Killed(EchoAPI):
        def generate(self, prompts, seed, on_answer):
            on_answer(0, "An answer.")
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        use(patch, Killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", dataset, privacy={"epsilon": 4.0, "label_counts": "public"})
    refused(capsys, tmp_path / "run", dataset, "seed was 0", privacy={"epsilon": 4.0, "label_counts": "public"}, seed=1)
    run(tmp_path / "run", dataset, privacy={"epsilon": 4.0, "label_counts": "public"})


def test_a_run_by_a_server_keeps_its_answers_and_no_key(tmp_path, dataset):
    """On a server that fails, and killed, a run asks for no answer again; no file and no line has a key."""
    key, wandb = "0ff1ce" * 7, "ca11ab1e" * 5
    log = tmp_path / "server.jsonl"
    settings = {"keys": [key], "delay": 0.05, "rates": {"429": 0.1, "500": 0.1, "filter": 0.05}, "log": str(log)}
    server = [sys.executable, str(ROOT / "tests" / "apis" / "fault_server.py"), json.dumps(settings)]
    argv = ["--dataset", str(dataset), "--epsilon", "4", "--epochs", "3", "--num_seed_samples", "24", "--L", "3"]
    argv += ["--api", "AzureGPT", "--model_type", "gpt-4o-mini", "--variation_type", "blank_fill", "--num_procs", "4"]
    argv += ["--max_cost", "1", "--log_online", "--result_folder", str(tmp_path / "run")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= {"OPENAI_API_KEY": key, "WANDB_API_KEY": wandb, "WANDB_MODE": "offline"}
    environment |= {"DPSDA_HOME": str(tmp_path / "home")}
    encoder = resolve("embedded:all-minilm-l6-v2")
    answers = tmp_path / "run" / "state" / "answers"
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        argv += [
            "--api_base",
            f"http://127.0.0.1:{process.stdout.readline().strip()}/v1",
            "--feature_extractor",
            encoder,
        ]
        first = forks.Forked([ROOT / "main.py", *argv], env=environment)
        while first.poll() is None and sum(len(p.read_bytes().splitlines()) for p in answers.glob("*")) < 40:
            time.sleep(0.02)
        first.kill()
        assert first.wait() == -signal.SIGKILL
        stored = {p.name: p.read_bytes() for p in answers.glob("*")}
        asked = len(log.read_text().splitlines())
        done = command(*argv, env=environment)
        process.kill()
    assert done.returncode == 0, done.stderr
    for name, lines in stored.items():
        assert (answers / name).read_bytes().startswith(lines[: lines.rfind(b"\n") + 1])
    requests = [json.loads(line) for line in log.read_text().splitlines()]
    rows = sum(len(p.read_bytes().splitlines()) for p in answers.glob("*"))
    answered = [request for request in requests if request["fault"] in (None, "filter")]
    assert sum(request in answered for request in requests[:asked]) >= 40
    assert rows <= len(answered) <= rows + 4  # what was in flight at the kill is asked again
    texts = pd.read_csv(tmp_path / "run" / "release" / "synthetic.csv", keep_default_na=False)
    assert len(texts) == 24 and texts.text.str.contains("REVIEW|FILL").all()
    assert "tokens of" in done.stdout and "differentially private" in done.stdout
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert (key.encode() not in path.read_bytes() and wandb.encode() not in path.read_bytes()) or path == log, path
    assert key not in done.stdout + done.stderr and wandb not in done.stdout + done.stderr


# seeds


def test_a_seed_reaches_the_prompts_and_no_noise(tmp_path, dataset):
    def public(root):
        return (root / "0" / "prompts.jsonl").read_bytes()

    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    for root, seed in ((one, 5), (two, 5), (three, 6)):
        run(root, dataset, seed=seed, privacy={"epsilon": 1.0, "label_counts": "public"})
    assert public(one) == public(two) != public(three)
    noisy = [[pd.read_csv(root / str(t) / "counts.csv").noisy.tolist() for t in (1, 2, 3)] for root in (one, two)]
    assert all(a != b for a, b in zip(*noisy, strict=True))
    for name in ("one", "two"):
        shutil.rmtree(tmp_path / name)
        run(tmp_path / name, dataset, seed=5, privacy={"epsilon": 1.0})
    assert (one / "label_counts.csv").read_bytes() != (two / "label_counts.csv").read_bytes()


# crashes


STAND_INS = """
from apis import engines
from apis.echo import EchoAPI
from dpsda import embedding
from dpsda.dry_run import HashEncoder
from dpsda.routes import augpe
from tests.conftest import options
engines.engine, embedding.Encoder = lambda *a, **more: EchoAPI(), lambda *a, **more: HashEncoder()
"""
SLOWLY = f"""
import dp_accounting, pandas, pyarrow.parquet, scipy.stats, sklearn.decomposition, torch
{STAND_INS}
generate = EchoAPI.generate
EchoAPI.generate = lambda *call: (time.sleep(0.05), generate(*call))[1]
"""


def test_killed_at_twenty_random_moments_a_run_still_finishes_within_its_budget(tmp_path, dataset):
    """SIGKILL at random moments of a run, each on what the one before left: no release stores twice, no stored result
    changes, and the spend is that of a run that nobody killed. Votes are corrected and tell the labels, and half of
    the new texts are by example, as in the quickstart."""
    root, evolution = tmp_path / "run", {"epochs": 6, "labels_from": "votes", "in_context_share": 0.5}
    killer = Killer(
        SLOWLY,
        f"augpe.generate(Path({str(root)!r}), *options(Path({str(dataset)!r}), evolution={evolution}))",
        root,
    )
    unkilled = certificate.verify(root)["epsilon"]
    shutil.rmtree(root)
    stored: dict[str, bytes] = {}
    killed = 0
    for _ in range(20):
        code = killer.kill()
        assert code in (0, signal.SIGKILL)
        killed += code != 0
        names = list(root.glob("**/counts.csv")) + list(root.glob("label_counts.csv"))
        for path in names:
            assert stored.setdefault(str(path), path.read_bytes()) == path.read_bytes()
        if code == 0:  # it got through: take back the release and the last steps' texts, not the spend
            shutil.rmtree(root / "release")
            for t in (4, 5, 6):
                (root / str(t) / "samples.csv").unlink(missing_ok=True)
    killer.close()
    assert killed
    augpe.generate(root, *options(dataset, evolution=evolution))
    book = ledger(root)
    assert certificate.verify(root)["epsilon"] == unkilled
    assert len(book.reservations()) == 7 == len({x["name"] for x in book.lines if x["type"] == "commit"})
    assert sum(x["type"] == "commit" for x in book.lines) == 7


# leaks


def marked(dataset):
    """Every private text carries a 32-hex marker, every author another one."""
    rng = random.Random(1)
    markers = [f"{rng.getrandbits(128):032x}" for _ in range(240)]
    rows = [
        {
            "text": f"A film {markers[i]} to see.",
            "stars": ("low", "high")[i % 2],
            "kind": "film",
            "author": markers[120 + i],
        }
        for i in range(120)
    ]
    rows += [{"text": f"Dropped {markers[0]}", "stars": markers[1], "kind": "film", "author": "x"}]
    write_rows(dataset / "train.csv", rows)
    return re.compile("|".join(markers).encode())


@pytest.mark.parametrize("unit", ["record", "user"])
def test_no_private_text_leaves_the_private_folder(tmp_path, dataset, unit):
    pattern = marked(dataset)
    (dataset / "spec.yaml").write_text((dataset / "spec.yaml").read_text().replace("  public: [test]\n", ""))
    root = tmp_path / "run"
    environment = {**os.environ, "DPSDA_HOME": str(tmp_path / "home"), "SECRET_API_KEY": "f" * 32}
    code = f"""
from pathlib import Path
{STAND_INS}
settings = dict(evolution={{"epochs": 2}}, privacy={{"epsilon": 4.0, "privacy_unit": {unit!r}}})
augpe.generate(Path({str(root)!r}), *options(Path({str(dataset)!r}), **settings))
"""
    done = forks.run(code=code, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not pattern.search((done.stdout + done.stderr).encode())
    files = [p for p in tmp_path.rglob("*") if p.is_file() and dataset not in p.parents]
    assert any(
        p.name == "distances_test.csv" and "private" in p.parts for p in files
    )  # the reference is not public here
    for path in files:
        if "private" not in path.relative_to(tmp_path).parts:
            assert not pattern.search(path.read_bytes()) and b"f" * 32 not in path.read_bytes(), path
    broken = code.replace("augpe.generate", "import dpsda.augpe.voting\ndpsda.augpe.voting.vote = None\naugpe.generate")
    done = forks.run(code=broken.replace(str(root), str(tmp_path / "two")), cwd=ROOT)
    # a traceback quotes no text either
    assert done.returncode and not pattern.search((done.stdout + done.stderr).encode())


# bad input


def command(*argv, **options):
    """main.py in a process of its own."""
    return forks.run([ROOT / "main.py", *argv], **options)


def refused(capsys, root, dataset, match, **settings):
    with pytest.raises((InputError, PrivacyError), match=match) as error:
        augpe.generate(root, *options(dataset, **settings))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_bad_values_are_refused(tmp_path, dataset, capsys):
    for privacy, match in [
        ({"epsilon": 0.0}, "above 0"),
        ({"epsilon": -1.0}, "above 0"),
        ({"epsilon": float("nan")}, "above 0"),
        ({"epsilon": 1.0, "noise": 1.0}, "not both"),
        ({"epsilon": 1e300}, "--epsilon has to be above 0 and at most 100"),
        ({"noise": 0.0}, "--noise has to be a noise multiplier from 0.1 to 1000"),
        ({"noise": 1e-300}, "from 0.1 to 1000"),
        ({"noise": 1e300}, "from 0.1 to 1000"),
        ({"epsilon": 1.0, "delta": 1.0}, "--delta"),
        ({"epsilon": 1.0, "delta": 2.0}, "--delta"),
        ({"delta": 1e-5}, "--epsilon or --noise"),
    ]:
        refused(capsys, tmp_path / "run", dataset, match, privacy=privacy)
    for evolution, match in [
        ({"epochs": 0}, "--epochs"),
        ({"L": 0}, "--L"),
        ({"num_seed_samples": 0}, "--num_seed_samples"),
        ({"num_nearest_neighbor": 0}, "--num_nearest"),
        ({"hub_correction": "centred", "nn_mode": "IP"}, "compares directions"),
        ({"variation_degree_schedule": [1.5]}, "--variation_degree_schedule has to be at least 0 and at most 1"),
    ]:
        refused(capsys, tmp_path / "run", dataset, match, evolution=evolution)
    assert not (tmp_path / "run").exists()


def test_bad_files_are_refused(tmp_path, dataset, capsys):
    train, good = dataset / "train.csv", (dataset / "train.csv").read_text()
    cases = [
        (lambda: train.unlink(), "train.csv"),
        (lambda: train.write_text(""), "train.csv"),
        (lambda: train.write_text("text,stars,kind,author\n"), "train.csv"),
        (lambda: train.write_text(good.replace("stars", "sterne", 1)), "stars"),
        (lambda: train.write_text(re.sub("(low|high)", "unknown-value", good)), "train.csv"),
    ]
    for spoil, match in cases:
        spoil()
        message = refused(capsys, tmp_path / "run", dataset, match)
        assert "unknown-value" not in message
    train.write_text(good)
    refused(capsys, tmp_path / "run", tmp_path / "nowhere", "nowhere")
    (dataset / "prompts.yaml").unlink()
    refused(capsys, tmp_path / "run", dataset, "prompts.yaml")
    (dataset / "spec.yaml").write_text("text: text\nsplit: {}\n")
    refused(capsys, tmp_path / "run", dataset, "spec.yaml")


def test_rows_that_cannot_be_used_are_dropped_and_only_private_knows(tmp_path, dataset, capsys):
    rows = [{"text": f"text {i}", "stars": "low", "kind": "film", "author": f"a{i}"} for i in range(50)] + [
        {"text": "", "stars": "low", "kind": "film", "author": "a"},
        {"text": "  ", "stars": "low", "kind": "film", "author": "a"},
        {"text": "fine", "stars": "medium", "kind": "film", "author": "a"},
        {"text": "fine", "stars": "low", "kind": "film", "author": ""},
    ]
    write_rows(dataset / "train.csv", rows)
    run(tmp_path / "run", dataset)
    dropped = pd.read_csv(tmp_path / "run" / "private" / "dropped.csv")
    assert dropped["row"].tolist() == [50, 51, 52, 53]
    assert "medium" not in capsys.readouterr().out
    assert certificate.verify(tmp_path / "run")["units"] == 50


def test_a_folder_of_other_data_or_settings_is_refused(tmp_path, dataset, capsys):
    run(tmp_path / "run", dataset)
    head = ledger(tmp_path / "run").head
    refused(capsys, tmp_path / "run", dataset, "L was 3, now 4", evolution={"L": 4})
    refused(capsys, tmp_path / "run", dataset, "delta differs", privacy={"epsilon": 4.0, "delta": 1e-7})
    refused(capsys, tmp_path / "run", dataset, "unit differs", privacy={"epsilon": 4.0, "privacy_unit": "user"})
    refused(capsys, tmp_path / "run", dataset, "is spent", privacy={"epsilon": 1.0})
    text = (dataset / "train.csv").read_text()
    (dataset / "train.csv").write_text(text.replace("thing number 7", "thing number 8", 1))
    refused(capsys, tmp_path / "run", dataset, "data differs")
    (dataset / "train.csv").write_text(text)
    with open(tmp_path / "run" / "state" / "ledger.jsonl", "r+") as file:
        file.write("x")
    refused(capsys, tmp_path / "run", dataset, "ledger.jsonl")
    assert head


def test_one_line_and_code_two(tmp_path, dataset):
    base = ["--dataset", str(dataset), "--result_folder", str(tmp_path / "run"), "--epsilon", "4"]
    cases = [
        ([*base, "--epoch", "3"], "did you mean --epochs?"),
        ([*base, "--epsilon", "0"], "--epsilon has to be above 0"),
        ([*base, "--model_type", str(tmp_path / "no_model")], "no_model"),
        ([*base, "--train_data_file", "no.csv"], "no.csv"),
        ([*base, "--temperature", "nan"], "--temperature has to be above 0 and finite, not nan"),
        ([*base, "--word_var_scale", "nan"], "--word_var_scale has to be at least 0"),
        ([*base, "--api", "AzureGPT", "--model_config", "~no_such_user/x.yaml"], "~no_such_user/x.yaml: "),
        ([*base, "--api", "AzureGPT", "--feature_extractor", "never-loaded"], "no key: set OPENAI_API_KEY"),
        ([*base, "--api_base", "https://me:hunter2@host/v1"], "--api_base has a user, a password or a query in it"),
        ([*base, "--wandb_key", "hunter2"], "set WANDB_API_KEY instead"),
        ([*base, "--fp16", "--mlm_probability", "0.5", "--sleep_time", "1"], "--sleep_time: not needed"),
        ([*base, "--num_samples_schedule", ","], "--num_samples_schedule needs at least one value"),
    ]
    keyless = {name: value for name, value in os.environ.items() if "OPENAI" not in name and name != "MODEL_CONFIG"}
    for argv, part in cases:
        done = command(*argv, env={**keyless, "HF_HUB_OFFLINE": "1"})
        assert "hunter2" not in done.stderr + done.stdout
        assert done.returncode == 2 and part in done.stderr, done.stderr
        assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == done.stderr.splitlines()[
            -1:
        ]
        assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, dataset, capsys):
    (tmp_path / "file").write_text("not a folder")
    refused(capsys, tmp_path / "file" / "run", dataset, "cannot be written to")


def test_a_full_disk_loses_nothing(tmp_path, dataset, monkeypatch):
    """The disk fills up at the third write of a release; the error is an OSError, and the run goes on after it."""
    import dpsda.privacy.ledger as module

    write, calls = module.write_atomic, []

    def full(path, data, scratch=None):
        calls.append(path)
        if len(calls) == 3:
            raise OSError(28, "No space left on device", str(path))
        write(path, data, scratch)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomic", full)
        with pytest.raises(OSError, match="No space left"):
            augpe.generate(tmp_path / "run", *options(dataset))
    run(tmp_path / "run", dataset)
    facts = certificate.verify(tmp_path / "run")
    assert facts["epsilon"] <= 4 and sum(row["releases"] for row in facts["mechanisms"]) == 4


def test_help_is_fast():
    """Under a second; the best of three, for a busy machine."""
    times = []
    for _ in range(3):
        before = time.monotonic()
        done = subprocess.run([sys.executable, ROOT / "main.py", "--help"], capture_output=True, text=True)
        times.append(time.monotonic() - before)
        assert done.returncode == 0 and "--epsilon" in done.stdout and "--combine_divide_L" in done.stdout
    assert min(times) < 1


# the real thing


def test_the_real_models_end_to_end(tmp_path):
    """The embedded model and encoder on the embedded reviews, small: a real text comes out for every place."""
    root, data = tmp_path / "run", tmp_path / "rotten_tomatoes"
    shutil.copytree(ROOT / "data" / "rotten_tomatoes", data)
    spec = (data / "spec.yaml").read_text().replace("hash: [0.84, 1]", "hash: [0.84, 0.86]")
    (data / "spec.yaml").write_text(spec)
    argv = ["--config", str(data / "quickstart.yaml"), "--dataset", str(data), "--result_folder", str(root)]
    argv += ["--epochs", "1", "--num_seed_samples", "8", "--L", "2", "--init_L", "2", "--length", "24"]
    argv += ["--private_share", "0.02"]
    done = command(*argv, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    texts = pd.read_csv(root / "release" / "synthetic.csv")
    assert len(texts) == 8 and texts.text.str.len().min() > 3 and set(texts.category) == {"fresh", "rotten"}
    counts = pd.read_csv(root / "1" / "counts.csv")
    # hundreds of votes among 16 candidates, under noise of a few votes each: the sum shows that they were counted
    assert counts.noisy.sum() == pytest.approx(certificate.verify(root)["units"], abs=40)
    assert np.isfinite(pd.read_csv(root / "distances_test.csv").nn_real).all()


def test_a_comment_locks_no_run_and_what_else_changed_is_named(dataset, tmp_path, monkeypatch):
    """What the two files say is kept, and not how it is written; an earlier version kept their digests."""
    use(monkeypatch)
    data, root = tmp_path / "data", tmp_path / "run"
    shutil.copytree(dataset, data)
    given = {"privacy": {"noise": 3.0}, "evolution": {"epochs": 1, "num_seed_samples": 12, "L": 2}}

    def go():
        augpe.generate(root, *options(data, **given))

    go()
    spec, prompts, kept = data / "spec.yaml", data / "prompts.yaml", root / "state" / "augpe.json"
    first = spec.read_text()
    spec.write_text(f"# a comment\n{first}describe: what one text is\nlicense: cc0-1.0\nlanguage: [en, no]\n")
    go()
    assert 'license: "cc0-1.0"\nlanguage:\n- "en"\n- "no"\n' in (root / "release" / "README.md").read_text()
    spec.write_text(first.replace("  public: [test]\n", ""))
    with pytest.raises(InputError, match=r"another configuration \(spec.yaml has another `splits`\)"):
        go()
    spec.write_text(first)
    before = prompts.read_text()
    prompts.write_text(before.replace("tones: [dry, warm]", "tones: [warm]"))
    with pytest.raises(InputError, match=r"prompts\.yaml has another `tones`"):
        go()
    config = json.loads(kept.read_text())
    config["prompts.yaml"] = config["prompts.yaml"]["sha256"]  # as an earlier version left it
    kept.write_text(json.dumps(config))
    with pytest.raises(InputError, match="was changed"):
        go()
    prompts.write_text(before)
    kept.write_text(json.dumps(config | {"prompts.yaml": sha256(prompts)}))
    go()


def test_a_dry_run_says_that_a_run_is_there(dataset, tmp_path, monkeypatch, capsys):
    use(monkeypatch)
    root, given = tmp_path / "run", {"privacy": {"noise": 3.0}, "evolution": {"epochs": 1, "num_seed_samples": 12}}
    augpe.run(*options(dataset, **given, result_folder=str(root)))
    capsys.readouterr()
    augpe.run(*options(dataset, **given, result_folder=str(root), dry_run=True))
    assert capsys.readouterr().out.startswith(f"{root}: a run is there; this dry run is of a new one")


def test_the_record_unit_is_told_of_where_there_are_users(dataset, tmp_path, monkeypatch, capsys):
    use(monkeypatch)
    small = {"epochs": 1, "num_seed_samples": 12}
    augpe.generate(tmp_path / "run", *options(dataset, privacy={"noise": 3.0}, evolution=small))
    assert "a user (`user: author` in spec.yaml) with several is protected less" in capsys.readouterr().out
    by_user = {"noise": 3.0, "privacy_unit": "user"}
    augpe.generate(tmp_path / "other", *options(dataset, privacy=by_user, evolution=small))
    assert "protected less" not in capsys.readouterr().out
