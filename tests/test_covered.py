"""What a run may build on, and what counts as made by it: the ledger has to have seen it, wherever it lies.

A privacy officer's view of whole runs: a ledger that is lost or old, folders that hold each other, files that were put
where a run keeps its own, models of other runs, and the figures that are told of all of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from apis.echo import EchoAPI
from dpsda import routes
from dpsda.commands import COMMANDS
from dpsda.dry_run import HashEncoder
from dpsda.errors import InputError
from dpsda.privacy import accounting, certificate
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.ledger import Ledger
from dpsda.routes import finetune, resample
from dpsda.runs import is_released
from dpsda.summary import spent
from tests.conftest import options, use
from tests.finetune.made import options as finetune_options
from tests.test_predict import generate as answer
from tests.test_predict import train as train_ensemble
from tests.test_resample import options as resample_options

LEDGER = Path("state/ledger.jsonl")
GONE = r"missing or empty, and a run has begun here \(.*\), so what it spent is not known"
OLDER = "a result that the run's ledger does not know, so the ledger is older than the run"


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    use(monkeypatch)


def refused(match, call, *arguments, **settings) -> None:
    with pytest.raises((InputError, PrivacyError), match=match) as error:
        call(*arguments, **settings)
    assert "\n" not in str(error.value)


def augpe(root, dataset, **settings) -> None:
    routes.augpe.generate(root, *options(dataset, **settings))


def tuned(root, dataset, llama, **settings) -> None:
    finetune.generate(root, *finetune_options(dataset, llama, **settings))


def resampled(root, dataset, **settings) -> None:
    resample.run(*resample_options(root, dataset, **settings))


# 1. a ledger that is lost, emptied or older


def test_a_run_without_its_ledger_goes_on_nowhere(tmp_path, dataset, llama):
    """Every route, with its ledger gone, emptied, or gone with all of state/: the same command is refused."""
    augpe(tmp_path / "augpe", dataset)
    tuned(tmp_path / "finetune", dataset, llama)
    augpe(tmp_path / "resample", dataset, privacy={"noise": 3.0}, evolution={"epochs": 1})
    resampled(tmp_path / "resample", dataset)
    train_ensemble(tmp_path / "predict", dataset, llama)
    answer(tmp_path / "predict")
    commands = {
        "augpe": lambda root: augpe(root, dataset),
        "finetune": lambda root: tuned(root, dataset, llama),
        "predict": answer,
        "resample": lambda root: augpe(root, dataset, privacy={"noise": 3.0}, evolution={"epochs": 1}),
    }
    for name, command in commands.items():
        for spoil in ("gone", "emptied", "state"):
            root = tmp_path / f"{name}-{spoil}"
            shutil.copytree(tmp_path / name, root)
            certificate.verify(root)
            if spoil == "gone":
                (root / LEDGER).unlink()
            elif spoil == "emptied":
                (root / LEDGER).write_bytes(b"")
            else:
                shutil.rmtree(root / "state")
                if name == "predict":
                    (root / "state").mkdir()
                    shutil.copy(tmp_path / name / "state" / "ensemble.json", root / "state")
            refused(GONE, command, root)
            refused("no ledger here", certificate.verify, root)


def test_the_votes_of_old_data_are_not_certified_for_new_data(tmp_path, dataset):
    """The ledger refuses changed data; whoever then removes state/ does not get the old votes' texts for nothing."""
    augpe(tmp_path / "run", dataset)
    text = (dataset / "train.csv").read_text()
    (dataset / "train.csv").write_text(text.replace("thing number 7", "thing number 8", 1))
    refused("data differs", augpe, tmp_path / "run", dataset)
    shutil.rmtree(tmp_path / "run" / "state")
    refused(GONE, augpe, tmp_path / "run", dataset)


