"""Bounds against laws that are known. Statistical tests raise a false alarm with a probability of at most 10^-6."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from dpsda.audit import bounds
from dpsda.privacy.accounting import gaussian_epsilon

FAILURE = 1e-6


def test_clopper_pearson_covers():
    for hits, draws in ((1, 50), (3, 50), (25, 50), (49, 50)):
        low, high = bounds.rate(hits, draws, 0.01)
        assert binom.sf(hits - 1, draws, low) <= 0.01 + 1e-9
        assert binom.cdf(hits, draws, high) <= 0.01 + 1e-9
        assert low <= hits / draws <= high
    assert bounds.rate(0, 50, 0.01)[0] == 0 and bounds.rate(50, 50, 0.01)[1] == 1


def test_scores_of_a_gaussian():
    """Below its epsilon, and not far below where draws are many; as well if the record lowers the score."""
    rng = np.random.default_rng(0)
    gone, there = rng.normal(0, 1, (200_000, 1)), rng.normal(1, 1, (200_000, 1))
    exact = gaussian_epsilon(1.0, 1, 1e-2)
    for sign in (1, -1):
        found = bounds.from_scores(sign * there, sign * gone, 1e-2, FAILURE)
        assert 0.75 * exact < found.epsilon < exact
    assert bounds.from_scores(gone, gone[::-1], 1e-2, FAILURE).epsilon == 0


def test_the_better_score_is_chosen():
    rng = np.random.default_rng(0)
    gone, there = rng.normal(size=(2, 4000, 2))
    there[:, 1] += 4
    found = bounds.from_scores(there, gone, 1e-5, FAILURE, ("noise", "clear"))
    assert found.how.startswith("clear") and 3 < found.epsilon < found.most


def test_no_more_is_found_than_could_be():
    apart = bounds.from_scores(np.ones((2000, 1)), np.zeros((2000, 1)), 1e-5, FAILURE)
    assert apart.epsilon == pytest.approx(apart.most)
    assert apart.most == pytest.approx(math.log(1000 / math.log(2 / FAILURE)), abs=0.1)


def test_laws_of_randomised_response():
    """The exact epsilon of n answers, each the truth with a probability e^0.5 times that of a lie: summed by hand."""
    truth = 1 / (1 + math.exp(-0.5))
    one = np.array([truth, 1 - truth - 1e-13, 1e-13])
    other = one[[1, 0, 2]]
    found = bounds.from_laws(one, other, 30, 1e-3).epsilon
    k = np.arange(31)
    p, q = binom.pmf(k, 30, truth), binom.pmf(k, 30, 1 - truth)
    assert np.maximum(p - math.exp(found) * q, 0).sum() == pytest.approx(1e-3, rel=1e-4)
    assert bounds.from_laws(one, one, 30, 1e-3).epsilon == 0
    assert bounds.from_laws(other, one, 30, 1e-3).epsilon == pytest.approx(found)


def test_laws_in_the_worse_direction():
    one, other = np.array([0.1, 1e-6, 0.9 - 1e-6]), np.array([1e-6, 1e-6, 1 - 2e-6])
    assert bounds.from_laws(one, other, 1, 1e-3).epsilon > math.log(0.09 / 1e-6)


def test_guesses_without_a_guarantee_reach_the_most():
    there = np.arange(1000) % 2 == 1
    found = bounds.from_guesses(there.astype(float), there, 1e-5, 0.05)
    assert found.epsilon == found.most > 5


def test_guesses_by_chance_show_nothing():
    rng = np.random.default_rng(0)
    there = rng.random(1000) < 0.5
    assert bounds.from_guesses(rng.random(1000), there, 1e-5, FAILURE).epsilon == 0


def test_guesses_at_randomised_response():
    """1,000 coins, each told truly with a probability of e^2 / (1 + e^2): 2-DP, and shown to be above 1.4."""
    rng = np.random.default_rng(0)
    there = rng.random(1000) < 0.5
    told = np.where(rng.random(1000) < 1 / (1 + math.exp(-2)), there, ~there)
    found = bounds.from_guesses(told + rng.random(1000) / 2, there, 0.0, FAILURE)
    assert 1.2 < found.epsilon < 2


def test_the_probability_of_right_guesses():
    """Of Theorem 5.2: a binomial tail, and what delta adds to it, summed by hand."""
    assert bounds.guess_probability(9, 10, 20, 1.0, 0.0) == pytest.approx(binom.sf(8, 10, math.e / (1 + math.e)))
    law = binom.pmf(np.arange(11), 10, math.e / (1 + math.e))
    worst = max(law[9 - i : 9].sum() / i for i in range(1, 10))
    wanted = law[9:].sum() + 2 * 20 * 1e-3 * worst
    assert bounds.guess_probability(9, 10, 20, 1.0, 1e-3) == pytest.approx(wanted)


def test_nobody_is_guessed_both_ways():
    there = np.arange(7) % 2 == 1
    assert bounds.from_guesses(there.astype(float), there, 0.0, 0.05).how.endswith("of 6 guesses are right")
