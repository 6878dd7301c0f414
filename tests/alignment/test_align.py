"""The command line: what is private stays so, what is complete is not done again, bad input is one line."""

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from apis.api import TextAPI
from dpsda.alignment.answers import ask
from dpsda.alignment.options import AnswersOptions, PairsOptions, StepOptions
from dpsda.alignment.step import Step, is_public
from dpsda.alignment.tables import read_instructions
from dpsda.arg_utils import parse
from dpsda.assets import resolve
from dpsda.commands import COMMANDS
from dpsda.data import DatasetSpec, load
from dpsda.data.loading import load_columns
from dpsda.errors import InputError
from dpsda.options import ModelOptions, RemoteOptions
from dpsda.privacy import certificate
from dpsda.privacy.accounting import Claimed
from dpsda.privacy.files import private_folder, sha256
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mixture import PublishedRenyi
from tests.alignment.conftest import PAIRS, ROOT, as_a_step, write_pairs
from tests.conftest import use

REMOTE = ("--api", "AzureGPT", "--model_type", "m", "--length", 8)


class Answering(TextAPI):
    """Answers in capitals; refuses what holds w3; after `most` answers it fails."""

    def __init__(self, most=100):
        self.most, self.asked = most, []

    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        found = []
        for number, prompt in enumerate(prompts):
            if len(self.asked) == self.most:
                raise ConnectionError("gone")
            self.asked.append(prompt.text)
            found.append(
                None
                if prompt.text == "w3 w4"
                else " \n"
                if prompt.text == "w5 w6"
                else f" {prompt.text.upper()}\ud800 "
            )
            on_answer(number, found[-1])
        return found


def test_answers_in_order_without_the_refused():
    texts = [text for text, _ in PAIRS[:8]]
    found = ask(Answering(), texts, max_new_tokens=5, seed=0)
    assert found == [(text, f"{text.upper()}?") for text in texts if text not in ("w3 w4", "w5 w6")]


def test_a_step_that_fails_asks_for_no_answer_again(run, capsys, monkeypatch):
    from dpsda.routes import align as steps

    options = (
        AnswersOptions(str(run / "release" / "synthetic.csv")),
        ModelOptions(),
        RemoteOptions(),
        StepOptions(str(run), "arm"),
    )
    first, second = Answering(most=10), Answering()
    with pytest.raises(ConnectionError):
        use(monkeypatch, lambda: first)
        steps.answers(*options)
    use(monkeypatch, lambda: second)
    steps.answers(*options)
    assert len(first.asked) == 10 and sorted(first.asked + second.asked) == sorted(text for text, _ in PAIRS[:24])
    frame = pd.read_csv(run / "alignment" / "arm" / "answers.csv")
    assert len(frame) == 22 and list(frame) == ["instruction", "answer"]
    (run / "alignment" / "arm" / "journal").mkdir()  # as a kill leaves it that comes when the step is done
    use(monkeypatch, lambda: pytest.fail("asked again"))
    steps.answers(*options)
    assert "nothing is done again" in capsys.readouterr().out
    assert not (run / "alignment" / "arm" / "journal").exists()


def test_what_is_public(run, tmp_path):
    """What the run or a step made, as it was made; never by where a file lies, or how it is called."""
    released = run / "release" / "synthetic.csv"
    assert is_public(released) and is_public(run / "release" / ".." / "release" / "synthetic.csv")
    answers = write_pairs(run / "alignment" / "x" / "answers.csv")
    assert not is_public(answers) and not is_public(run / "alignment" / "x") and not is_public(run / "gone.csv")
    assert is_public(as_a_step(answers))
    own = write_pairs(tmp_path / "own.csv")
    put = [run / "own.csv", run / "release" / "own.csv", run / "1" / "samples.csv", run / "alignment" / "x" / "own.csv"]
    for path in put:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(own, path)
    hidden = [own, run / "link.csv", run / "hard.csv", *put, run / "private" / "x.csv"]
    (run / "link.csv").symlink_to(own)
    os.link(own, run / "hard.csv")
    write_pairs(run / "private" / "x.csv")
    assert [is_public(path) for path in hidden] == [False] * len(hidden)
    answers.write_bytes(own.read_bytes() + b"\n")
    released.write_bytes(own.read_bytes())
    assert not is_public(answers) and not is_public(released)


