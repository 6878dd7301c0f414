"""Aug-PE on the samples of a generator that was trained in the same folder: one ledger, one epsilon."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest

from dpsda.errors import InputError
from dpsda.instruct.options import ResampleOptions
from dpsda.options import ComparedDataOptions, EmbeddingOptions, PrivacyOptions
from dpsda.privacy import certificate
from dpsda.privacy.errors import LedgerError
from dpsda.privacy.ledger import Ledger
from dpsda.routes import augpe, finetune, resample
from dpsda.runs import read_csv
from dpsda.shares import allocate
from tests.conftest import options as augpe_options
from tests.conftest import use
from tests.finetune.made import options as finetune_options
from tests.kills import Killer, stored_votes

ROOT = Path(__file__).parents[1]
EPSILON, NOISE = {"epsilon": 6.0}, {"noise": 3.0}  # the latter takes no calibration


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    use(monkeypatch)


def train(root, dataset, model, privacy=NOISE) -> None:
    finetune.generate(root, *finetune_options(dataset, model, privacy=privacy, training={"histogram_noise": 3.0}))


def go_on(root, dataset, privacy=NOISE, **evolution) -> pd.DataFrame:
    evolution = {"first_texts": "samples", "epochs": 1, "num_seed_samples": 24, "L": 2, "init_L": 2, **evolution}
    augpe.generate(root, *augpe_options(dataset, privacy=privacy, evolution=evolution))
    return read_csv(root / "release" / "synthetic.csv")


def book(root) -> Ledger:
    return Ledger(root, read_only=True)


def test_one_ledger_holds_the_training_and_the_votes(tmp_path, dataset, llama, capsys):
    train(tmp_path, dataset, llama, EPSILON)
    samples = pd.concat(pd.read_parquet(p) for p in sorted((tmp_path / "state" / "samples").glob("*.parquet")))
    texts = go_on(tmp_path, dataset, EPSILON)
    printed = capsys.readouterr().out
    assert "start: 24 samples of the generator that was trained here" in printed
    first = read_csv(tmp_path / "0" / "samples.csv")
    assert set(first.id) <= set(samples.id) and first.text.is_unique
    assert (
        dict(zip(first.text, first.stars, strict=True)).items()
        <= dict(zip(samples.text, samples.stars, strict=True)).items()
    )
    assert list(texts.columns) == ["id", "parent_id", "text", "stars", "kind"]
    facts = certificate.verify(tmp_path)
    assert (
        5.9 < facts["epsilon"] <= 6
        and "samples of a fine-tuned generator" in (tmp_path / "release" / "README.md").read_text()
    )
    stages = [x.stage for x in book(tmp_path).reservations()]
    assert stages == ["finetune"] * (len(stages) - 1) + ["augpe"]
    assert [x.name for x in book(tmp_path).reservations()][-2:] == ["label_counts", "votes/1"]  # not counted twice

    head = book(tmp_path).head
    train(tmp_path, dataset, llama, EPSILON)
    assert "a later stage went on with its texts" in capsys.readouterr().out
    assert go_on(tmp_path, dataset, EPSILON).equals(texts) and "is complete" in capsys.readouterr().out
    assert book(tmp_path).head == head

    resample.run(
        ComparedDataOptions(str(dataset)),
        PrivacyOptions(noise=20.0),
        ResampleOptions(str(tmp_path), num_clusters=3, num_samples=6),
        EmbeddingOptions(),
    )
    kept = read_csv(tmp_path / "release" / "synthetic.csv")
    assert set(kept.id) <= set(texts.id) and 6 < certificate.verify(tmp_path)["epsilon"] < 7


def test_one_vote_on_all_samples_asks_no_model(tmp_path, dataset, llama, monkeypatch):
    train(tmp_path, dataset, llama)
    schedule = {"num_samples_schedule": [30, 12], "init_L": 1, "L": 1}
    monkeypatch.setattr("apis.echo.EchoAPI.generate", lambda *args: pytest.fail("a model was asked"))
    texts = go_on(tmp_path, dataset, **schedule)
    assert 6 <= len(texts) <= 12 and set(texts.id) <= set(read_csv(tmp_path / "0" / "samples.csv").id)


def test_prompts_fill_what_samples_leave(tmp_path, dataset, llama, capsys):
    train(tmp_path, dataset, llama)
    go_on(tmp_path, dataset, first_texts="both", num_seed_samples=90)
    first = read_csv(tmp_path / "0" / "samples.csv")
    drawn = first.id.str.startswith("s-")
    assert len(first) == 90 and first.id.is_unique and 0 < drawn.sum() < 90
    assert f"start: {drawn.sum()} samples of" in (said := capsys.readouterr().out)
    assert f"start: {90 - drawn.sum()} texts from prompts alone" in said
    wanted = allocate(read_csv(tmp_path / "label_counts.csv").noisy.astype(float).to_numpy(), 90)
    assert sorted(first.groupby(["stars", "kind"]).size()) == sorted(wanted[wanted > 0])
    assert certificate.verify(tmp_path)


def test_labels_from_the_votes(tmp_path, dataset, llama):
    train(tmp_path, dataset, llama)
    texts = go_on(tmp_path, dataset, labels_from="votes", epochs=2)
    first, counts = (read_csv(tmp_path / name) for name in ("state/candidates-1.csv", "1/counts.csv"))
    assert len(counts) == 6 * len(first) and counts.groupby("candidate_id").size().eq(6).all()
    one = counts.assign(noisy=counts.noisy.astype(float)).groupby("candidate_id").noisy.sum()
    kept = read_csv(tmp_path / "1" / "samples.csv")
    assert one[kept.id].mean() > one.drop(kept.id).mean()
    was = dict(zip(first.id, first.stars, strict=True))
    assert any(was[name] != stars for name, stars in zip(kept.id, kept.stars, strict=True)) and len(texts)
    assert certificate.verify(tmp_path)


def test_what_is_not_there_is_said_before_anything_is_spent(tmp_path, dataset, llama):
    with pytest.raises(InputError, match="labels_from votes: --select_syn_mode random takes none"):
        go_on(tmp_path / "new", dataset, labels_from="votes", select_syn_mode="random")
    with pytest.raises(InputError, match=r"goes on with a finished run of `dpsda finetune`, and none is here"):
        go_on(tmp_path / "new", dataset)
    assert not (tmp_path / "new" / "state" / "augpe.json").exists()
    root = tmp_path / "run"
    train(root, dataset, llama)
    spent = book(root).epsilon()
    with pytest.raises(InputError, match="of the 90 first texts that are wanted"):
        go_on(root, dataset, num_seed_samples=90)
    assert book(root).epsilon() == spent and not (root / "0").exists()
    go_on(root, dataset, select_syn_mode="random")  # and a command that was mended is no other configuration
    train(root, dataset, llama)
    assert read_csv(root / "0" / "samples.csv").shape == read_csv(root / "release" / "synthetic.csv").shape
    shutil.rmtree(root)
    train(root, dataset, llama)
    shard = next((root / "state" / "samples").glob("*.parquet"))
    pd.read_parquet(shard).assign(text="from elsewhere").to_parquet(shard, index=False)
    with pytest.raises(LedgerError, match="not the file that the run made"):
        go_on(root, dataset)
    assert book(root).epsilon() == spent


def test_killed_at_ten_random_moments(tmp_path, dataset, llama):
    root, trained = tmp_path / "run", tmp_path / "trained"
    train(trained, dataset, llama)
    again = f"{str(trained)!r}, {str(root)!r}"
    killer = Killer(
        "from tests.test_composed import go_on, pytest, use; use(pytest.MonkeyPatch())",
        f"Path({str(root)!r}).exists() or shutil.copytree({again}); go_on(root, Path({str(dataset)!r}), epochs=2)",
        root,
    )
    unkilled = certificate.verify(root)["epsilon"]
    for _ in range(10):
        shutil.rmtree(root)
        shutil.copytree(trained, root)
        assert killer.kill() in (0, signal.SIGKILL)
        stored = stored_votes(root)
        texts = go_on(root, dataset, epochs=2)
        assert stored.items() <= stored_votes(root).items()
        assert certificate.verify(root)["epsilon"] == unkilled and len(texts)
    killer.close()
