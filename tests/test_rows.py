"""Whole runs of Aug-PE on texts that belong to rows: what is asked, what is released, and what it costs."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from dpsda import summary
from dpsda.attributes import release
from dpsda.attributes.marginals import Marginals
from dpsda.attributes.read_off import agreeing, read_off
from dpsda.augpe import planning
from dpsda.augpe.options import AugPEOptions
from dpsda.data import DatasetSpec
from dpsda.data.attributes import row_codes
from dpsda.dry_run import HashEncoder
from dpsda.errors import InputError
from dpsda.privacy import certificate
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import histogram
from dpsda.routes import augpe
from dpsda.runs import read_csv
from tests.conftest import PROMPTS, options, use
from tests.kills import Killer, stored_votes

ATTRIBUTES = [
    {"column": "city", "domain": ["Rome", "Oslo"]},
    {"column": "price", "edges": [0, 10, 100]},
    {"name": "length", "words": [6, 8]},
    {"name": "mood", "describe": {"good": "all is well", "bad": "all is lost"}},
]
SPEC = {
    "text": "text",
    "labels": [{"column": "kind", "domain": ["food", "film"]}],
    "attributes": ATTRIBUTES,
    "user": "author",
    "splits": {"train": "train.csv"},
}
CITIES = ("Rome", "Oslo", "not given")
INIT = "A {label.kind} in {attribute.city} for {attribute.price}, {attribute.mood}, {attribute.length}: {keyword}"


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    use(monkeypatch)


class AnyRows:
    """In the place of the model of marginals, which takes seconds: any rows, the same for the same seed."""

    def __init__(self, tables, scale):
        self.sizes = [len(table) for some, table in tables.items() if len(some) == 1]

    of = classmethod(lambda cls, tables, scale: cls(tables, scale))

    def draw(self, given, rows, rng) -> np.ndarray:
        drawn = rng.integers(0, self.sizes, (rows, len(self.sizes)))
        return np.column_stack([given, drawn[:, 1:]]) if given is not None else drawn


class Killed(AnyRows):
    of = classmethod(lambda cls, tables, scale: pytest.fail("killed"))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(release, "RowModel", AnyRows)


@pytest.fixture
def table(tmp_path) -> Path:
    return made_up(tmp_path / "data" / "table")


def made_up(folder: Path, mark=lambda i: "") -> Path:
    """200 records of 50 users: food is of Rome and cheap, films are of Oslo, and some values are missing."""
    folder.mkdir(parents=True)
    prompts = yaml.safe_load(PROMPTS) | {
        "init": [INIT, "A {label.kind} about {keyword}"],
        "keywords": ["soup", "a chase"],
    }
    prompts["paraphrase"] = ["Rewrite for {attribute.city}: {text}", "Rewrite: {text}"]
    (folder / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    rows = []
    for i in range(200):
        food = i % 3 > 0
        city = f"elsewhere{mark(i)}" if i % 20 == 0 else "Rome" if food else "Oslo"
        price = f"{mark(i)}" if i % 25 == 0 else 3 if food else 20 + i % 50
        text = f"A thing{mark(i)} number {i}" + " and more" * (i % 4)
        rows.append((text, ("film", "food")[food], city, price, f"a{i % 50}{mark(i)}"))
    pd.DataFrame(rows, columns=["text", "kind", "city", "price", "author"]).to_csv(folder / "train.csv", index=False)
    return folder


def run(root, dataset, privacy=None, **evolution):
    rows = {name: evolution.pop(name) for name in ("attributes", "marginals") if name in evolution}
    evolution = {"epochs": 2, "num_seed_samples": 30, "L": 2, "init_L": 2, **evolution}
    chosen = options(dataset, data={"reference_split": None}, privacy=privacy, evolution=evolution, rows=rows)
    augpe.generate(root, *chosen)
    return pd.read_parquet(root / "release" / "synthetic.parquet")


@pytest.mark.parametrize("unit", ["record", "user"])
def test_texts_are_written_to_rows_that_the_ledger_paid_for(tmp_path, table, unit, capsys):
    root = tmp_path / "run"
    texts = run(root, table, {"epsilon": 8.0, "privacy_unit": unit})
    assert list(texts.columns) == ["id", "parent_id", "text", "kind", "city", "price", "length", "mood"]
    assert pq.read_schema(root / "release" / "synthetic.parquet").field("price").type == "int64"
    assert "." not in "".join(read_csv(root / "release" / "synthetic.csv").price)
    assert texts.price.dropna().between(0, 99).all() and set(texts.city.dropna()) <= {"Rome", "Oslo"}
    food = texts[texts.kind == "food"]
    assert (food.city.dropna() == "Rome").mean() > 0.8 and len(texts[texts.kind == "film"]) < len(food)

    facts = certificate.verify(root)
    assert 7.9 < facts["epsilon"] <= 8 and facts["unit"] == unit
    assert {row["what"]: row["releases"] for row in facts["mechanisms"]} == {"marginals": 1, "votes": 2}
    marginals = Marginals.of(DatasetSpec.read(table))
    assert len(read_csv(root / "marginals.csv")) == len(marginals.bins()) and not (root / "label_counts.csv").exists()
    [row] = [row for row in facts["mechanisms"] if row["what"] == "marginals"]
    k = len(marginals.sets)
    assert k == 15 and row["l2_sensitivity"] == pytest.approx(k**0.5 if unit == "record" else 1)
    made = Ledger(root, read_only=True).made()
    assert {"state/rows.csv", "0/samples.csv", "state/candidates-1.csv"} <= set(made)
    assert "rows: a model of 15 noisy marginals" in (said := capsys.readouterr().out)
    assert "for 2 votes and for 15 marginals of the attributes" in said
    assert re.search(r"marginals: 15; the largest, of \w+ and \w+, has 9 cells, with \d", said)

    first, prompts = read_csv(root / "0" / "samples.csv"), (root / "0" / "prompts.jsonl").read_text().splitlines()
    rows = read_csv(root / "state" / "rows.csv")
    for sample in first.itertuples():
        place = int(sample.id.partition("-")[2])
        asked = json.loads(prompts[place])["text"]
        assert (sample.city, sample.price, sample.mood) == tuple(rows.loc[place, ["city", "price", "mood"]])
        assert asked.startswith(f"A {sample.kind} in {sample.city or 'not given'} for {sample.price or 'not given'}, ")
    varied = [json.loads(line)["text"] for line in (root / "1" / "prompts.jsonl").read_text().splitlines()]
    assert all(re.match("Rewrite for (Rome|Oslo|not given): ", asked) for asked in varied)
    candidates = read_csv(root / "state" / "candidates-2.csv").set_index("id")
    children = candidates[candidates.parent_id.isin(candidates.index) & (candidates.parent_id != "")]
    parents = candidates.loc[children.parent_id]
    assert len(children) and (children[["kind", "city", "price"]].to_numpy() == parents[["kind", "city", "price"]]).all(
        None
    )


def test_without_rows_a_run_is_as_it_was(tmp_path, table):
    texts = run(tmp_path / "run", table, attributes="none")
    assert (
        list(texts.columns) == ["id", "parent_id", "text", "kind"] and not (tmp_path / "run" / "marginals.csv").exists()
    )
    asked = json.loads((tmp_path / "run" / "0" / "prompts.jsonl").read_text().splitlines()[0])["text"]
    assert re.fullmatch("A (food|film) about (soup|a chase)", asked)


@pytest.mark.usefixtures("quick")
def test_public_label_counts_and_marginals_one_by_one(tmp_path, table, capsys):
    texts = run(tmp_path / "run", table, {"epsilon": 4.0, "label_counts": "public"}, marginals=1)
    assert texts.kind.value_counts().to_dict() == {"food": 20, "film": 10}
    assert "for 5 marginals of the attributes (the label counts are taken as public)" in capsys.readouterr().out
    assert certificate.verify(tmp_path / "run")


def test_the_share_of_the_marginals():
    """With twice the noise multiplier of a vote, in the plan and in the release."""
    marginals = Marginals(("a", "b"), (("x", "y"), ("u", "v")))
    options = AugPEOptions(marginals_noise=2.0)
    assert planning.mechanism("marginals", "record", 3.0, options, marginals).scale == pytest.approx(6 * 3**0.5)
    assert planning.mechanism("votes/1", "record", 3.0, options, marginals).scale == 3


@pytest.mark.usefixtures("quick")
def test_labels_that_are_not_those_of_the_rows_are_refused(tmp_path, table):
    with pytest.raises(InputError, match=r"--labels_from votes: texts would have other labels.*give --attributes none"):
        run(tmp_path / "run", table, labels_from="votes")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("quick")
def test_prompts_are_checked_for_every_value(tmp_path, table):
    prompts = (table / "prompts.yaml").read_text().replace("{attribute.mood}", "{attribute.moods}")
    (table / "prompts.yaml").write_text(prompts)
    with pytest.raises(InputError, match=r"\{attribute.moods\} is no attribute; did you mean attribute.mood\?"):
        run(tmp_path / "run", table)
    with pytest.raises(InputError, match="is no attribute"):
        run(tmp_path / "run", table, attributes="none")
    (table / "prompts.yaml").write_text("init: {city: {Rome: 'of Rome', Oslo: 'of Oslo'}}\nparaphrase: 'again: {text}'")
    with pytest.raises(InputError, match="nothing is given for city = 'not given'"):
        run(tmp_path / "run", table)
    cities = {city: {"mood": {"good": "a"} | ({} if city == "Oslo" else {"bad": "b"})} for city in CITIES}
    (table / "prompts.yaml").write_text(yaml.safe_dump({"init": {"city": cities}, "paraphrase": "again: {text}"}))
    with pytest.raises(InputError, match="nothing is given for mood = 'bad'"):  # of Oslo alone
        run(tmp_path / "run", table)


@pytest.mark.usefixtures("quick")
def test_texts_that_do_not_say_their_row_are_asked_for_again(tmp_path, table, capsys):
    """A text of a dry run has 6 words, as a third of the rows say, and a mood that is right every other time."""
    run(tmp_path / "plain", table, epochs=1)
    assert "not what the row says" not in capsys.readouterr().out
    run(tmp_path / "run", table, epochs=1, agreement=0.5)
    assert "asked for again: " in (said := capsys.readouterr().out) and "not what the row says" in said
    spec, found = DatasetSpec.read(table), {}
    for name in ("plain", "run"):
        frame = read_csv(tmp_path / name / "0" / "samples.csv")
        read = read_off(spec.attributes, frame["text"].tolist(), HashEncoder(), private=False)
        can, does = agreeing(row_codes(frame, spec.attributes), read, spec.attributes)
        assert not can[:, :2].any() and can[:, 2:].all()  # no text tells a city or a price
        found[name] = (does.sum(axis=1) >= 1).mean()
    assert found["run"] > found["plain"] and found["run"] > 0.85


@pytest.mark.usefixtures("quick")
def test_an_attribute_that_no_prompt_names_is_told(tmp_path, table, capsys):
    run(tmp_path / "run", table, epochs=1)
    assert "warning: no first prompt" not in capsys.readouterr().out
    lists = {"tones": {"mood": {"good": ["warm"], "bad": ["dry"]}}, "paraphrase": "again: {text}"}
    prompts = {"init": "A {tone} {label.kind} in {attribute.city}", **lists}
    (table / "prompts.yaml").write_text(yaml.safe_dump(prompts))
    run(tmp_path / "other", table, epochs=1)
    assert "warning: no first prompt names price, length, so" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_no_private_value_is_shared(tmp_path):
    draw = random.Random(0)
    marks = [f"{draw.getrandbits(64):016x}" for _ in range(200)]
    data = made_up(tmp_path / "data" / "marked", lambda i: marks[i])
    run(tmp_path / "run", data)
    pattern = re.compile("|".join(marks).encode())
    shared = [p for p in (tmp_path / "run").rglob("*") if p.is_file() and "private" not in p.parts]
    assert len(shared) > 10 and not any(pattern.search(path.read_bytes()) for path in shared)


def test_a_run_that_is_killed_draws_nothing_twice(tmp_path, table, monkeypatch):
    root = tmp_path / "run"
    setup = (
        "from tests.test_rows import AnyRows, release, run, pytest, use\n"
        "patch = pytest.MonkeyPatch(); use(patch); patch.setattr(release, 'RowModel', AnyRows)"
    )
    killer = Killer(setup, f"run(root, Path({str(table)!r}), {{'noise': 3.0}})", root)
    unkilled = certificate.verify(root)["epsilon"]
    monkeypatch.setattr(release, "RowModel", AnyRows)
    for _ in range(5):
        shutil.rmtree(root)
        assert killer.kill() in (0, signal.SIGKILL)
        stored = stored_votes(root)
        run(root, table, {"noise": 3.0})
        assert stored.items() <= stored_votes(root).items() and len(stored_votes(root)) == 3
        assert certificate.verify(root)["epsilon"] == unkilled
    killer.close()


@pytest.mark.usefixtures("quick")
def test_rows_are_drawn_with_the_noise_that_the_marginals_have(tmp_path, table, monkeypatch):
    """A run is killed after its marginals, and goes on with another epsilon: with as much noise in the model."""
    scales = []
    monkeypatch.setattr(release, "RowModel", Killed)
    with pytest.raises(pytest.fail.Exception, match="killed"):
        run(tmp_path / "run", table, {"epsilon": 4.0}, marginals_noise=3.0)

    class Noted(AnyRows):
        def __init__(self, tables, scale):
            super().__init__(tables, scale)
            scales.append(scale)

    monkeypatch.setattr(release, "RowModel", Noted)
    run(tmp_path / "run", table, {"epsilon": 6.0}, marginals_noise=3.0)
    [marginals] = [x for x in Ledger(tmp_path / "run", read_only=True).reservations() if x.kind == "marginals"]
    assert scales == [marginals.mechanism.scale] and certificate.verify(tmp_path / "run")["epsilon"] > 5.9


def test_nothing_is_spent_without_the_library(tmp_path, table, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package mbi: run `pip install 'dpsda\[attributes\]'`"):
        run(tmp_path / "run", table)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("quick")
def test_other_columns_are_other_data(tmp_path, table, monkeypatch):
    monkeypatch.setattr(release, "RowModel", Killed)
    with pytest.raises(pytest.fail.Exception, match="killed"):
        run(tmp_path / "run", table)
    monkeypatch.setattr(release, "RowModel", AnyRows)
    frame = pd.read_csv(table / "train.csv", dtype=str)
    frame.assign(city="Oslo").to_csv(table / "train.csv", index=False)
    with pytest.raises(InputError, match="rows"):
        run(tmp_path / "run", table)


@pytest.mark.usefixtures("quick")
def test_texts_are_shown_in_turn_from_every_label(tmp_path, table, capsys):
    run(tmp_path / "run", table)
    shown = re.findall(r"^  \[(food|film), (.*?)\] ", capsys.readouterr().out, re.MULTILINE)
    assert len(shown) == 10 and [kind for kind, _ in shown].count("film") == 5
    assert not any(", ," in row or row.endswith(", ") for _, row in shown) and any("-" in row for _, row in shown)


def test_a_user_s_rows_depend_as_those_of_records_do():
    """A user's vote is shared by all marginals, and as many votes and as much noise, by the share, mean as much."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, 4000)
    codes = np.column_stack([np.where(rng.random(4000) < 0.3, first, rng.integers(0, 3, 4000)) for _ in range(5)])
    marginals = Marginals(tuple("abcde"), (("x", "y", "z"),) * 5)
    votes, bins, users = marginals.votes(codes), len(marginals.bins()), np.arange(4000)
    found = {}
    for unit, noise in (("record", 0.0), ("user", 0.0)):
        mechanism = histogram(unit, noise, len(marginals.sets))
        tables = marginals.tables(mechanism.sums(votes, users, bins) / (mechanism.grid if unit == "user" else 1))
        made = release.Rows((), marginals, None, Reserved(mechanism), "")
        counted, scale = made._in_units(tables)
        found[unit] = {some: table.round(1) for some, table in counted.items()}
        assert scale == 0
    assert all(np.abs(found["record"][some] - found["user"][some]).max() < 1 for some in marginals.sets)


