"""resample.py on whole runs, on stand-ins for the models: what it releases, what it costs, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpsda.dry_run import HashEncoder
from dpsda.errors import InputError
from dpsda.evaluation.options import SubjectOptions
from dpsda.evaluation.subject import Subject
from dpsda.instruct.options import ResampleOptions
from dpsda.instruct.resampling import total_variation
from dpsda.options import ComparedDataOptions, EmbeddingOptions, PrivacyOptions
from dpsda.privacy import __main__ as privacy_command
from dpsda.privacy import accounting, certificate
from dpsda.privacy.accounting import DiscreteGaussian, SubsampledGaussian
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.ledger import Ledger
from dpsda.routes import augpe, resample
from dpsda.runs import read_csv
from tests import forks
from tests.conftest import number, use, write_rows
from tests.conftest import options as augpe_options

ROOT = Path(__file__).parents[1]


class TopicEncoder(HashEncoder):
    """One direction for each of four topics, by the first that a text names, and a little of the text itself."""

    TOPICS = ("sea", "war", "love", "food")

    def embed(self, texts, *, private, desc=""):
        own = super().embed(texts, private=private, desc=desc)
        topic = [next((i for i, word in enumerate(self.TOPICS) if word in text), 4) for text in texts]
        return (np.eye(16, dtype=np.float32)[topic] + 0.1 * own).astype(np.float32)


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    use(monkeypatch, main_api)


def main_api():
    from apis.echo import EchoAPI

    return EchoAPI()


@pytest.fixture
def run(tmp_path, dataset) -> Path:
    """An Aug-PE run of 24 texts that spent two votes and the label counts."""
    root = tmp_path / "run"
    settings = {"privacy": {"noise": 3.0}, "evolution": {"epochs": 2, "L": 2}}
    augpe.generate(root, *augpe_options(dataset, **settings))
    return root


def options(root, dataset, *, data=None, privacy=None, **more):
    return (
        ComparedDataOptions(str(dataset), **(data or {})),
        PrivacyOptions(**(privacy or {"noise": 2.0})),
        ResampleOptions(str(root), **{"num_clusters": 4, "num_samples": 10, **more}),
        EmbeddingOptions(),
    )


def go(root, dataset, **settings) -> pd.DataFrame:
    resample.run(*options(root, dataset, **settings))
    return read_csv(next(path for path in Path(root).glob("**/release/synthetic.csv")))


def book(root) -> Ledger:
    return Ledger(Path(root), read_only=True)


def write_texts(path: Path, topics: dict[str, int], column: str = "text") -> Path:
    texts = [f"About {topic}, number {i}." for topic, count in topics.items() for i in range(count)]
    pd.DataFrame({column: texts}).to_csv(path, index=False)
    return path


# what it leaves


def test_a_run_is_resampled_within_one_ledger(run, dataset, capsys):
    before = read_csv(run / "release" / "synthetic.csv")
    spent = book(run).events()
    capsys.readouterr()
    texts = go(run, dataset, data={"reference_split": "test"})
    assert len(texts) == 10 and set(texts.id) < set(before.id) and list(texts.columns) == list(before.columns)
    merged = texts.merge(before, on="id")
    assert (merged.text_x == merged.text_y).all() and (merged.kind_x == merged.kind_y).all()
    assert read_csv(run / "state" / "before_resampling.csv").equals(before)
    facts = certificate.verify(run)
    assert privacy_command.main(["verify", str(run)]) == 0
    expected = accounting.epsilon([*spent, DiscreteGaussian(2.0, 1)], facts["delta"])
    assert facts["epsilon"] == accounting.round_up(expected) and len(spent) == 3
    assert [release.stage for release in book(run).reservations()] == ["augpe"] * 3 + ["resample"]
    about = json.loads((run / "release" / "certificate.json").read_text())["about"]
    assert about["method"] == "Aug-PE (Xie et al. 2024), resampled" and about["iterations"] == "2"
    assert "label counts" in facts["facts"]["labels"]  # what the first stage said
    counts, clusters = (read_csv(run / "resample" / f"{name}.csv") for name in ("counts", "clusters"))
    assert list(counts.columns) == ["cluster", "noisy"] and len(counts) == 4
    assert list(clusters.columns) == ["cluster", "candidates", "noisy", "asked", "given", "nearest"]
    assert clusters.candidates.astype(int).sum() == 24 and clusters.given.astype(int).sum() == 10
    assert set(clusters.nearest) <= set(before.text)
    printed = capsys.readouterr().out
    assert re.search(r"total variation to the noisy histogram: 0\.\d+ before, 0\.\d+ after", printed)
    assert "resampled: 10 of 24 texts asked for, 10 kept" in printed and "total variation to test texts" in printed
    assert "private texts" not in printed and facts["statement"] in printed
    assert (run / "private" / "resample_distances.csv").exists()
    assert list(read_csv(run / "resample" / "distances.csv").against) == ["test"]
    exact = read_csv(run / "private" / "cluster_counts.csv").records.astype(int)
    assert exact.sum() == 120 and np.abs(exact - counts.noisy.astype(float)).max() < 20


def test_other_sizes_seeds_and_caps_are_free(run, dataset):
    texts = [go(run, dataset)]
    spent, counts = book(run).charges(), (run / "resample" / "counts.csv").read_bytes()
    for more in ({"seed": 1}, {"num_samples": 24}, {"ratio_cap": 1.0}, {"draws": 3}, {"privacy": {"noise": 5.0}}):
        texts.append(go(run, dataset, **more))
        assert certificate.verify(run)["epsilon"] and book(run).charges() == spent
        assert (run / "resample" / "counts.csv").read_bytes() == counts
    assert set(texts[1].id) != set(texts[0].id) and len(texts[2]) == 24
    assert texts[4].equals(texts[0])
    others = [read_csv(run / "resample" / f"draw-{seed}.csv") for seed in (1, 2)]
    assert others[0].equals(texts[1]) and len(others[1]) == 10
    assert go(run, dataset).equals(texts[0])


def test_what_decides_the_histogram_stays(run, dataset, tmp_path):
    go(run, dataset)
    other = run / "1" / "samples.csv"
    for match, more in [
        ("num_clusters was 4, now 5", {"num_clusters": 5}),
        ("pca_variance was 0.9, now 1.0", {"pca_variance": 1.0}),
        ("drawn over other texts", {"synthetic_file": str(other)}),
        ("delta differs", {"privacy": {"noise": 2.0, "delta": 1e-3}}),
        ("unit differs", {"privacy": {"noise": 2.0, "privacy_unit": "user"}}),
        ("data differs", {"data": {"private_share": 0.5}, "privacy": {"noise": 2.0}}),
        ("is spent", {"privacy": {"epsilon": 0.5}}),
    ]:
        refused(match if match != "data differs" else "differs", run, dataset, **more)
    certificate.verify(run)


def test_a_budget_is_for_the_whole_run(run, dataset, capsys):
    refused("not enough for what is still to be released", run, dataset, privacy={"epsilon": 1.0})
    certificate.verify(run)
    spent = book(run).epsilon()
    go(run, dataset, privacy={"epsilon": 4.0})
    facts = certificate.verify(run)
    assert spent < 3 and 3.99 < facts["epsilon"] <= 4 and facts["budget"] == 4
    assert f"after epsilon {accounting.round_up(spent)} of this run" in capsys.readouterr().out


def test_a_delta_that_the_run_was_given_holds(tmp_path, dataset):
    settings = {"privacy": {"noise": 3.0, "delta": 1e-4}, "evolution": {"epochs": 1}}
    augpe.generate(tmp_path / "run", *augpe_options(dataset, **settings))
    go(tmp_path / "run", dataset)
    assert certificate.verify(tmp_path / "run")["delta"] == 1e-4


def test_the_first_stage_may_go_on(run, dataset):
    """Its own command certifies its own texts again, at what is spent by then; more iterations are other texts."""
    first = go(run, dataset)
    spent = certificate.verify(run)["epsilon"]
    settings = {"privacy": {"noise": 3.0}, "evolution": {"epochs": 2, "L": 2}}
    augpe.generate(run, *augpe_options(dataset, **settings))
    assert certificate.verify(run)["epsilon"] == spent and len(read_csv(run / "release" / "synthetic.csv")) == 24
    assert go(run, dataset).equals(first)
    settings["evolution"]["epochs"] = 3
    augpe.generate(run, *augpe_options(dataset, **settings))
    refused("drawn over other texts", run, dataset)
    certificate.verify(run)


def test_users(tmp_path, dataset):
    settings = {"privacy": {"noise": 3.0, "privacy_unit": "user"}, "evolution": {"epochs": 1}}
    augpe.generate(tmp_path / "run", *augpe_options(dataset, **settings))
    go(tmp_path / "run", dataset, privacy={"noise": 2.0, "privacy_unit": "user"})
    facts = certificate.verify(tmp_path / "run")
    assert facts["unit"] == "user" and facts["accountant"] == "RDP"
    assert [row["mechanism"] for row in facts["mechanisms"]] == ["UserHistogram"] * 3
    for path in (tmp_path / "run").rglob("*.csv"):
        assert "private" in path.parts or not number("120", path.read_text())


def test_without_noise_everything_stays_private(tmp_path, dataset, capsys):
    augpe.generate(tmp_path / "run", *augpe_options(dataset, privacy={"epsilon": float("inf")}))
    capsys.readouterr()
    texts = go(tmp_path / "run", dataset, privacy={"epsilon": float("inf")}, data={"reference_split": "test"})
    assert len(texts) == 10 and [path.name for path in (tmp_path / "run").iterdir()] == ["private"]
    assert certificate.verify(tmp_path / "run")["epsilon"] == "inf"
    printed = capsys.readouterr().out
    assert "nothing is protected" in printed and "votes" not in printed and "variation" not in printed
    refused("with and without noise", tmp_path / "run", dataset)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["private"]


def test_shards_and_public_files(tmp_path, dataset, run):
    """A folder of parquet files, as sampling leaves them; and a file from elsewhere on a folder of its own."""
    shards = run / "state" / "samples"
    shards.mkdir()
    for part in range(3):
        texts = [f"Shard {part}, text {i}." for i in range(20)] + ["", None]
        frame = pd.DataFrame({"text": texts, "stars": "low", "kind": "food", "other": 1})
        frame.to_parquet(shards / f"part-{part:05}.parquet")
    (shards / "manifest.json").write_text("{}")
    refused("not what the run made", run, dataset)
    with contextlib.closing(Ledger(run)) as ledger:
        ledger.note("finetune", shards)
    texts = go(run, dataset)
    assert list(texts.columns) == ["id", "text", "stars", "kind"] and texts.text.str.startswith("Shard").all()
    assert not (run / "state" / "before_resampling.csv").exists()
    found = Subject.of(SubjectOptions(str(run)))
    assert list(found.files) == ["0", "1", "2", "before", "release"] and found.protected
    assert found.chosen(["last"]) == ["0", "release"]
    assert len(found.read("before").texts) == 66 and len(found.read("release").texts) == 10

    given = write_texts(tmp_path / "given.csv", {"sea": 30})
    fresh = tmp_path / "fresh"
    refused("--synthetic_public", fresh, dataset, synthetic_file=str(given))
    refused("--synthetic_public", run, dataset, synthetic_file=str(given))
    assert not (fresh / "state" / "ledger.jsonl").exists()
    texts = go(fresh, dataset, synthetic_file=str(given), synthetic_public=True)
    facts = certificate.verify(fresh)
    assert len(texts) == 10 and "no private label" in facts["facts"]["labels"]
    assert "owner's word" in (fresh / "release" / "README.md").read_text()
    assert facts["epsilon"] == accounting.round_up(accounting.epsilon([DiscreteGaussian(2.0, 1)], facts["delta"]))
    assert Subject.of(SubjectOptions(str(fresh))).spec.name == "made_up"


def test_sets_of_a_resampled_run(run, dataset):
    go(run, dataset)
    found = Subject.of(SubjectOptions(str(run), synthetic_iteration=["before", "release"]))
    assert list(found.files) == ["0", "1", "2", "before", "release"]
    assert found.read("before").digest == found.read("2").digest and len(found.read("release").texts) == 10


# what it is for


def test_the_clusters_move_towards_the_private_ones(tmp_path, dataset, monkeypatch, capsys):
    """Private texts are mostly on one topic, synthetic ones evenly on three and hardly ever on the fourth. With votes
    that have nothing to do with the records, the texts do not come near: so the check can fail."""
    from dpsda.instruct import clustering

    use(monkeypatch, encoder=TopicEncoder)
    # random starts of k-means may put two centres on one topic: these are on the four
    monkeypatch.setattr(clustering, "fit", lambda rows, *settings: rows[[0, 100, 200, 300]].copy())
    shares = {"sea": 700, "war": 200, "love": 60, "food": 40}
    texts = [f"On {topic} {i}" for topic, count in shares.items() for i in range(count)]
    rows = [{"text": text, "stars": "low", "kind": "film", "author": "a"} for text in texts]
    write_rows(dataset / "train.csv", rows)
    given = write_texts(tmp_path / "given.csv", {"sea": 100, "war": 100, "love": 100, "food": 2})
    public = {"synthetic_file": str(given), "synthetic_public": True, "num_samples": 100}

    def distance(name: str) -> float:
        kept = go(tmp_path / name, dataset, privacy={"noise": 4.0}, **public)
        topics = kept.text.str.extract(r"About (\w+)")[0]
        return total_variation(np.array([(topics == topic).sum() for topic in shares]), np.array(list(shares.values())))

    assert distance("honest") < 0.06
    noted = read_csv(tmp_path / "honest" / "private" / "resample_distances.csv").iloc[0]
    assert float(noted.before) == pytest.approx(0.7 - 100 / 302 + 0.04 - 2 / 302, abs=1e-3)
    assert float(noted.after) < 0.06
    printed = capsys.readouterr().out
    assert "missed by the generator: 1 of 4 clusters" in printed and "there are 2, like: About food" in printed
    monkeypatch.setattr(clustering, "votes", lambda private, *settings: np.arange(len(private))[:, None] % 4)
    assert distance("unrelated votes") > 0.3


def test_the_published_budget():
    """The paper's training (q 4096 / 180,000, 439 steps, delta 5e-7) and histogram (sigma 10) in one composition: the
    paper says 5.98, of a training at 5.94."""

    def together(noise: float) -> float:
        return accounting.epsilon([SubsampledGaussian(noise, 4096 / 180_000, 439), DiscreteGaussian(10.0, 1)], 5e-7)

    assert together(0.81) == pytest.approx(5.9086, abs=2e-3) and together(0.82) == pytest.approx(5.7317, abs=2e-3)
    assert accounting.epsilon([DiscreteGaussian(10.0, 1)], 5e-7) == pytest.approx(0.4125, abs=1e-3)


def test_one_seed_does_not_repeat_the_noise(tmp_path, dataset):
    given = write_texts(tmp_path / "given.csv", {"sea": 60})
    counts = []
    for name in ("one", "two"):
        more = {"synthetic_file": str(given), "synthetic_public": True, "num_clusters": 12, "seed": 5}
        go(tmp_path / name, dataset, privacy={"noise": 20.0}, **more)
        counts.append(read_csv(tmp_path / name / "resample" / "counts.csv").noisy.tolist())
    centres = [(tmp_path / name / "state" / "centres.safetensors").read_bytes() for name in ("one", "two")]
    assert counts[0] != counts[1] and centres[0] == centres[1]


# crashes

KILLER = """
import functools, os, random, shutil, signal, sys, time, traceback
from pathlib import Path
import sklearn.cluster, sklearn.decomposition, torch, safetensors.numpy
import dpsda.privacy.ledger
from dpsda import embedding
from dpsda.dry_run import HashEncoder
from dpsda.routes import resample
from dpsda.privacy import accounting, certificate
from dpsda.privacy.ledger import Ledger
from tests.test_resample import options
embedding.Encoder = lambda *a, **more: HashEncoder()
source, work, dataset = map(Path, {paths!r})

