"""How much noise there is in what a run is still to release: one rule for all routes, and for a run that goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dpsda.errors import InputError
from dpsda.options import PrivacyOptions
from dpsda.privacy import accounting
from dpsda.privacy.accounting import Event, round_up
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import histogram

# Where next to no budget is left, what is added would undo what is there: at most so many times the noise of that.
DROWNED = 5
MOST = 1000.0  # the noise multiplier of a run that has spent nothing


def multiplier(
    ledger: Ledger,
    privacy: PrivacyOptions,
    events: Callable[[float], list[Event]],
    *,
    goal: dict[str, Any] | None = None,
    before: dict[str, Any] | None = None,
    earlier: Sequence[float] = (),
    beside: Sequence[Event] = (),
    most: float | None = None,
) -> float:
    """The noise multiplier of what is not charged yet: `events` gives its charges at one, and none if all is charged.

    A command whose `goal` (options that budget and length follow from, by name) is that of the configuration `before`
    takes the multiplier that it had. Otherwise the one that was asked for is taken; or the smallest one, at most
    `most`, at which these events, those `beside` them and all that is spent compose to epsilon. `earlier` are the
    multipliers of what was charged of the same kind. Raises BudgetError where no noise is enough, InputError where
    nothing is left.
    """
    if before and goal and all(before.get(key) == value for key, value in goal.items()):
        return float(before["noise_multiplier"])
    if privacy.noise is not None:
        return privacy.noise
    assert privacy.epsilon is not None
    if not privacy.protected:
        return 0.0
    if not events(1.0):
        return max(earlier, default=0.0)
    spent, delta = [*ledger.events(), *beside], float(ledger.header["delta"])
    taken = accounting.epsilon(spent, delta) if beside else 0.0
    if taken >= privacy.epsilon:
        raise InputError(
            f"epsilon {privacy.epsilon:g} leaves nothing for what is still to be released: what is spent, the counts "
            f"of labels or attributes and the reserved histogram take {round_up(taken)}; ask for a larger --epsilon, "
            "or more --label_noise, --marginals_noise or --histogram_noise"
        )
    if most is None:
        most = DROWNED * max(earlier) if earlier else MOST
    return accounting.calibrate(events, privacy.epsilon, delta, spent, most)


def open_histogram(ledger: Ledger, name: str, noise: float | None, votes: int = 1) -> list[Event]:
    """What a histogram of so many votes a record that is still to be drawn will cost, [] if it is charged already, or
    none is planned."""
    if noise is None or ledger.charged(name):
        return []
    return [histogram(str(ledger.header["unit"]), noise, votes).event]
