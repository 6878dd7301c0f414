"""Runs on Ray workers: they give what one process gives, and a killed worker or driver loses nothing."""

from __future__ import annotations

import dataclasses
import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import ray

from apis.api import Prompt
from dpsda import cluster, embedding
from dpsda.augpe.ballot import Ballot
from dpsda.augpe.voting import vote
from dpsda.cluster import pool
from dpsda.cluster.worker import Format, quiet
from dpsda.data import DatasetSpec, load
from dpsda.embedding import Encoder
from dpsda.errors import InputError
from dpsda.options import DataOptions, EmbeddingOptions, EngineOptions
from dpsda.privacy import certificate
from dpsda.privacy.ledger import Ledger
from dpsda.routes import augpe, finetune
from tests.conftest import options
from tests.finetune import made
from tests.kills import ray_workers
from tests.ray_stand_ins import LocalVectors, SlowEcho, broken, deadly, faulty

ROOT = Path(__file__).parents[1]
ENGINE = EngineOptions("ray", ray_workers=2)
ENCODER = EmbeddingOptions()


@pytest.fixture(scope="module", autouse=True)
def started():
    """A Ray cluster on this machine with places for four workers."""
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory):
    """An empty cache of embeddings, with the assets that are there."""
    from dpsda.assets import home

    assets, folder = home() / "assets", tmp_path_factory.mktemp("home")
    (folder / "assets").symlink_to(assets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPSDA_HOME", str(folder))
        yield folder


def start(dataset, corpus):
    return cluster.start(ENGINE, DataOptions(str(dataset)), corpus, dataset / "fingerprint.key", ENCODER, "cpu")


@pytest.fixture(autouse=True)
def no_workers_left():
    yield
    gc.collect()  # workers end with what holds them


@pytest.fixture
def corpus(dataset):
    return load(DatasetSpec.read(str(dataset)), "train")


@pytest.fixture
def quick_encoder(monkeypatch):
    """For what is no matter of the encoder: workers that import no library of models."""
    monkeypatch.setattr(embedding, "Encoder", LocalVectors)


def kill_one(draw: random.Random) -> int:
    """SIGKILL of one of the workers; how many were killed."""
    for pid in draw.sample(there := ray_workers(os.getpid()), min(1, len(there))):
        os.kill(pid, signal.SIGKILL)
        return 1
    return 0


def test_a_run_is_the_one_of_a_single_process(tmp_path, dataset, llama, capsys, own_home):
    """Without noise, which has no seed: the same prompts, answers, votes and texts."""
    done = {}
    for name, engine in (("serial", {}), ("ray", {"engine": "ray", "ray_workers": 2})):
        made = list(options(dataset, privacy={"epsilon": float("inf")}, evolution={"epochs": 2}, engine=engine))
        made[4] = dataclasses.replace(made[4], model_type=llama, device="cpu", dtype="float32", length=12)
        augpe.generate(tmp_path / name, *made)
        done[name] = {
            p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.csv") if p.is_file()
        }
    assert done["serial"] == done["ray"] and len(done["ray"]) >= 7
    assert "ray: 2 workers, each with 2 CPU cores" in capsys.readouterr().out
    assert not list((tmp_path / "ray" / "private" / "votes").iterdir())


def test_public_texts_are_embedded_by_the_workers_and_private_ones_are_not(dataset, corpus, monkeypatch):
    encoder = cluster.RayEncoder(start(dataset, corpus))
    local, here = Encoder(ENCODER.feature_extractor, device="cpu", dtype=encoder.encoder.dtype, cache=False), []
    embed = encoder.encoder._embed
    monkeypatch.setattr(encoder.encoder, "_embed", lambda texts, progress: here.extend(texts) or embed(texts, progress))
    for private in (False, True):
        texts = [f"{'private' if private else 'public'} text {i % 90}" for i in range(100)]
        assert (encoder.embed(texts, private=private) == local.embed(texts, private=private)).all()
        assert here == (texts[:90] if private else [])


def test_what_goes_through_ray_is_public(tmp_path, dataset, corpus, monkeypatch, quick_encoder):
    """Every argument and every result of a vote: no private text, no vector, no vote."""
    workers, seen = start(dataset, corpus), []
    workers_map = workers.map

    def watched(method, tasks, *, owned=False):
        for task in tasks:
            seen.append(task())
        for number, item in workers_map(method, tasks, owned=owned):
            seen.append((item,))
            yield number, item

    monkeypatch.setattr(workers, "map", watched)
    voters = cluster.RayVoters(workers, tmp_path)
    candidates = workers.encoder().embed(["a film", "a book"], private=False)
    votes = voters.vote(Ballot.of(candidates, np.array([0, 0]), "L2", "none", 0), 1)
    assert votes.shape == (corpus.num_records, 1) and not list((tmp_path / "votes").iterdir())
    flat = [value for values in seen for value in (values if isinstance(values, tuple) else (values,))]
    flat = [value for item in flat for value in (item if isinstance(item, tuple) else (item,))]
    assert {type(value) for value in flat} <= {int, str, type(None), type(Path()), ray.ObjectRef, Format}
    assert not any(isinstance(value, str) for value in flat)


def test_killed_workers_lose_no_answer_and_ask_for_none_twice():
    """At two random moments; what comes back is what one process gives."""
    prompts = [Prompt(f"w{i % 40} w{i % 7}", max_new_tokens=1 + i % 40) for i in range(300)]
    alone = [text for _, text in sorted(SlowEcho(0).stream(prompts, [(7, i) for i in range(300)]))]
    api, draw, heard, killed = cluster.writer(ENGINE, SlowEcho), random.Random(), [], 0
    moments = sorted(draw.sample(range(1, 250), 2))

    def hear(number, answer):
        nonlocal killed
        heard.append((number, answer))
        if moments and len(heard) >= moments[0]:
            moments.pop(0)
            killed += kill_one(draw)

    assert api.generate(prompts, 7, hear) == alone and killed == 2
    assert sorted(heard) == list(enumerate(alone))


def test_a_worker_killed_at_a_vote_is_replaced(tmp_path, dataset, corpus, quick_encoder):
    workers, draw = start(dataset, corpus), random.Random()
    encoder = workers.encoder()
    candidates = encoder.embed([f"a film number {i}" for i in range(40)], private=False)
    cells = np.arange(40) % 3
    ballot = Ballot.of(candidates, cells, "L2", "csls", 0.5)
    records = encoder.embed(corpus.texts, private=True), corpus.cells
    wanted = vote(*records, ballot, 2)
    assert (wanted != vote(*records, replace(ballot, shifts=np.zeros(40)), 2)).any()
    voters = cluster.RayVoters(workers, tmp_path)
    assert (voters.vote(ballot, 2) == wanted).all()
    for _ in range(2):
        assert kill_one(draw)
        assert (voters.vote(ballot, 2) == wanted).all()


def test_a_killed_driver_goes_on(tmp_path, dataset):
    """Each vote is drawn once, each answer that was there stays, and the certificate holds. Models are stand-ins."""
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}]
import ray
from pathlib import Path
from apis import engines
from dpsda import cluster, embedding
from dpsda.routes import augpe
from tests.conftest import options
from tests.ray_stand_ins import LocalVectors, SlowEcho
embedding.Encoder, engines.local = LocalVectors, lambda model: SlowEcho
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
settings = {{"privacy": {{"noise": 5.0}}, "evolution": {{"epochs": 2}}}}
engine = {{"engine": "ray", "ray_workers": 2}}
augpe.generate(Path({str(tmp_path / "run")!r}), *options(Path({str(dataset)!r}), engine=engine, **settings))
"""
    answers, ledger, draw = tmp_path / "run" / "state" / "answers", [], random.Random()
    for kill in (True, False):
        before = {path.name: path.read_bytes() for path in answers.glob("*.jsonl")}
        driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if kill:
            seen = sum(map(len, before.values()))
            while driver.poll() is None and sum(p.stat().st_size for p in answers.glob("*.jsonl")) == seen:
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 1))
            driver.kill()
        error = driver.communicate()[1].decode()
        assert kill or driver.returncode == 0, error[-2000:]
        after = {path.name: path.read_bytes() for path in answers.glob("*.jsonl")}
        assert all(after[name].startswith(lines[: lines.rfind(b"\n") + 1]) for name, lines in before.items())
        lines, ledger = ledger, Ledger(tmp_path / "run", read_only=True).lines
        assert ledger[: len(lines)] == lines
    names = [line["name"] for line in ledger if line["type"] == "reserve"]
    assert names and len(names) == len(set(names))
    assert certificate.verify(tmp_path / "run")["epsilon"] <= 4
    assert len(pd.read_csv(tmp_path / "run" / "release" / "synthetic.csv")) == 24


def test_who_else_is_on_the_machine_cannot_join_a_cluster_that_is_started_here(tmp_path):
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; from dpsda.cluster import pool; pool.connect(None)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "HOME": str(tmp_path)}, check=True)
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o077 == 0


def test_samples_of_a_trained_generator_are_the_same(tmp_path, dataset, llama):

    noise = {"epsilon": float("inf")}
    one = made.options(dataset, llama, privacy=noise, sampling={"skip_sampling": True})
    finetune.generate(tmp_path / "serial", *one)
    shutil.copytree(tmp_path / "serial", tmp_path / "ray")
    for name, engine in (("serial", {}), ("ray", {"engine": "ray", "ray_workers": 2})):
        drawn = made.options(dataset, llama, privacy=noise, sampling={"num_samples": 90}, engine=engine)
        finetune.generate(tmp_path / name, *drawn)
    serial, on_ray = (tmp_path / name / "private" / "release" / "synthetic.csv" for name in ("serial", "ray"))
    assert serial.read_bytes() == on_ray.read_bytes() and len(pd.read_csv(serial)) > 10


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (broken, InputError, r"^this model is not there$"),
        (deadly, InputError, r"^2 Ray workers died one after the other[^\n]*$"),
        (faulty, ZeroDivisionError, r"line \d+, in faulty"),  # a fault of the code says where it is
    ],
)
def test_what_is_wrong_in_a_worker_is_said(monkeypatch, model, error, message):
    monkeypatch.setattr(pool, "TRIES", 2)
    with pytest.raises(error, match=message):
        cluster.writer(EngineOptions("ray", ray_workers=1), model).generate([Prompt("a")], 0)


def test_a_worker_that_reads_other_records_is_refused(dataset, corpus, quick_encoder):
    other = dataclasses.replace(corpus, cells=corpus.cells[::-1])
    with pytest.raises(InputError, match="other private records than the driver"):
        start(dataset, other).embed_records("")


def test_errors_where_private_texts_are_quote_none(dataset, corpus, monkeypatch):
    def method(worker):
        yield "secret text".encode("ascii")[0]
        yield "secret t\xe9xt".encode("ascii")

    with pytest.raises(RuntimeError, match=r"^UnicodeEncodeError in .*test_cluster.py, line \d+$") as caught:
        list(quiet(method)(None))
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_cluster_without_a_place_is_one_line(monkeypatch):
    taken = cluster.writer(EngineOptions("ray", ray_workers=1), SlowEcho)
    assert len(taken.generate([Prompt("w1")], 0)) == 1
    monkeypatch.setattr(pool, "PATIENCE", 3)
    with pytest.raises(InputError, match="had no place for a worker with 4 CPU cores"):
        cluster.writer(EngineOptions("ray", ray_workers=1), SlowEcho).generate([Prompt("w1")], 0)


@pytest.mark.parametrize(
    ("nodes", "workers", "wanted"),
    [
        ([(16, 0)], None, (1, 16, 0)),
        ([(16, 0), (4, 0)], None, (2, 4, 0)),
        ([(0, 0), (8, 0), (8, 0)], None, (2, 8, 0)),
        ([(2, 8)], None, (2, 1, 1)),
        ([(16, 0), (4, 0)], 5, (5, 4, 0)),
        ([(32, 8)], None, (8, 4, 1)),
        ([(16, 8), (16, 1), (64, 0)], None, (9, 2, 1)),
        ([(16, 2)], 3, None),
        ([(2, 0)], 3, None),
        ([], None, None),
    ],
)
def test_every_worker_has_a_place(nodes, workers, wanted):
    class Ray:
        @staticmethod
        def nodes():
            return [{"Alive": True, "Resources": {"CPU": cpus, "GPU": gpus}} for cpus, gpus in nodes]

    if wanted:
        assert pool.shape(Ray, workers, None) == wanted
    else:
        with pytest.raises(InputError, match=r"the cluster has room for \d+ workers"):
            pool.shape(Ray, workers, None)


def test_options_that_cannot_be(monkeypatch):
    with pytest.raises(InputError, match="need --engine ray"):
        EngineOptions(ray_workers=2)
    with pytest.raises(InputError, match="at least 1"):
        EngineOptions("ray", ray_workers=0)
    with pytest.raises(InputError, match="room for 4 workers, each of which takes a CPU core, and not for 5"):
        cluster.writer(EngineOptions("ray", ray_workers=5), SlowEcho)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'dpsda\[ray\]'"):
        cluster.writer(ENGINE, SlowEcho)


def test_an_address_where_nothing_answers_is_one_line(tmp_path, dataset):
    words = f"--dataset {dataset} --epsilon 4 --result_folder {tmp_path / 'run'} --engine ray --ray_address 127.0.0.1:1"
    command = [sys.executable, str(ROOT / "main.py"), *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.strip().splitlines()[-1].startswith("error: no Ray cluster answers")