def test_a_copy_of_the_ledger_from_half_way_is_refused(tmp_path, dataset, llama):
    class Halting(EchoAPI):
        def generate(self, *call, **more):
            if self.prompts >= 48:
                raise KeyboardInterrupt
            return super().generate(*call, **more)

    with pytest.MonkeyPatch.context() as patch:
        use(patch, Halting)
        with pytest.raises(KeyboardInterrupt):
            augpe(tmp_path / "run", dataset)
    older = (tmp_path / "run" / LEDGER).read_bytes()
    augpe(tmp_path / "run", dataset)
    certificate.verify(tmp_path / "run")
    (tmp_path / "run" / LEDGER).write_bytes(older)
    refused(OLDER, augpe, tmp_path / "run", dataset)
    refused("not what the ledger noted|does not know", certificate.verify, tmp_path / "run")

    tuned(tmp_path / "tuned", dataset, llama, training={"steps": 2})
    older = (tmp_path / "tuned" / LEDGER).read_bytes()
    tuned(tmp_path / "tuned", dataset, llama)
    (tmp_path / "tuned" / LEDGER).write_bytes(older)
    refused(OLDER, tuned, tmp_path / "tuned", dataset, llama)


def test_a_control_that_takes_no_vote_verifies(tmp_path, dataset):
    augpe(tmp_path / "run", dataset, evolution={"select_syn_mode": "random"})
    certificate.verify(tmp_path / "run")


# 2. folders that hold each other, and files that were put into one


def entry_points(root, dataset, llama) -> dict[str, list[str]]:
    """The arguments of every command that takes a result folder and a data set."""
    common = ["--dataset", str(dataset), "--result_folder", str(root)]
    file = ["--synthetic_file", str(dataset / "train.csv")]
    return {
        "augpe": [*common, "--epsilon", "4"],
        "finetune": [*common, "--epsilon", "4", "--model_type", llama],
        "resample": [*common, "--noise", "3", *file, "--synthetic_public"],
        "predict train": [*common, "--model_type", llama, "--shards", "2"],
        "metric": [*common, *file],
        "downstream": [*common, *file],
        "align pairs": [*common, "--split", "test", "--answer_column", "stars", "--name", "x"],
        "audit plant": ["--dataset", str(dataset), "--output", str(root), "--canaries", "40"],
    }


def run(name: str, arguments: list[str], monkeypatch, capsys) -> tuple[int, str]:
    first, *rest = name.split()
    monkeypatch.setattr(sys, "argv", [f"{first}.py", *rest, *arguments])
    with pytest.raises(SystemExit) as stop:
        COMMANDS[first].main(f"{first}.py", "")
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize("place", ["is", "holds", "inside", "link", "link to the file"])
def test_a_run_and_its_data_set_lie_apart(tmp_path, dataset, llama, monkeypatch, capsys, place):
    """At every entry point, whatever links lead there; nothing is written."""
    (tmp_path / "link").symlink_to(dataset)
    roots = {"is": dataset, "holds": dataset.parent, "inside": dataset / "run", "link": tmp_path / "link" / "run"}
    if place == "link to the file":
        roots[place] = tmp_path / "run"
        (tmp_path / "run").mkdir()
        (dataset / "train.csv").rename(tmp_path / "run" / "train.csv")
        (dataset / "train.csv").symlink_to(tmp_path / "run" / "train.csv")
    before = sorted(str(path) for path in dataset.rglob("*"))
    for name, arguments in entry_points(roots[place], dataset, llama).items():
        code, error = run(name, arguments, monkeypatch, capsys)
        assert (code, error.count("\n")) == (2, 1) and "may not lie in one folder" in error, (name, error)
    assert sorted(str(path) for path in dataset.rglob("*")) == before


