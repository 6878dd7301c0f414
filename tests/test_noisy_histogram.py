"""The one door from private votes to a stored noisy histogram."""

from __future__ import annotations

import contextlib

import numpy as np
import pandas as pd
import pytest

from dpsda.noisy_histogram import noisy_histogram
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import histogram
from dpsda.runs import RunFolder, read_csv

VOTES = np.array([[0], [0], [2]])
BINS = pd.DataFrame({"bin": ["a", "b", "c"]})


@pytest.fixture
def opened(tmp_path):
    with contextlib.closing(Ledger(tmp_path)) as ledger:
        ledger.open(unit="record", units=3, delta=1e-5, facts={})
        yield RunFolder(tmp_path).make(), ledger


def draw(opened, noise, votes=lambda: VOTES):
    folder, ledger = opened
    path, mechanism = folder.root / "1" / "counts.csv", histogram("record", noise)
    return noisy_histogram(folder, ledger, "augpe", "votes/1", path, mechanism, votes, None, BINS)


def test_it_is_drawn_once_and_read_from_what_is_stored(opened):
    first = draw(opened, 3.0)
    assert draw(opened, 3.0, lambda: pytest.fail("the votes are not needed")).tolist() == first.tolist()
    stored = read_csv(opened[0].root / "1" / "counts.csv")
    assert stored["bin"].tolist() == ["a", "b", "c"] and stored["noisy"].astype(float).tolist() == first.tolist()
    assert len(opened[1].reservations()) == 1 and opened[1].result("votes/1") is not None


def test_votes_that_fail_leave_a_reservation_that_the_next_draw_keeps_to(opened):
    """As a kill does: another multiplier, which a restart may have, is for what was not reserved yet."""
    with pytest.raises(ZeroDivisionError):
        draw(opened, 5.0, lambda: 1 / 0)
    draw(opened, 3.0)
    [reserved] = opened[1].reservations()
    assert reserved.mechanism == histogram("record", 5.0) and opened[1].epsilon() < 1
    assert [line["type"] for line in opened[1].lines] == ["open", "reserve", "retry", "commit"]


def test_without_noise_it_is_the_counts(opened):
    assert draw(opened, 0.0).tolist() == [2.0, 0.0, 1.0]
