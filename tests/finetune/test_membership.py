"""Who is in a batch: the rate that the accounting assumes, and users who count once."""

from __future__ import annotations

import numpy as np
import pytest

from dpsda.finetune.membership import Records, Users
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.mechanism import GradientSum


def at(rate: float) -> GradientSum:
    return GradientSum(1.0, 1.0, rate, 1)


@pytest.mark.parametrize("rate", [4096 / 180_000, 0.2, 0.7])
def test_inclusion_is_at_the_rate_and_independent(rate):
    """A million draws: the mean is within .003 of q (6 standard errors, one false alarm in 10^8 runs), no unit
    is preferred, and the batch size varies as a binomial does (each within 6 of its standard errors)."""
    units, steps = 2000, 500
    counts, sizes = np.zeros(units), []
    for _ in range(steps):
        rows, weights = Records(units).draw(at(rate))
        counts[rows] += 1
        sizes.append(len(rows))
        assert len(np.unique(rows)) == len(rows) and (weights == 1).all()
    assert abs(counts.sum() / (units * steps) - rate) < 0.003
    one = np.sqrt(rate * (1 - rate) * steps)
    assert np.abs(counts - steps * rate).max() < 7 * one
    variance = rate * (1 - rate) * units
    assert abs(np.var(sizes) / variance - 1) < 6 * np.sqrt(2 / steps)


def test_no_seed_reaches_membership():
    draws = []
    for _ in range(2):
        np.random.seed(0)
        draws.append(Records(1000).draw(at(0.5))[0].tolist())
    assert draws[0] != draws[1]


def test_everybody_is_in_a_batch_of_rate_one_and_nobody_in_an_empty_one():
    assert Records(50).draw(at(1.0))[0].tolist() == list(range(50))
    assert len(Records(5).draw(at(1e-12))[0]) == 0
    for rate in (0.0, 1.01, float("nan")):
        with pytest.raises(PrivacyError, match="sampling rate"):
            at(rate)


@pytest.mark.parametrize("most", [1, 3])
def test_a_user_weighs_one_at_most(most):
    """However many records a user has, and each of them is taken now and then."""
    users = np.array([7, 7, 7, 7, 7, 7, 7, 7, 3, 3, 9])
    members, seen, times = Users(users, most), set(), np.zeros(10)
    assert members.units == 3
    for _ in range(400):
        rows, weights = members.draw(at(0.5))
        total = np.bincount(users[rows], weights=weights, minlength=10)
        assert np.isin(np.round(total, 5), [0, 1]).all() and len(set(rows)) == len(rows)
        assert np.bincount(users[rows], minlength=10).max() <= most
        times += total > 0
        seen |= set(rows.tolist())
    assert seen == set(range(11))
    assert np.abs(times[[3, 7, 9]] / 400 - 0.5).max() < 0.15  # 6 standard errors