class Reserved:
    """A ledger with one reservation."""

    def __init__(self, mechanism):
        self.mechanism = mechanism

    def reservation(self, name):
        return self


def test_a_column_may_be_called_as_we_call_things():
    frame = pd.DataFrame({"text": ["a", "b", "c"], "kind": ["x", "x", "y"], "turn": ["no", "yes", "no"]})
    assert summary.examples(frame, ["kind"], ["turn"], count=2).splitlines() == ["  [x, no] a", "  [y, no] c"]
    assert summary.examples(frame, [], count=2).splitlines() == ["  a", "  b"]


@pytest.mark.usefixtures("quick")
def test_a_run_with_rows_of_an_earlier_version_goes_on(tmp_path, table):
    """Its configuration knows nothing of what came since, and has digests of the two files."""
    root = tmp_path / "run"
    texts = run(root, table, {"noise": 3.0}, epochs=1)
    path = root / "state" / "augpe.json"
    kept = json.loads(path.read_text())
    assert set(kept["rows"]) == {"attributes", "data"}
    del kept["agreement"]
    for name in ("spec.yaml", "prompts.yaml"):
        kept[name] = kept[name]["sha256"]
    path.write_text(json.dumps(kept))
    assert run(root, table, {"noise": 3.0}, epochs=1).equals(texts)
