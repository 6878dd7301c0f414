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
    assert (labels_of(vectors, noisy) == truth).mean() > 0.95


def test_votes_that_tell_nothing():
    vectors = np.eye(4, dtype=np.float32)
    assert (labels_of(vectors, np.zeros((3, 4))) == 0).all()
    assert (labels_of(vectors, np.array([[-1.0] * 4, [2.0] * 4])) == 1).all()
