"""audit.py on whole runs, on stand-ins for the models."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpsda import noisy_histogram, release
from dpsda.arg_utils import parse
from dpsda.attributes import release as rows
from dpsda.attributes.options import RowOptions
from dpsda.audit import canaries, mechanisms, votes
from dpsda.commands import COMMANDS
from dpsda.data import DatasetSpec, load
from dpsda.dry_run import HashEncoder
from dpsda.errors import InputError
from dpsda.finetune.options import SamplingOptions, TrainingOptions, TuningOptions
from dpsda.options import DataOptions, EmbeddingOptions, EngineOptions, PrivacyOptions, RunOptions
from dpsda.privacy import certificate
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import RecordHistogram
from dpsda.routes import audit, augpe, finetune
from dpsda.runs import RunFolder
from tests.conftest import options as augpe_options
from tests.conftest import use, write_rows
from tests.finetune.made import options as finetune_options
from tests.test_rows import AnyRows
from tests.test_rows import made_up as table_with_rows


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    use(monkeypatch)
    monkeypatch.setattr(audit, "_encoder", lambda config, device: HashEncoder())
    monkeypatch.setattr(mechanisms, "BINS", 8_000)


def go(step: str, *argv: str) -> bool:
    return getattr(audit, step)(*parse(argv, "audit.py", "", *COMMANDS["audit"].steps[step]))


@pytest.fixture
def planted(tmp_path, dataset) -> Path:
    folder = tmp_path / "audit"
    go("plant", "--dataset", str(dataset), "--output", str(folder), "--canaries", "60")
    return folder


def generate(root: Path, dataset: Path, planted: Path, epsilon: float, **evolution) -> Path:
    evolution = {"epochs": 3, "num_seed_samples": 48, **evolution}
    settings = {"privacy": {"epsilon": epsilon, "delta": 1e-5}, "evolution": evolution}
    augpe.generate(
        root, *augpe_options(dataset, data={"train_data_file": str(planted / "private" / "corpus.parquet")}, **settings)
    )
    return root


def found(root: Path) -> dict:
    return json.loads((root / "private" / "audit.json").read_text())


def test_what_is_planted(planted, dataset):
    """A canary takes the place of the one record that it is made of; whoever makes none is in the corpus as before."""
    spec = DatasetSpec.read(dataset)
    real, made = [*load(spec, "train").texts], canaries.read(planted, spec, "train", 1.0)
    m = len(made.there)
    assert 30 <= m <= 90 and 0.2 < made.there.mean() < 0.8  # 60 and a half; a false alarm in 10^5
    corpus, texts = [*made.corpus.texts], [*made.canaries.texts]
    assert corpus[made.others :] == [text for text, there in zip(texts, made.there, strict=True) if there]
    begun = [text.split()[: -canaries.SUFFIX] for text in texts]
    replaced = [next(text for text in real if text.split()[: canaries.PREFIX] == start) for start in begun]
    assert len({*replaced}) == m  # the numbers in the texts tell them apart
    assert corpus[: made.others] == [text for text in real if text not in replaced]
    for text, own in zip(texts, replaced, strict=True):
        assert {*text.split()} == {*own.split()}  # and nobody else's words
    with pytest.raises(InputError, match="planted here already"):
        go("plant", "--dataset", str(dataset), "--output", str(planted))


def test_a_short_record_makes_no_canary(dataset, tmp_path):
    rows = [{"text": "Yes " * i, "stars": "low", "kind": "food", "author": f"{i}"} for i in range(1, 100)]
    good = [{**rows[0], "text": f"{i} is quite fine"} for i in range(400)]
    write_rows(tmp_path / "own.csv", rows + good)
    data = DataOptions(str(dataset), train_data_file=str(tmp_path / "own.csv"))
    spec = DatasetSpec.read(dataset)
    canaries.plant(tmp_path, spec, data, 100, 1)
    made = canaries.read(tmp_path, spec, "train", 1.0)
    assert all(text.split()[1:4] == ["is", "quite", "fine"] for text in made.canaries.texts)
    assert [*made.corpus.texts][: len(rows)] == [row["text"] for row in rows]


def test_two_plantings_differ(planted, dataset, tmp_path):
    go("plant", "--dataset", str(dataset), "--output", str(tmp_path / "again"), "--canaries", "60")
    one, other = (pd.read_parquet(folder / "private" / canaries.CANARIES) for folder in (planted, tmp_path / "again"))
    assert not {*one["text"]} & {*other["text"]}
    assert list(one[canaries.THERE]) != list(other[canaries.THERE])


def test_only_what_the_split_takes_is_a_canary(dataset, tmp_path):
    """A share of the split is a range of hashes, which a canary has to be in, or it would never be."""
    data = DataOptions(str(dataset), private_share=0.5)
    spec = DatasetSpec.read(dataset)
    canaries.plant(tmp_path, spec, data, 25, 1)
    made = canaries.read(tmp_path, spec, "train", 0.5)
    assert 5 < made.canaries.num_records < 50
    assert made.corpus.num_records == load(spec, "train", share=0.5).num_records - len(made.there) + made.there.sum()
    with pytest.raises(InputError, match="another split"):
        canaries.read(tmp_path, spec, "train", 0.25)


@pytest.mark.parametrize("labels", ["prompts", "votes"])
def test_a_run_without_noise_shows_who_is_in(planted, dataset, tmp_path, capsys, labels):
    root = generate(tmp_path / "run", dataset, planted, math.inf, labels_from=labels)
    assert not go("score", "--result_folder", str(root), "--planted", str(planted))
    votes = found(root)["scores"]["votes"]
    assert votes["auc"] > 0.9
    assert votes["epsilon"] > 0.5
    shown = capsys.readouterr().out
    assert "AUC" not in shown  # private, unless asked for
    go("score", "--result_folder", str(root), "--planted", str(planted), "--log_private")
    assert "AUC" in capsys.readouterr().out


def test_a_run_with_noise_keeps_its_promise(planted, dataset, tmp_path):
    """A false alarm has a probability of at most 10^-3 by theorem, and far less: noise of 7 votes hides one."""
    root = generate(tmp_path / "run", dataset, planted, 1.0)
    assert not go(
        "score", "--result_folder", str(root), "--planted", str(planted), "--log_private", "--failure", "1e-3"
    )
    result = found(root)
    assert {*result["scores"]} == {"votes", "words", "embedding"}
    assert 0.99 < result["claimed"] <= 1.0
    assert all(score["epsilon"] <= 1.0 < score["most"] for score in result["scores"].values())
    before = certificate.verify(root)
    for failure in ("0.05", "0.01"):  # where the owner says so, a line of the certificate, and one only
        go("score", "--result_folder", str(root), "--planted", str(planted), "--certify", "--failure", failure)
    line = json.loads((root / certificate.FILE).read_text())["audit"]
    assert line.startswith(f"{result['canaries']} made-up records") and "confidence 0.99)" in line
    card = (root / "release" / "README.md").read_text()
    assert card.count("## An attack on this run") == 1 and card.endswith(f"{line}\n")
    assert {**certificate.verify(root), "ledger": 0} == {**before, "ledger": 0}
    edited = json.loads((root / certificate.FILE).read_text()) | {"audit": line.replace("at least", "at most")}
    (root / certificate.FILE).write_text(json.dumps(edited))
    for step in (lambda: certificate.verify(root), lambda: release.add_audit(RunFolder.existing(root), "better")):
        with pytest.raises(PrivacyError, match="not what the ledger noted when it was published"):
            step()


def test_a_run_whose_noise_is_left_out_is_refuted(planted, dataset, tmp_path, monkeypatch):
    """It claims an epsilon of 0.3, and its votes are exact: a bound that 60 canaries can show."""
    monkeypatch.setattr(
        RecordHistogram, "release", lambda self, votes, users, bins: self.sums(votes, users, bins).astype(float)
    )
    root = generate(tmp_path / "run", dataset, planted, 0.3)
    assert go("score", "--result_folder", str(root), "--planted", str(planted), "--log_private")


@pytest.fixture
def users(dataset, tmp_path) -> list[str]:
    """Options of a private set of 150 users with two records each."""
    rows = [
        {"text": f"A {word} thing of number {i}.", "stars": "low", "kind": "food", "author": f"author {i}"}
        for word in ("cold", "loud")
        for i in range(150)
    ]
    write_rows(tmp_path / "users.csv", rows)
    return ["--dataset", str(dataset), "--train_data_file", str(tmp_path / "users.csv")]


def test_canaries_are_users(dataset, users, tmp_path):
    planted = tmp_path / "audit"
    go("plant", *users, "--output", str(planted), "--canaries", "60", "--repeats", "3")
    made = canaries.read(planted, DatasetSpec.read(dataset), "train", 1.0)
    m = len(made.there)
    assert 30 <= m <= 95 and np.array_equal(made.number, np.repeat(np.arange(m), 3))
    assert len(np.unique(made.canaries.users)) == m
    assert made.others == 300 - 2 * m  # a user's records go together
    numbers = np.array([text.split()[5] for text in made.canaries.texts]).reshape(m, 3)
    assert (numbers == numbers[:, :1]).all() and len({*numbers[:, 0]}) == m  # a canary is made of one user's records
    root = tmp_path / "run"
    data = {"train_data_file": str(planted / "private" / "corpus.parquet")}
    augpe.generate(root, *augpe_options(dataset, data=data, privacy={"epsilon": 2.0, "privacy_unit": "user"}))
    assert not go(
        "score", "--result_folder", str(root), "--planted", str(planted), "--failure", "1e-6", "--log_private"
    )
    assert found(root)["canaries"] == m


@pytest.mark.parametrize(("refuted", "code"), [(True, 3), (False, 0)])
def test_a_refuted_claim_has_an_exit_code_of_its_own(monkeypatch, refuted, code):
    monkeypatch.setattr(audit, "mechanism", lambda options: refuted)
    monkeypatch.setattr(sys, "argv", ["audit.py", "mechanism", "--result_folder", "run"])
    with pytest.raises(SystemExit) as done:
        COMMANDS["audit"].main("audit.py", "")
    assert done.value.code == code


def test_the_mechanisms_of_a_run(planted, dataset, tmp_path, capsys):
    root = generate(tmp_path / "run", dataset, planted, 4.0)
    assert not go("mechanism", "--result_folder", str(root), "--failure", "1e-6")
    lines = [line for line in capsys.readouterr().out.splitlines() if "RecordHistogram" in line]
    assert len(lines) == 2  # votes and label counts have one noise and one sensitivity: a finding a delta


def test_bad_input_is_one_line(planted, users, dataset, tmp_path):
    other = generate(tmp_path / "other", dataset, planted, 1.0)
    again, several = tmp_path / "again", tmp_path / "several"
    go("plant", "--dataset", str(dataset), "--output", str(again), "--canaries", "40")
    go("plant", *users, "--output", str(several), "--canaries", "40", "--repeats", "2")
    repeated, plain = generate(tmp_path / "repeated", dataset, several, 1.0), tmp_path / "plain"
    augpe.generate(plain, *augpe_options(dataset))
    by_user, data = tmp_path / "by_user", {"train_data_file": str(planted / "private" / "corpus.parquet")}
    augpe.generate(by_user, *augpe_options(dataset, data=data, privacy={"epsilon": 1.0, "privacy_unit": "user"}))
    rows = [{"text": f"thing {i}", "stars": "low", "kind": "food", "author": f"{i}"} for i in range(100)]
    write_rows(tmp_path / "short.csv", rows)
    short = "--dataset", str(dataset), "--train_data_file", str(tmp_path / "short.csv")
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "spec.yaml").write_text("text: text\nuser: canary\nsplits: {train: ../short.csv}")
    named = "--dataset", str(tmp_path / "named"), "--output", str(tmp_path / "new")
    for message, step, *argv in (
        ("was not made on the records", "score", "--result_folder", str(other), "--planted", str(again)),
        ("no canaries are planted here", "score", "--result_folder", str(other), "--planted", str(tmp_path / "none")),
        ("not the folder of a run", "mechanism", "--result_folder", str(tmp_path / "none")),
        ("at least 40", "plant", "--dataset", str(dataset), "--output", str(tmp_path / "new"), "--canaries", "39"),
        ("than half of the records", "plant", "--dataset", str(dataset), "--output", str(tmp_path / "new")),
        ("than half of the users", "plant", *users, "--output", str(tmp_path / "new"), "--repeats", "2"),
        ("is what the run was made on", "membership", "--result_folder", str(plain), "--reference_split", "train"),
        ("protects a record", "score", "--result_folder", str(repeated), "--planted", str(several)),
        ("protects a user", "score", "--result_folder", str(by_user), "--planted", str(planted)),
        ("four different words", "plant", *short, "--output", str(tmp_path / "new"), "--canaries", "40"),
        ("a column 'canary', as the file of canaries has", "plant", *named),
        ("above 0 and below 1", "mechanism", "--result_folder", str(other), "--failure", "2"),
    ):
        with pytest.raises(InputError, match=message):
            go(step, *argv)


@pytest.mark.parametrize(("epsilon", "told"), [(math.inf, True), (1.0, False)])
def test_a_trained_generator_tells_what_it_learned(dataset, tmp_path, llama, epsilon, told):
    """Without noise and clipping, its weights tell who is in; under DP they do not."""
    rng = np.random.default_rng(0)
    rows = [{"text": text, "stars": "low", "kind": "food", "author": text} for text in sentences(rng, 100)]
    write_rows(tmp_path / "own.csv", rows)
    argv = ["--dataset", str(dataset), "--output", str(tmp_path / "audit"), "--canaries", "40"]
    go("plant", *argv, "--train_data_file", str(tmp_path / "own.csv"))
    options = (
        DataOptions(str(dataset), train_data_file=str(tmp_path / "audit" / "private" / "corpus.parquet")),
        PrivacyOptions(epsilon=epsilon, delta=1e-5),
        TuningOptions(model_type=llama, full=True, max_length=32, lora_dropout=0.0),
        TrainingOptions(learning_rate=1e-2, batch_size=40, steps=150, warmup_steps=10),
        SamplingOptions(skip_sampling=True),
        RowOptions(),
        EmbeddingOptions(),
        EngineOptions(),
        RunOptions(str(tmp_path / "run")),
    )
    finetune.generate(tmp_path / "run", *options)
    planted = str(tmp_path / "audit")
    assert not go(
        "score", "--result_folder", str(tmp_path / "run"), "--planted", planted, "--failure", "1e-3", "--log_private"
    )
    weights = found(tmp_path / "run")["scores"]["weights"]
    assert (weights["auc"] > 0.9) == told


def test_membership_and_what_the_generator_knew(planted, dataset, tmp_path, llama, capsys):
    root = tmp_path / "run"
    made = augpe_options(dataset)
    augpe.generate(root, *made[:4], replace(made[4], model_type=llama), *made[5:])
    argv = ["--result_folder", str(root), "--texts", "40"]
    assert not go("membership", *argv)
    result = json.loads((root / "private" / "membership.json").read_text())
    assert result["members"] == 40 and {*result["scores"]} == {"words", "embedding", "before"}
    assert all(0 <= row["hits"] <= 1 and 0.1 < row["auc"] < 0.9 for row in result["scores"].values())
    assert "AUC" not in capsys.readouterr().out
    go("membership", *argv, "--log_private")
    assert "before" in capsys.readouterr().out


def sentences(rng: np.random.Generator, number: int) -> list[str]:
    """Of words that the tiny model knows."""
    return [" ".join(f"w{word}" for word in rng.integers(35, size=10)) for _ in range(number)]


def test_a_mechanism_that_no_attack_is_known_for_is_refused_and_not_passed_over(tmp_path):
    with contextlib.closing(Ledger(tmp_path / "run")) as ledger:
        ledger.open(unit="record", units=100, delta=1e-5, facts={})
        line = {"stage": "augpe", "name": "votes/1", "file": "1/counts.csv", "mechanism": "Laplace", "scale": 1.0}
        ledger._append("reserve", {**line, "event": {"kind": "pure_dp", "epsilon": 1.0, "count": 1}})
    with pytest.raises(PrivacyError, match="a mechanism that this version does not know, Laplace"):
        go("mechanism", "--result_folder", str(tmp_path / "run"))


def test_marginals_are_attacked_as_votes_are(tmp_path, monkeypatch, llama):
    """Without noise, their counts less what all others vote for are what the canaries that are in vote for. A canary's
    row is drawn from public values, and a generator that learnt rows is asked with the canary's own."""
    monkeypatch.setattr(rows, "RowModel", AnyRows)
    data, planted, root = table_with_rows(tmp_path / "data" / "table"), tmp_path / "audit", tmp_path / "run"
    go("plant", "--dataset", str(data), "--output", str(planted), "--canaries", "50")
    made = canaries.read(planted, DatasetSpec.read(data), "train", 1.0, attributes=True)
    assert {*made.canaries.columns} == {"city", "price"} and len({*made.canaries.columns["city"].tolist()}) == 3
    given = {"train_data_file": str(planted / "private" / "corpus.parquet"), "reference_split": None}
    random = {"epochs": 1, "num_seed_samples": 20, "L": 2, "select_syn_mode": "random"}
    augpe.generate(root, *augpe_options(data, data=given, privacy={"epsilon": math.inf}, evolution=random))
    book, config = Ledger(root, protected=False, read_only=True), RunFolder.existing(root).config()
    records, mine = votes._in_marginals(config, made, lambda name: HashEncoder())
    [release] = [x for x in book.reservations() if x.name == "marginals"]
    noisy = noisy_histogram.counts(book.stored("marginals"))
    left = noisy - votes.sums(release.mechanism, records[: made.others], None, len(noisy))
    own = mine[made.there[made.number]]
    assert len(own) > 5 and np.array_equal(left, votes.sums(release.mechanism, own, None, len(noisy)))
    argv = ["--planted", str(planted), "--failure", "1e-3"]
    go("score", "--result_folder", str(root), *argv)
    assert "votes" in found(root)["scores"]
    trained, training = tmp_path / "trained", {"train_data_file": given["train_data_file"]}
    finetune.generate(trained, *finetune_options(data, llama, data=training, privacy={"noise": 5.0}))
    assert not go("score", "--result_folder", str(trained), *argv)
    assert {"votes", "weights"} <= {*found(trained)["scores"]}