def test_a_run_that_guarantees_nothing_vouches_for_nothing(tmp_path):
    """Without noise it lies in private/; and the claim of a publication is no guarantee wherever it lies."""
    for name, place in (("noiseless", "private/release"), ("claimed", "release")):
        run = tmp_path / name
        texts = write_pairs(run / place / "synthetic.csv")
        protected = name == "claimed"
        with contextlib.closing(Ledger(run, protected=protected)) as ledger:
            facts = {"unit": "record", "units": 100, "delta": 1e-5, "relation": "add_remove", "facts": {}}
            ledger._append("open", facts)
            if protected:
                ledger.charge("predict", "answers/0-9", PublishedRenyi(4, 0.5, 3, 0.1), Claimed((3.0,), (0.1,)))
            certificate.publish(ledger, certificate.build(ledger), {})
        assert not is_public(texts)


def test_a_public_split_tells_nothing_of_the_private_rows_of_its_file(run):
    from dpsda.routes import align as steps

    steps.pairs(PairsOptions("chat", split="test"), StepOptions(str(run), "held_out"))
    steps.pairs(PairsOptions("chat", split="train"), StepOptions(str(run), "pairs"))
    settings = (run / "alignment" / "held_out" / "settings.json").read_text()
    assert sha256(Path(resolve("embedded:chat"))) not in settings
    assert (run / "private" / "alignment" / "pairs" / "pairs.csv").exists() and not (run / "alignment/pairs").exists()


def test_what_a_model_without_noise_writes_is_private(run, tmp_path):
    """By the folder that it lies in: no ledger has to be near, and one that says so is private by any name."""
    inputs = {"instructions": run / "release" / "synthetic.csv"}
    model = tmp_path / "fresh" / "private" / "alignment" / "real" / "model"
    model.mkdir(parents=True)
    renamed = private_folder(tmp_path / "renamed") / "model"
    renamed.mkdir()
    (tmp_path / "link").symlink_to(model)
    hidden = [str(path) for path in (model, renamed, tmp_path / "link")]
    for name, private in (("gpt2", False), *((name, True) for name in hidden)):
        assert Step("answers", StepOptions(str(run), "x"), {"model_type": name}, inputs).private is private


@pytest.fixture
def server(tmp_path):
    log = tmp_path / "requests.jsonl"
    settings = json.dumps({"log": str(log), "rates": {"429": 0.05, "500": 0.05}})
    program = [sys.executable, str(ROOT / "tests/apis/fault_server.py"), settings]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1", log
        process.kill()


def test_private_instructions_are_not_sent_unless_the_owner_allows_it(run, tmp_path, server, align):
    url, log = server
    private = write_pairs(tmp_path / "own.csv", PAIRS[:4])
    words = ("answers", *REMOTE, "--api_base", url, "--result_folder", run)
    refused = align(*words, "--name", "a", "--instructions", private)
    assert refused.returncode == 2 and "--send_private" in refused.stderr and refused.stderr.count("\n") == 1
    assert not log.read_text() and not (run / "private" / "alignment" / "a").exists()
    assert "w0 w1" not in refused.stderr
    released = align(*words, "--name", "b", "--instructions", run / "release" / "synthetic.csv")
    assert released.returncode == 0 and len(pd.read_csv(run / "alignment" / "b" / "answers.csv")) == 24
    allowed = align(*words, "--name", "c", "--instructions", private, "--send_private")
    folder = run / "private" / "alignment" / "c"
    assert allowed.returncode == 0 and len(pd.read_csv(folder / "answers.csv")) == 4
    assert stat.S_IMODE((run / "private").stat().st_mode) == 0o700
    assert "answered 24" in released.stdout and "answered" not in allowed.stdout  # a figure of private data
    assert "24/24" in released.stderr and "4/4" not in allowed.stderr
    both = ("--answers", folder / "answers.csv", "--against", run / "alignment" / "b" / "answers.csv")
    judged = align("judge", *REMOTE, "--api_base", url, "--result_folder", run, "--name", "d", *both)
    assert judged.returncode == 2 and "--send_private" in judged.stderr


