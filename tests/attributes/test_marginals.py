"""What one record or user moves in the marginals, and where their bins are."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dpsda.attributes.marginals import Marginals
from dpsda.data import DatasetSpec
from dpsda.errors import InputError
from dpsda.privacy.mechanism import histogram

MARGINALS = Marginals(("kind", "plan", "mood"), (("a", "b"), ("x", "y", ""), ("u", "v", "w", "z")))
# codes of records, -1 where the encoder had no vector
RECORDS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(-1, 3)), max_size=12)


def test_bins_and_tables():
    codes = np.array([[0, 1, 2], [0, 1, 2], [1, 2, -1]])
    votes, bins = MARGINALS.votes(codes), MARGINALS.bins()
    assert MARGINALS.sets == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)] and votes.shape == (3, 6)
    assert len(bins) == 2 + 3 + 4 + 6 + 8 + 12 and votes.max() < len(bins)
    named = [tuple(bins.iloc[bin]) for bin in votes[0]]
    assert named[:3] == [("kind", "a"), ("plan", "y"), ("mood", "w")]
    assert named[3:] == [("kind x plan", "a x y"), ("kind x mood", "a x w"), ("plan x mood", "y x w")]
    assert (votes[2] == -1).tolist() == [False, False, True, False, True, True]
    counts = histogram("record", 0.0, 6).sums(votes, None, len(bins))
    tables = MARGINALS.tables(counts.astype(float))
    assert tables[0,].tolist() == [2, 1] and tables[0, 2][0, 2] == 2 and tables[1, 2].sum() == 2
    assert [tables[some].shape for some in MARGINALS.sets] == [(2,), (3,), (4,), (2, 3), (2, 4), (3, 4)]


@settings(max_examples=200, deadline=None)
@given(RECORDS, st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(-1, 3)))
def test_a_record_moves_one_bin_of_each_marginal_by_one(records, one):
    mechanism, bins = histogram("record", 1.0, len(MARGINALS.sets)), len(MARGINALS.bins())
    before, after = (
        mechanism.sums(MARGINALS.votes(np.array(some, np.int32).reshape(-1, 3)), None, bins)
        for some in (records, [*records, one])
    )
    moved = after - before
    assert set(moved) <= {0, 1} and moved.sum() <= mechanism.votes
    assert all(part.sum() == (-1 not in [one[i] for i in some]) for some, part in MARGINALS.tables(moved).items())


@settings(max_examples=200, deadline=None)
@given(RECORDS, st.lists(st.integers(0, 3), min_size=13, max_size=13), RECORDS)
def test_a_user_moves_the_sums_by_one(records, owners, own):
    """However many records, alike or not, with whatever is missing."""
    mechanism, bins = histogram("user", 1.0, len(MARGINALS.sets)), len(MARGINALS.bins())
    users = np.array(owners[: len(records)], dtype=np.int64)
    before = mechanism.sums(MARGINALS.votes(np.array(records, np.int32).reshape(-1, 3)), users, bins)
    everybody = np.concatenate([users, np.full(len(own), 99)])
    after = mechanism.sums(MARGINALS.votes(np.array([*records, *own], np.int32).reshape(-1, 3)), everybody, bins)
    assert ((after - before) ** 2).sum() <= mechanism.grid**2


def test_a_marginal_that_is_too_large_is_named(tmp_path):
    attributes = [{"column": name, "domain": [f"{name}{i}" for i in range(1200)]} for name in ("here", "there")]
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({"text": "t", "attributes": attributes, "splits": {"a": "x"}}))
    spec = DatasetSpec.read(tmp_path)
    said = r"the marginals have 1,444,803 cells, and 1,000,000 are the most; that of here and there alone has 1,442,401"
    with pytest.raises(InputError, match=said):
        Marginals.of(spec)
    assert Marginals.of(spec, 1).sets == [(0,), (1,)]
