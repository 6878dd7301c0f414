"""Whole runs of fine-tuning on texts that belong to rows: what is learnt and released, and what goes on with it."""

from __future__ import annotations

import json
import re
import shutil
import signal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from dpsda.attributes import release
from dpsda.data import DatasetSpec, load
from dpsda.errors import InputError
from dpsda.privacy import certificate
from dpsda.privacy.ledger import Ledger
from dpsda.routes import augpe, finetune
from dpsda.runs import RunFolder, read_csv, row_columns
from dpsda.tuning import generator
from tests import conftest
from tests.conftest import use
from tests.finetune.made import options
from tests.finetune.tiny import words_tokenizer
from tests.kills import Killer, stored_votes
from tests.test_rows import AnyRows, made_up

COLUMNS = ["id", "parent_id", "text", "kind", "city", "price", "length", "mood"]


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    use(monkeypatch)
    monkeypatch.setattr(release, "RowModel", AnyRows)


@pytest.fixture
def table(tmp_path):
    return made_up(tmp_path / "data" / "table")


def run(root, dataset, model, **settings) -> pd.DataFrame:
    finetune.generate(root, *options(dataset, model, **settings))
    return pd.read_parquet(root / "release" / "synthetic.parquet")


@pytest.mark.parametrize("unit", ["record", "user"])
def test_samples_belong_to_rows_that_the_ledger_paid_for(tmp_path, table, llama, unit, capsys):
    root = tmp_path / "run"
    texts = run(root, table, llama, privacy={"epsilon": 4.0, "privacy_unit": unit})
    assert list(texts.columns) == COLUMNS and 20 < len(texts) <= 40 and texts.text.is_unique
    assert texts.price.dropna().between(0, 99).all() and set(texts.city.dropna()) <= {"Rome", "Oslo"}
    assert pq.read_schema(root / "release" / "synthetic.parquet").field("price").type == "int64"
    assert "." not in "".join(read_csv(root / "release" / "synthetic.csv").price)
    facts = certificate.verify(root)
    assert 3.9 < facts["epsilon"] <= 4
    [row] = [row for row in facts["mechanisms"] if row["what"] == "marginals"]
    assert row["l2_sensitivity"] == pytest.approx(15**0.5 if unit == "record" else 1)
    assert not (root / "label_counts.csv").exists()
    assert "5 on 15 marginals of the attributes" in capsys.readouterr().out
    assert "15 noisy marginals" in (root / "release" / "README.md").read_text()

    head = Ledger(root, read_only=True).head
    assert run(root, table, llama, privacy={"epsilon": 4.0, "privacy_unit": unit}).equals(texts)
    assert Ledger(root, read_only=True).head == head
    more = run(root, table, llama, privacy={"epsilon": 4.0, "privacy_unit": unit}, sampling={"num_samples": 70})
    assert more[: len(texts)].equals(texts) and len(more) > len(texts) + 10
    assert certificate.verify(root)["epsilon"] == facts["epsilon"]


def test_a_record_s_prefix_is_its_own_row(table):
    """Of what is not given, too; and no message tells how long that of a record is."""
    spec = DatasetSpec.read(table)
    codes = np.array([[0, 1, 0, 0], [2, 2, 1, -1], [0, 1, 0, 0]])
    prefixes, which = generator.row_prefixes(spec, np.array([0, 1, 0]), codes)
    assert [prefixes[i] for i in which] == [
        "kind: food | city: Rome | price: 10 to 100 | length: fewer than 6 words | mood: bad\n\n",
        "kind: film | city: not given | price: not given | length: 6 to 7 words | mood: not given\n\n",
        "kind: food | city: Rome | price: 10 to 100 | length: fewer than 6 words | mood: bad\n\n",
    ]
    longest, tokenizer = generator.longest_prefix(spec, words_tokenizer()), words_tokenizer()
    assert "length: fewer than 6 words" in longest and "price: 0 to 10" in longest and "city: not given" in longest
    most = len(tokenizer(longest)["input_ids"])
    generator.check_room([longest], tokenizer, most + 1)
    with pytest.raises(InputError, match=f"attributes alone have {most} tokens; --max_length has to be more than that"):
        generator.check_room([longest], tokenizer, most)
    assert max(len(tokenizer(lead)["input_ids"]) for lead in prefixes) <= most


def test_another_record_moves_no_prefix(table):
    spec = DatasetSpec.read(table)
    corpus = load(spec, "train", attributes=True)
    codes = np.stack([corpus.columns["city"], corpus.columns["price"]] + [np.zeros(200, np.int32)] * 2, axis=1)
    prefixes, which = generator.row_prefixes(spec, corpus.cells, codes)
    fewer, of = generator.row_prefixes(spec, corpus.cells[1:], codes[1:])
    assert [prefixes[i] for i in which[1:]] == [fewer[i] for i in of]


def test_without_rows_or_a_prefix_no_marginal_is_released(tmp_path, table, llama):
    plain = run(tmp_path / "plain", table, llama, rows={"attributes": "none"})
    bare = run(tmp_path / "bare", table, llama, tuning={"conditional": False})
    assert list(plain.columns) == COLUMNS[:4] and list(bare.columns) == COLUMNS[:3]
    assert not list(tmp_path.glob("*/marginals.csv"))