def test_an_arm_on_private_pairs_lies_in_private_and_shows_nothing(run, tiny, align):
    words = ("--result_folder", run, "--device", "cpu", "--dtype", "float32", "--model_type", tiny)
    pairs = write_pairs(run / "private" / "pairs.csv")
    done = align("sft", "--pairs", pairs, "--name", "real", "--max_steps", 2, *words)
    assert done.returncode == 0, done.stderr
    adapter = run / "private" / "alignment" / "real" / "adapter"
    assert (adapter / "adapter_model.safetensors").exists() and not (run / "alignment").exists()
    assert "loss" not in done.stdout + done.stderr
    # and so do the answers of that arm to released instructions
    released = ("--instructions", run / "release" / "synthetic.csv", "--length", 4)
    answered = align("answers", "--adapter", adapter, "--name", "real_answers", *released, *words)
    assert answered.returncode == 0, answered.stderr
    assert "24/24" not in answered.stderr
    assert (run / "private" / "alignment" / "real_answers" / "answers.csv").exists()
    assert not list((run / "private" / "alignment" / "real_answers").glob(".merged-*"))


def test_a_judgement_from_the_command_line(run, tiny, align):
    one = as_a_step(write_pairs(run / "alignment" / "one" / "answers.csv"))
    other = write_pairs(run / "alignment" / "other" / "answers.csv", [(text, "w1") for text, _ in PAIRS[:20]])
    as_a_step(other)
    words = ("--result_folder", run, "--device", "cpu", "--dtype", "float32", "--model_type", tiny)
    done = align("judge", "--answers", one, "--against", other, "--name", "v", *words)
    assert done.returncode == 0, done.stderr
    assert "win rate one vs other: 0." in done.stdout and "20 prompts" in done.stdout
    assert "stood first in" in done.stdout
    rows = pd.read_csv(run / "alignment" / "v" / "verdicts.csv")
    assert len(rows) == 20 and set(rows.outcome) <= {-1, 0, 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sft", "--pairs", "RUN/gone.csv"], "no such file"),
        (["sft", "--pairs", "RUN/empty.csv"], "empty"),
        (["sft", "--pairs", "RUN/head.csv"], "no rows"),
        (["sft", "--pairs", "RUN/other.csv"], "no column 'instruction' or 'text'"),
        (["sft", "--pairs", "RUN/text.csv"], "no column 'answer'"),
        (["sft", "--pairs", "RUN/text.csv", "--batch_size", "0"], "at least 1"),
        (["sft", "--pairs", "RUN/text.csv", "--name", "../x"], "plain name"),
        (["answers", "--instructions", "RUN/text.csv", "--adapter", "RUN"], "no adapter is here"),
        (["answers", "--instructions", "RUN/other.csv", "--model_type", "gpt2"], "no column"),
        (["judge", "--answers", "RUN/one.csv", "--against", "RUN/two.csv"], "no instruction in common"),
        (["reward", "--verdicts", "RUN/one.csv"], "no column 'against'"),
        (["rlhf", "--instructions", "RUN/text.csv", "--reward", "RUN"], "no adapter is here"),
        (["pairs", "--dataset", "chat", "--split", "nope"], "no split"),
        (["pairs", "--dataset", "chat", "--answer_column", "nope"], "no column 'nope'"),
        (["sfd"], "did you mean sft"),
    ],
)
def test_bad_input_is_one_line(tmp_path, align, words, message):
    files = {
        "empty.csv": "",
        "head.csv": "instruction,answer\n",
        "other.csv": "a,b\nsecret,2\n",
        "text.csv": "text\nsecret\n",
        "one.csv": "instruction,answer\nsecret,1\n",
        "two.csv": "instruction,answer\nother,1\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    more = [] if words == ["sfd"] else ["--result_folder", str(tmp_path / "run")]
    more += [] if words == ["sfd"] or "--name" in words else ["--name", "x"]
    done = align(*(word.replace("RUN", str(tmp_path)) for word in words), *more)
    assert done.returncode == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1 and "secret" not in done.stderr


def test_the_embedded_chats():
    """2,026 pairs; the answers are those of the records, split by split; test is public and train is not."""
    frame = pd.read_csv(resolve("embedded:chat"), keep_default_na=False)
    assert list(frame) == ["text", "answer", "topic"] and len(frame) == 2026 and frame.topic.nunique() == 21
    assert frame.iloc[0].text == "What is AI?" and (frame.answer != "").all()
    spec, found = DatasetSpec.read("chat"), []
    for split in spec.splits:
        texts, answers = load_columns(spec, split, ["text", "answer"])
        assert list(load(spec, split).texts) == texts
        found += zip(texts, answers, strict=True)
    assert sorted(found) == sorted(zip(frame.text, frame.answer, strict=True)) and spec.public == {"test"}


def test_instructions_of_shards_come_once(tmp_path):
    pd.DataFrame({"text": ["a", "b", " "]}).to_parquet(tmp_path / "0.parquet")
    pd.DataFrame({"text": ["b", None, "c"]}).to_parquet(tmp_path / "1.parquet")
    assert read_instructions(tmp_path) == ["a", "b", "c"]


def test_every_yaml_of_a_step_is_what_the_step_takes():
    paths = sorted(ROOT.glob("data/*/align/*.yaml"))
    needed = {"pairs", "instructions", "answers", "against", "verdicts", "reward", "result_folder", "name"}
    assert {path.parents[1].name for path in paths} == {"chat", "lmsys"} and len(paths) == 10
    for path in paths:
        groups = COMMANDS["align"].steps[path.stem]
        names = [field for group in groups for field in group.__dataclass_fields__ if field in needed]
        parse(["--config", str(path), *(word for name in names for word in (f"--{name}", "x"))], "", "", *groups)


def test_the_papers_settings():
    """Yu et al. 2024: answers at .7 and .95 of at most 1,024 tokens; batch 32, three epochs, 3e-4."""
    folder = ROOT / "data" / "lmsys" / "align"
    more = ["--result_folder", "x", "--name", "x"]
    words = ["--config", str(folder / "answers.yaml"), "--instructions", "x", *more]
    _, model, *_ = parse(words, "", "", *COMMANDS["align"].steps["answers"])
    assert (model.temperature, model.top_p, model.length, model.api) == (0.7, 0.95, 1024, "AzureGPT")
    _, training, _ = parse(
        ["--config", str(folder / "sft.yaml"), "--pairs", "x", *more], "", "", *COMMANDS["align"].steps["sft"]
    )
    assert (training.batch_size, training.epochs, training.learning_rate) == (32, 3, 3e-4)


def test_an_unknown_asset_is_named(tmp_path):
    with pytest.raises(InputError, match="embedded:chat"):
        resolve("embedded:chats")


def test_the_pipeline_script_names_what_it_does_not_know():
    script = ["bash", str(ROOT / "scripts" / "instructions" / "pipeline.sh")]
    for words in (["--nope", "1"], ["--nope"], ["--result_folder"]):
        done = subprocess.run([*script, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--help" in done.stderr
    done = subprocess.run([*script, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "--answer_model" in done.stdout