def once(folder, kill_at=None, slow=0.0):
    '''Resample in a process of its own, killed at its `kill_at`-th write, or never; it may be killed from outside.'''
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    count, sync = 0, os.fsync
    def fsync(handle):
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(slow)
        sync(handle)
    os.fsync = fsync
    sys.stdout = open(os.devnull, "w")
    try:
        resample.run(*options(folder, dataset, draws=2, privacy={{"noise": 1.2}}))  # no cross-check: it takes long
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

def wait(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def finish(folder):
    assert wait(once(folder)) == 0
    lines = Ledger(folder, read_only=True).lines
    kinds = [line["type"] for line in lines if line.get("stage") == "resample"]
    assert kinds.count("reserve") == 1 and kinds.count("commit") == 1, kinds
    return certificate.verify(folder)["epsilon"]

shutil.copytree(source, work / "whole")
expected = finish(work / "whole")
exact = functools.cache(accounting.epsilon)  # the same compositions again and again: known before the forks
accounting.epsilon = lambda events, delta: exact(tuple(events), delta)
Ledger(source, read_only=True).epsilon(), Ledger(work / "whole", read_only=True).epsilon()
at = 0
while True:  # at every write, each on a fresh copy
    at += 1
    shutil.copytree(source, work / f"at-{{at}}")
    code = wait(once(work / f"at-{{at}}", at))
    assert code in (0, -signal.SIGKILL)
    counts = work / f"at-{{at}}" / "resample" / "counts.csv"
    stored = counts.read_bytes() if counts.exists() else None
    assert finish(work / f"at-{{at}}") == expected
    assert stored is None or counts.read_bytes() == stored
    if code == 0:
        break
shutil.copytree(source, work / "random")
draw, kills = random.Random(0), 0
for _ in range(10):  # at random moments, each on what the one before left
    child = once(work / "random", slow=0.02)
    time.sleep(draw.uniform(0.02, 0.6))
    os.kill(child, signal.SIGKILL)
    kills += wait(child) == -signal.SIGKILL
assert finish(work / "random") == expected
print(at - 1, kills, expected)
"""


def test_killed_at_every_write_and_at_random_moments(tmp_path, dataset, run):
    """SIGKILL before each write reaches the disk, and ten times at random: the same command finishes at the same spend,
    and a stored histogram is never drawn again."""
    work = tmp_path / "work"
    work.mkdir()
    done = forks.run(code=KILLER.format(paths=tuple(map(str, (run, work, dataset)))), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    writes, kills, _ = done.stdout.split()
    assert int(writes) > 20 and int(kills) >= 5, done.stdout


# leaks


@pytest.mark.parametrize("unit", ["record", "user"])
def test_no_private_text_leaves_the_private_folder(tmp_path, dataset, unit, capfd, monkeypatch):
    draw = random.Random(1)
    markers = [f"{draw.getrandbits(128):032x}" for _ in range(121)]
    rows = [
        {"text": f"A film {m}.", "stars": ("low", "high")[i % 2], "kind": "film", "author": markers[120 - i]}
        for i, m in enumerate(markers)
    ]
    write_rows(dataset / "train.csv", rows)
    pattern = re.compile("|".join(markers).encode())
    root, private = tmp_path / "run", {"noise": 2.0, "privacy_unit": unit}
    augpe.generate(root, *augpe_options(dataset, privacy=private, evolution={"epochs": 1}))
    go(root, dataset, privacy=private, data={"reference_split": "test"})
    written = [p for p in root.rglob("*") if p.is_file() and "private" not in p.relative_to(root).parts]
    assert len(written) > 10 and not any(pattern.search(path.read_bytes()) for path in written)
    shown = capfd.readouterr()
    assert not pattern.search((shown.out + shown.err).encode())


# bad input


def refused(match, root, dataset, **settings):
    with pytest.raises((InputError, PrivacyError), match=match) as error:
        go(root, dataset, **settings)
    assert "\n" not in str(error.value)


class BrokenEncoder(HashEncoder):
    def embed(self, texts, *, private, desc=""):
        rows = super().embed(texts, private=private, desc=desc)
        rows[0, 0] = np.nan
        return rows


def test_bad_input_is_one_line(run, dataset, tmp_path, monkeypatch):
    head = book(run).head
    bad = tmp_path / "bad.csv"
    for match, more in [
        ("only 24 synthetic texts", {"num_clusters": 25}),
        ("--num_clusters has to be at least 2", {"num_clusters": 1}),
        ("only 24 synthetic texts", {"num_samples": 25}),
        ("--num_samples has to be at least 1", {"num_samples": 0}),
        ("--ratio_cap has to be at least 1", {"ratio_cap": 0.5}),
        ("--ratio_cap has to be at least 1", {"ratio_cap": float("nan")}),
        ("--pca_variance", {"pca_variance": 0.0}),
        ("there is no such file", {"synthetic_file": str(bad)}),
        (
            "lies in a private folder",
            {"synthetic_file": str(run / "private" / "dropped.csv"), "synthetic_public": True},
        ),
        ("is replaced by what comes out", {"synthetic_file": str(run / "release" / "synthetic.parquet")}),
        ("not enough", {"privacy": {"epsilon": 0.1}}),
    ]:
        refused(match, run, dataset, **more)
    for match, content in [
        ("no column 'text'", b"a,b\n1,2\n"),
        ("holds no text", b"id,text\n1,\n2,  \n"),
        ("holds no text", b"text\n"),
        ("the file is empty", b""),
        ("cannot be read as a table", b"text\n\xff\xfe\n"),
        ("cannot be read as a table", b"text,id\n1,2,3\n"),
    ]:
        bad.write_bytes(content)
        refused(match, run, dataset, synthetic_file=str(bad), synthetic_public=True)
    (tmp_path / "empty").mkdir()
    refused("no parquet file", run, dataset, synthetic_file=str(tmp_path / "empty"), synthetic_public=True)
    (tmp_path / "empty" / "part-0.parquet").write_bytes(b"PAR1")
    refused("cannot be read as a table", run, dataset, synthetic_file=str(tmp_path / "empty"), synthetic_public=True)
    bad.write_text("text\n" + "the same\n" * 30)
    refused("only 1 of the synthetic texts differ", run, dataset, synthetic_file=str(bad), synthetic_public=True)
    refused("no run is here", tmp_path / "nowhere", dataset)
    assert not (tmp_path / "nowhere").exists()
    use(monkeypatch, encoder=BrokenEncoder)
    refused("NaN, infinity or a number too large", run, dataset)
    assert book(run).head == head  # nothing of all this is in the ledger
    certificate.verify(run)
    (run / "release" / "certificate.json").unlink()
    refused("not finished", run, dataset)


def test_a_private_vector_that_is_not_finite_has_no_vote(tmp_path, dataset, monkeypatch):
    """The record is left out on its own; to refuse the run would tell of it."""

    class BrokenForOne(HashEncoder):
        def embed(self, texts, *, private, desc=""):
            rows = super().embed(texts, private=private, desc=desc)
            if private:
                rows[5] = np.inf
            return rows

    use(monkeypatch, encoder=BrokenForOne)
    given = write_texts(tmp_path / "given.csv", {"sea": 60})
    go(tmp_path / "run", dataset, synthetic_file=str(given), synthetic_public=True)
    assert read_csv(tmp_path / "run" / "private" / "cluster_counts.csv").records.astype(int).sum() == 119


def test_a_cluster_without_candidates_and_many_votes(tmp_path, dataset, monkeypatch, capsys):
    """Its texts are asked of the others, and the report names the nearest text that there is."""
    from dpsda.instruct import clustering

    def far(rows, count, variance, seed):  # two centres that are texts, and one that is near to private ones only
        return np.concatenate([rows[:2], np.eye(16, dtype=np.float32)[[1]]])

    monkeypatch.setattr(clustering, "fit", far)
    use(monkeypatch, encoder=TopicEncoder)
    rows = [{"text": f"War {i}, war", "stars": "low", "kind": "film", "author": "a"} for i in range(100)]
    write_rows(dataset / "train.csv", rows)
    given = write_texts(tmp_path / "given.csv", {"sea": 5})
    more = {"synthetic_file": str(given), "synthetic_public": True, "num_samples": 3, "num_clusters": 3}
    texts = go(tmp_path / "run", dataset, **more)
    assert len(texts) == 3 and read_csv(tmp_path / "run" / "resample" / "clusters.csv").candidates[2] == "0"
    assert "ask for 3 texts, there are 0, like: About sea" in capsys.readouterr().out


def test_the_command_line(run, dataset, tmp_path):
    base = [sys.executable, str(ROOT / "resample.py"), "--dataset", str(dataset), "--result_folder", str(run)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for argv, code, said in [
        (["--help"], 0, "--ratio_cap"),
        (["--noise", "2", "--dry_run"], 0, f"would resample the texts of {run}"),
        (["--noise", "2", "--num_cluster", "3"], 2, "did you mean --num_clusters?"),
        ([], 2, "--epsilon or --noise"),
        (["--noise", "2", "--synthetic_file", "no.csv"], 2, "no.csv: there is no such file"),
        (["--noise", "2", "--num_clusters", "25"], 2, "only 24 synthetic texts"),
    ]:
        done = subprocess.run([*base, *argv], capture_output=True, text=True, env=environment)
        assert done.returncode == code and said in done.stdout + done.stderr, done.stderr
        if code:
            assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_lost_centre_or_count_is_refused(run, dataset):
    go(run, dataset)
    path = run / "state" / "centres.safetensors"
    good = path.read_bytes()
    path.write_bytes(b"x" * 20)
    refused("centres.safetensors: not the file that the run made", run, dataset)
    path.write_bytes(good)
    shutil.copy(run / "resample" / "clusters.csv", run / "resample" / "counts.csv")
    refused("not the result that the ledger committed", run, dataset)