def test_a_private_file_in_a_run_is_no_release(tmp_path, dataset):
    """Copied, linked, renamed over one of the run's own, or put beside them: it is resampled as public alone."""
    root = tmp_path / "run"
    augpe(root, dataset)
    private = dataset / "train.csv"
    places = [root / "train.csv", root / "0" / "more.csv", root / "7" / "samples.csv", root / "state" / "samples.csv"]
    for path in places:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(private, path)
    (root / "link.csv").symlink_to(private)
    os.link(private, root / "hard.csv")
    for path in [*places, root / "link.csv", root / "hard.csv"]:
        assert not is_released(path)
        refused("was not made by the run", resampled, root, dataset, synthetic_file=str(path))
    assert is_released(root / "2" / "samples.csv")
    released = (root / "release" / "synthetic.csv").read_bytes()
    for own in (root / "2" / "samples.csv", root / "release" / "synthetic.csv"):
        shutil.copy(private, own)
        assert not is_released(own)
    refused("was not made by the run", resampled, root, dataset, synthetic_file=str(root / "2" / "samples.csv"))
    refused("not what the run made; it was replaced", resampled, root, dataset)
    refused("not the file that the run made|not the file that was certified", certificate.verify, root)
    (root / "release" / "synthetic.csv").write_bytes(released)
    assert is_released(root / "release" / "synthetic.csv")


# 3. models that cost what no ledger here knows of


def test_models_are_told_by_what_made_them(tmp_path, dataset, llama):
    root, other = tmp_path / "run", tmp_path / "other"
    tuned(root, dataset, llama, tuning={"full": True})
    tuned(other, dataset, llama, tuning={"full": True})
    fresh = tmp_path / "fresh" / "private" / "alignment" / "real" / "adapter"
    shutil.copytree(root / "state" / "model", fresh)
    shutil.copytree(root / "state" / "model", root / "alignment" / "policy" / "adapter")
    for model, match in [
        (fresh, "lies in a private folder"),
        (other / "state" / "model", "belongs to another run"),
        (root / "alignment" / "policy" / "adapter", "the run did not make it as far as its ledger knows"),
    ]:
        settings = list(options(dataset))
        settings[4] = type(settings[4])(model_type=str(model))
        settings[-1] = type(settings[-1])(result_folder=str(root))
        refused(match, routes.augpe.generate, root, *settings)
    from dpsda.start import _check_model

    _check_model("--model_type", root / "state" / "model", root)  # what the run made itself costs nothing more
    (root / "state" / "model" / "config.json").write_text("{}")
    refused("the run did not make it", _check_model, "--model_type", root / "state" / "model", root)


# 6. one record that has no vector


@pytest.mark.parametrize("unit", ["record", "user"])
def test_a_record_without_a_vector_casts_no_vote_and_stops_nothing(tmp_path, dataset, monkeypatch, unit):
    """In Aug-PE and in resampling; its label counts. Without noise the votes can be added up."""

    class Spoilt(HashEncoder):
        def embed(self, texts, *, private, desc=""):
            rows = super().embed(texts, private=private, desc=desc)
            for i, text in enumerate(texts):
                if private and re.search(r"number (0|7|50)\.", text):
                    rows[i] = {"0": np.nan, "7": np.inf, "50": 1e30}[re.search(r"number (\d+)\.", text)[1]]
            return rows

    use(monkeypatch, encoder=Spoilt)
    root, privacy = tmp_path / "run", {"epsilon": float("inf"), "privacy_unit": unit}
    augpe(root, dataset, privacy=privacy, evolution={"epochs": 1})
    counts = pd.read_csv(root / "private" / "1" / "counts.csv")
    assert counts.noisy.sum() == pytest.approx(117 if unit == "record" else counts.noisy.sum())
    resampled(root, dataset, privacy=privacy)
    votes = pd.read_csv(root / "private" / "resample" / "counts.csv")
    # one of 1e30 has a direction, which is all that counts here
    assert votes.noisy.sum() == pytest.approx(118 if unit == "record" else votes.noisy.sum())


# 9. a model that is swapped before it is sampled