def test_aug_pe_and_resampling_go_on_with_the_rows(tmp_path, table, llama):
    """One ledger, one set of marginals: a candidate has the row of the sample that it comes from."""
    root = tmp_path / "run"
    samples = run(root, table, llama, privacy={"noise": 5.0}, sampling={"num_samples": 80}).set_index("id")
    chosen = {"first_texts": "both", "epochs": 1, "num_seed_samples": 12, "L": 2, "init_L": 1}
    settings = {"data": {"reference_split": None}, "privacy": {"noise": 5.0}, "evolution": chosen}
    with pytest.raises(InputError, match="released other marginals; give its --marginals"):
        augpe.generate(root, *conftest.options(table, rows={"marginals": 1}, **settings))
    augpe.generate(root, *conftest.options(table, **settings))
    texts = pd.read_parquet(root / "release" / "synthetic.parquet")
    assert list(texts.columns) == COLUMNS and len(texts) == 12
    first = read_csv(root / "0" / "samples.csv").set_index("id")
    own = first[first.index.str.startswith("s-")]
    assert len(own) and (own.city == samples.loc[own.index].city.fillna("")).all()
    assert (own.mood == samples.loc[own.index].mood).all()
    inside = {"0 to 10": (0, 10), "10 to 100": (10, 100)}
    for name, price in own.price.items():
        number = samples.loc[name].price
        assert pd.isna(number) if price == "" else inside[price][0] <= number < inside[price][1]
    releases = [x.name for x in Ledger(root, read_only=True).reservations()]
    assert releases.count("marginals") == 1 and "label_counts" not in releases and "votes/1" in releases
    certificate.verify(root)


def test_aug_pe_without_rows_goes_on_with_samples_that_have_them(tmp_path, table, llama, capsys):
    """What comes out has no columns of attributes, and nothing says that it has; the label counts are those of the
    marginals' file no more, and are charged."""
    root = tmp_path / "run"
    run(root, table, llama, privacy={"noise": 5.0}, sampling={"num_samples": 60})
    chosen = {"first_texts": "samples", "epochs": 1, "num_seed_samples": 12, "L": 2}
    settings = {"data": {"reference_split": None}, "privacy": {"noise": 5.0}, "evolution": chosen}
    augpe.generate(root, *conftest.options(table, rows={"attributes": "none"}, **settings))
    assert list(read_csv(root / "release" / "synthetic.csv")) == ["id", "parent_id", "text", "kind"]
    assert row_columns(RunFolder.existing(root).config()) == [] and "[food] " in capsys.readouterr().out
    certificate.verify(root)


def test_a_run_of_an_earlier_version_goes_on_as_it_was(tmp_path, table, llama):
    """It read no attributes, whatever spec.yaml has, and its configuration does not speak of them."""
    root, none = tmp_path / "run", {"rows": {"attributes": "none"}}
    texts = run(root, table, llama, **none)
    path = root / "state" / "finetune.json"
    kept = json.loads(path.read_text())
    for name in ("attributes", "marginals", "marginals_noise", "rows"):
        del kept[name]
    path.write_text(json.dumps(kept))
    assert run(root, table, llama, **none).equals(texts)
    with pytest.raises(InputError, match="attributes was 'none', now 'rows'"):
        run(root, table, llama)


def test_what_was_trained_without_rows_has_none(tmp_path, table, llama):
    root = tmp_path / "run"
    run(root, table, llama, rows={"attributes": "none"}, sampling={"num_samples": 60})
    chosen = {"first_texts": "samples", "epochs": 1, "num_seed_samples": 12}
    settings = {"data": {"reference_split": None}, "privacy": {"noise": 5.0}, "evolution": chosen}
    with pytest.raises(InputError, match="trained without attributes; give --attributes none"):
        augpe.generate(root, *conftest.options(table, **settings))


def test_no_private_value_is_shared(tmp_path, llama):
    marks = [f"{7919 * (i + 3) ** 3:016x}" for i in range(200)]
    data = made_up(tmp_path / "data" / "marked", lambda i: marks[i])
    run(tmp_path / "run", data, llama)
    pattern = re.compile("|".join(marks).encode())
    shared = [p for p in (tmp_path / "run").rglob("*") if p.is_file() and "private" not in p.parts]
    assert len(shared) > 8 and not any(pattern.search(path.read_bytes()) for path in shared)


def test_a_run_that_is_killed_draws_nothing_twice(tmp_path, table, llama):
    root, settings = tmp_path / "run", {"sampling": {"num_samples": 60}, "privacy": {"noise": 5.0}}
    setup = (
        "from tests.finetune.test_rows import AnyRows, release, run, use\nimport pytest\n"
        "patch = pytest.MonkeyPatch(); use(patch); patch.setattr(release, 'RowModel', AnyRows)"
    )
    killer = Killer(setup, f"run(root, Path({str(table)!r}), {llama!r}, **{settings!r})", root)
    unkilled = certificate.verify(root)["epsilon"]
    for _ in range(4):
        shutil.rmtree(root)
        assert killer.kill() in (0, signal.SIGKILL)
        stored = stored_votes(root)
        texts = run(root, table, llama, **settings)
        assert stored.items() <= stored_votes(root).items() and list(texts.columns) == COLUMNS
        assert certificate.verify(root)["epsilon"] == unkilled
    killer.close()
