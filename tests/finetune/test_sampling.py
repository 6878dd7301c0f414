"""Shards of samples: each drawn once, repeats and empty texts dropped, labels by the shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from apis.api import TextAPI
from dpsda.data import DatasetSpec, Label
from dpsda.finetune.options import SamplingOptions
from dpsda.finetune.sampling import Shards
from dpsda.privacy.errors import LedgerError
from dpsda.privacy.ledger import Ledger
from dpsda.shares import sequence


class Counting(TextAPI):
    """Answers with the prompt and a number that repeats after `period`; every tenth answer is empty or None."""

    def __init__(self, period: int = 10**9) -> None:
        self.period, self.calls, self.asked = period, 0, []

    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        self.calls += 1
        self.asked += prompts
        first = (seed % 1000) * 1000
        numbers = [(first + i) % self.period for i in range(len(prompts))]
        return [
            (None, " \n")[i // 10 % 2] if i % 10 == 9 else f" {p.text}{n} "
            for i, (p, n) in enumerate(zip(prompts, numbers, strict=True))
        ]


BOOKS: dict[Path, Ledger] = {}


@pytest.fixture(autouse=True)
def close():
    yield
    while BOOKS:
        BOOKS.popitem()[1].close()


def book(run: Path) -> Ledger:
    """The ledger of a run, which several of its commands here share."""
    if run not in BOOKS:
        BOOKS[run] = Ledger(run)
        BOOKS[run].open(unit="record", units=100, delta=1e-5, facts={})
    return BOOKS[run]


def shards(run, count=100, size=30, shares=(3.0, 1.0), **options) -> Shards:
    settings = SamplingOptions(num_samples=count, shard_size=size, length=5, **options)
    spec = DatasetSpec("made up", run, "text", {}, (Label("stars", ("low", "high")),))
    return Shards(run / "state" / "samples", settings, 0, spec, np.array(shares), book(run), [])


def whole(made: Shards) -> pd.DataFrame:
    return pd.concat(list(made.frames()))


def test_labels_go_by_their_shares_and_stand_before_the_text(tmp_path):
    api, made = Counting(), shards(tmp_path)
    made.draw(lambda: api)
    assert made.complete() and api.calls == 4
    assert sum(p.text == "stars: low\n\n" for p in api.asked) == 75 and {p.max_new_tokens for p in api.asked} == {5}
    frame = whole(made)
    assert list(frame.columns) == ["id", "parent_id", "text", "stars"] and frame.id.is_unique
    assert len(frame) == 90 and (frame.text == frame.text.str.strip()).all()  # 3 + 3 + 3 + 1 answers were empty
    assert (frame.text.str.extract(r"stars: (\w+)")[0] == frame.stars).all()


def test_exact_repeats_drop_out_across_shards_and_restarts(tmp_path):
    one, made = Counting(period=7), shards(tmp_path / "one", count=100)
    made.draw(lambda: one)
    frame = whole(made)
    assert frame.text.is_unique and len(frame) <= 14
    again = shards(tmp_path / "two", count=100)
    for path in again.paths[:2]:  # killed after two shards
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((made.folder / path.name).read_bytes())
        again.ledger.note("finetune", path)
    again.paths[2].write_bytes(b"killed before it could be noted")
    (again.folder / f".{again.paths[2].name}.77.tmp").write_bytes(b"half")
    two = Counting(period=7)
    again.draw(lambda: two)
    assert two.calls == 2 and whole(again).equals(frame)
    assert sorted(p.name for p in again.folder.iterdir()) == [p.name for p in again.paths]


def test_a_shard_that_was_replaced_is_refused(tmp_path):
    made = shards(tmp_path)
    made.draw(Counting)
    made.paths[1].write_bytes(made.paths[0].read_bytes())
    with pytest.raises(LedgerError, match="not the file that the run made"):
        made.complete()


def test_a_complete_set_loads_no_model(tmp_path):
    made = shards(tmp_path)
    made.draw(Counting)
    made.draw(lambda: pytest.fail("a model was loaded"))


def test_a_larger_number_goes_on_from_a_smaller(tmp_path):
    first, made = Counting(), shards(tmp_path, count=40)
    made.draw(lambda: first)
    before = whole(made)
    api, more = Counting(), shards(tmp_path, count=100)
    assert not more.complete()
    more.draw(lambda: api)
    assert len(api.asked) == 60 and api.calls == 3  # the ten draws that fill the second shard, and two shards
    frame = whole(more)
    assert frame[: len(before)].reset_index(drop=True).equals(before.reset_index(drop=True)) and frame.id.is_unique
    assert sum(p.text == "stars: low\n\n" for p in first.asked + api.asked) == 75
    more.paths[1].unlink()  # ten draws in the middle: they are drawn anew, and nothing else
    again = Counting()
    more.draw(lambda: again)
    assert len(again.asked) == 10 and whole(more).equals(frame)


def test_labels_of_a_longer_sequence_begin_with_those_of_a_shorter():
    counts = np.array([60.0, -3.0, 25.0, 10.0, 5.0, 0.4])
    whole = sequence(counts, 1000)
    for total in (1, 7, 100, 999):
        assert (sequence(counts, total) == whole[:total]).all()
    for total in range(1, 1001):
        exact = total * counts.clip(0) / counts.clip(0).sum()
        assert (np.abs(np.bincount(whole[:total], minlength=6) - exact) <= 1).all()
    assert (np.bincount(sequence(np.zeros(3), 9)) == 3).all()


def test_negative_counts_are_no_share(tmp_path):
    made = shards(tmp_path, count=10, shares=(-4.0, 2.0))
    made.draw(Counting)
    assert set(whole(made).stars) == {"high"}