@pytest.mark.parametrize("full", [True, False])
def test_a_model_that_was_swapped_is_neither_sampled_nor_verified(tmp_path, dataset, llama, full):
    tuned(tmp_path / "other", dataset, llama, tuning={"full": full}, sampling={"skip_sampling": True})
    root, name = tmp_path / "run", "model" if full else "adapter"
    tuned(root, dataset, llama, tuning={"full": full}, sampling={"skip_sampling": True})
    certificate.verify(root)
    shutil.rmtree(root / "state" / name)
    shutil.copytree(tmp_path / "other" / "state" / name, root / "state" / name)
    refused("not the file that the run made", tuned, root, dataset, llama, tuning={"full": full})
    refused("not the file that the run made", certificate.verify, root)
    shutil.rmtree(root / "state" / name)
    tuned(root, dataset, llama, tuning={"full": full})  # made again of the checkpoint
    certificate.verify(root)


# 4. what is certified does not depend on what was drawn


def test_answers_that_were_not_needed_are_certified_all_the_same(tmp_path, dataset, llama):
    """Texts end when their tokens say so; three runs of one command state one epsilon, that of the plan."""
    train_ensemble(tmp_path / "ensemble", dataset, llama)
    found, given = set(), set()
    for number in range(3):
        root = tmp_path / f"run{number}"
        shutil.copytree(tmp_path / "ensemble", root)
        answer(root, "--num_samples", 3, "--queries", 60)
        facts = certificate.verify(root)
        found.add(facts["epsilon"])
        given.add(int(json_about(root)["answers"].split(",")[0]))
    with contextlib.closing(Ledger(tmp_path / "run0")) as ledger:
        [plan] = [charge for charge in ledger.charges() if charge.name == "answers/0-60"]
        labels = [charge for charge in ledger.charges() if charge.name == "label_counts"]
        events = [charge.event for charge in [plan, *labels]]
        assert found == {accounting.round_up(accounting.epsilon(events, float(ledger.header["delta"])))}
    assert max(given) <= 30  # three texts of ten tokens: the plan was for more, and is what counts


def json_about(root: Path) -> dict[str, str]:
    from dpsda.runs import read_json

    return read_json(root / certificate.FILE)["about"]


# 8. and 12. figures


def test_delta_is_shown_rounded_up(tmp_path, dataset, capsys):
    """1.0049e-5 is not 1e-05; wherever it is shown."""
    augpe(tmp_path / "run", dataset, privacy={"noise": 5.0, "delta": 1.00494e-5})
    statement = certificate.verify(tmp_path / "run")["statement"]
    assert ", 1.005e-05)-differentially" in statement
    printed = capsys.readouterr().out
    assert "delta 1.005e-05" in printed and statement in printed
    card = (tmp_path / "run" / "release" / "README.md").read_text()
    assert "| delta | 1.005e-05 |" in card
    for delta in (1e-5, 1.00001e-5, 4.1714e-4, 0.00174064, 9.99999e-6, 1 / 3, 1e-300, 0.999999):
        assert delta <= float(accounting.shown(delta)) <= delta * 1.0011
    assert accounting.shown(1e-5) == "1e-05" and accounting.shown(9.99999e-6) == "1e-05"


def test_the_epsilon_of_an_iteration_holds_what_earlier_stages_spent(tmp_path, dataset, llama, capsys):
    tuned(tmp_path / "run", dataset, llama)
    before = certificate.verify(tmp_path / "run")["epsilon"]
    capsys.readouterr()
    augpe(tmp_path / "run", dataset, privacy={"noise": 5.0}, evolution={"epochs": 2})
    facts, printed = certificate.verify(tmp_path / "run"), capsys.readouterr().out
    ledger = Ledger(tmp_path / "run", read_only=True)
    assert before == spent(ledger, 0) < spent(ledger, 1) < spent(ledger, 2) == facts["epsilon"]
    assert re.search(rf"\n +2 +{facts['epsilon']:.4f} ", printed) and re.search(rf"\n +0 +{before:.4f} ", printed)
