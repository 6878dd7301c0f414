"""The audit can fail: what is broken is caught, and what is not passes.

Every test of a sound mechanism raises a false alarm with a probability of at most 10^-6; answers are attacked by exact
laws and raise none.
"""

from __future__ import annotations

import pytest

from dpsda.audit import mechanisms
from tests.audit.mutations import BROKEN, GUARDS, SOUND


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(mechanisms, "BINS", 48_000)
    monkeypatch.setattr(mechanisms, "CANARIES", 3000)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_what_is_broken_is_caught(case):
    """By one attack in three: at this size, one alone misses a record that votes twice in 3 of 400 trials."""
    assert any(finding.caught for _ in range(3) for finding in case.attack())


@pytest.mark.parametrize("case", SOUND, ids=lambda case: case.name)
def test_what_is_sound_passes(case):
    findings = case.attack()
    assert not any(finding.caught for finding in findings)
    assert max(finding.bound.epsilon for finding in findings) > 0.1  # the attack does attack
    assert findings[0].bound.most > findings[0].claimed  # and could have shown more


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_run_that_is_broken_is_refused(guard):
    """And one that is not passes, so that it is the breaking which is refused."""
    assert guard.refused(broken=False) is None
    assert "\n" not in guard.refused(broken=True)
