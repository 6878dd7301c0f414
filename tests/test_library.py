"""The Python API: what it gives, what it refuses, and the three examples as they stand."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

import dpsda
from apis.engines import engine
from dpsda import embedding
from dpsda.attributes import release
from dpsda.dry_run import HashEncoder
from dpsda.options import ModelOptions, RemoteOptions
from dpsda.privacy import certificate
from dpsda.runs import RunFolder
from tests import forks
from tests.conftest import use
from tests.test_rows import AnyRows

ROOT = forks.ROOT
FRAME = pd.DataFrame({"body": [f"A note about {i % 7} teas." for i in range(60)], "kind": ["a", "b"] * 30})
ASKED = {"init": "Write about {label.kind}.", "paraphrase": "Rewrite: {text}"}


@pytest.fixture
def data(tmp_path) -> str:
    return dpsda.dataset(tmp_path / "data", FRAME, text="body", labels={"kind": ["a", "b"]}, prompts=ASKED)


def test_a_run_from_a_table_to_its_guarantee(tmp_path, data, monkeypatch):
    use(monkeypatch)
    run = dpsda.run("augpe", data, tmp_path / "run", epsilon=4, epochs=2, num_seed_samples=8, L=2)
    facts = certificate.verify(tmp_path / "run")
    assert run.epsilon == facts["epsilon"] <= 4 and run.delta == facts["delta"] and run.guarantee == facts["statement"]
    assert list(run.texts) == ["id", "parent_id", "text", "kind"] and len(run.texts) == 8
    assert dpsda.read(tmp_path / "run") == run
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    longer = dpsda.run("augpe", data, tmp_path / "run", epsilon=6, epochs=3, num_seed_samples=8, L=2)
    assert 4 < longer.epsilon <= 6


def test_a_table_with_attributes_has_rows_again(tmp_path, monkeypatch):
    use(monkeypatch)
    monkeypatch.setattr(release, "RowModel", AnyRows)
    table = FRAME.assign(cups=range(60))
    attributes = [{"column": "cups", "edges": [0, 20, 40, 60]}, {"name": "long", "words": [5]}]
    asked = ASKED | {"init": "Write about {label.kind}, {attribute.cups} cups, {attribute.long}."}
    given = {"text": "body", "labels": {"kind": ["a", "b"]}, "attributes": attributes, "prompts": asked}
    made = dpsda.dataset(tmp_path / "data", table, **given)
    run = dpsda.run("augpe", made, tmp_path / "run", epsilon=4, epochs=1, num_seed_samples=8, L=2)
    assert list(run.texts) == ["id", "parent_id", "text", "kind", "cups", "long"]
    assert {int(cups) in range(60) for cups in run.texts.cups if cups} == {True}
    with pytest.raises(dpsda.InputError, match="the table has no column 'cups'"):
        dpsda.dataset(tmp_path / "other", FRAME, **given)


def test_the_same_records_may_be_given_again_and_no_others(tmp_path, data):
    assert dpsda.dataset(tmp_path / "data", FRAME.copy(), text="body", labels={"kind": ["a", "b"]}) == data
    assert dpsda.dataset(tmp_path / "data") == data
    with pytest.raises(dpsda.InputError, match="holds other records"):
        dpsda.dataset(tmp_path / "data", FRAME.head(59), text="body")


class Saying(dpsda.TextAPI):
    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        answers = [f"Say {number}, {seed}: {prompt.text}" for number, prompt in enumerate(prompts)]
        for number, answer in enumerate(answers):
            on_answer(number, answer)
        return answers


def test_an_engine_of_one_s_own_is_what_the_card_names(tmp_path, data, monkeypatch):
    monkeypatch.setattr(embedding, "Encoder", lambda *options, **more: HashEncoder())
    small = {"epsilon": 4, "epochs": 1, "num_seed_samples": 8, "L": 2, "variation_type": "paraphrase"}
    run = dpsda.run("augpe", data, tmp_path / "run", api=Saying(), **small)
    assert run.certificate["about"]["model"] == "Saying" and run.texts.text.str.startswith("Say ").all()
    config = RunFolder.existing(tmp_path / "run").config()
    assert (config["api"], config["model_type"]) == ("own", "Saying")
    with pytest.raises(dpsda.InputError, match=r"go on with dpsda\.run"):
        engine(ModelOptions(api="own"), RemoteOptions(), tmp_path)


@pytest.mark.parametrize(
    ("method", "options", "match"),
    [
        ("augment", {}, "no method 'augment'; did you mean augpe"),
        ("predict", {"epsilon": 4}, "no method 'predict'"),
        ("augpe", {"epsilon": 4, "epoch": 3}, "augpe has no option 'epoch'; did you mean epochs"),
        ("augpe", {}, "give --epsilon or --noise"),
        ("finetune", {"epsilon": 4, "api": object()}, "writes no text by an engine"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, data, method, options, match):
    with pytest.raises(dpsda.InputError, match=match) as error:
        dpsda.run(method, data, tmp_path / "run", **options)
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_column_that_is_not_there(tmp_path):
    with pytest.raises(dpsda.InputError, match="has no column 'text'; there are: body, kind"):
        dpsda.dataset(tmp_path / "data", FRAME)
    assert not (tmp_path / "data").exists()
    with pytest.raises(dpsda.InputError, match="is not the folder of a run"):
        dpsda.read(tmp_path)


def test_importing_it_imports_nothing_heavy():
    code = "import sys, dpsda; dir(dpsda), dpsda.InputError; print({'numpy', 'pandas', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "set()", done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_the_examples_run_as_they_stand(path, tmp_path):
    assert len([line for line in path.read_text().splitlines() if line]) <= 15
    done = forks.run([path], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "-differentially private for neighbouring data sets" in done.stdout
    found = list((tmp_path / "results" / "examples").glob("*/release/synthetic.csv"))
    assert len(found) == 1 and len(pd.read_csv(found[0])) > 5
    if path.stem == "histogram":  # 120 : 30 : 10 among the private texts, as many of each before
        kept = pd.read_csv(found[0]).text.str.split().str[-1].value_counts()
        assert kept["tea."] > kept.get("rain.", 0) > 0
