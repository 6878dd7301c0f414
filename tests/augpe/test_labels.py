"""Labels that are read off the votes."""

import numpy as np
import pytest

from dpsda.augpe.ballot import Ballot
from dpsda.augpe.labels import labels_of
from dpsda.augpe.population import Population
from dpsda.augpe.voting import vote
from dpsda.privacy.mechanism import histogram


def around(centres, count, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(len(centres), size=count)
    rows = centres[truth] + 0.3 * rng.normal(size=(count, centres.shape[1]))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), truth


@pytest.mark.parametrize("labels", [2, 3])
def test_the_votes_of_a_label_tell_where_its_texts_lie(labels):
    """Candidates whose own labels are chance get those of the records that vote for them, through the noise."""
    centres = np.eye(8)[:labels]
    records, own = around(centres, 4000, 1)
    vectors, truth = around(centres, 150, 2)
    texts = Population([str(i) for i in range(150)], [""] * 150, [f"text {i}" for i in range(150)], np.zeros(150, int))
    standing = texts.under_every_label(labels)
    assert len(standing) == 150 * labels and standing.ids[150:300] == texts.ids and (standing.cells[150:300] == 1).all()
    ballot = Ballot.of(np.tile(vectors, (labels, 1)), standing.cells, "L2", "csls", 0.5)
    votes = vote(records, own, ballot, 1)
    assert votes.shape == (4000, 1) and (standing.cells[votes[:, 0]] == own).all()  # one vote, under its own label
    noisy = histogram("record", 3.0).release(votes, None, len(standing)).reshape(labels, 150)
    none = np.zeros(labels, int)
    found = labels_of(vectors, noisy, none)
    assert (found == truth).mean() > 0.95
    assert np.array_equal(labels_of(vectors, noisy, np.bincount(found) - 3), found)
    wanted = none.copy()
    wanted[0] = 100  # more than there are: the others are those between two labels, and none is taken twice
    assert (np.bincount(labels_of(vectors, noisy, wanted), minlength=labels)[0]) == 100


def test_votes_that_tell_nothing():
    vectors = np.eye(4, dtype=np.float32)
    assert labels_of(vectors, np.zeros((3, 4)), np.array([0, 0, 0])).tolist() == [0] * 4
    assert sorted(labels_of(vectors, np.zeros((3, 4)), np.array([1, 2, 1]))) == [0, 1, 1, 2]
    alone = np.array([[-1.0] * 4, [2.0] * 4])
    assert labels_of(vectors, alone, np.array([0, 3])).tolist() == [1] * 4
    assert sorted(labels_of(vectors, alone, np.array([3, 3]))) == [0, 1, 1, 1]  # there are not enough for both
