"""Pairwise win rate: which of two models answers held-out instructions better (Yu et al. 2024).

Every pair is judged twice, with either answer first. A model wins where it is preferred both times; everything else is
a tie: two verdicts that disagree, or a tie by the judge's own word. Two equal answers are a tie that nobody is asked
about.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from apis.api import Prompt, TextAPI
from dpsda.wording import without_reasoning

Z = 1.959963984540054  # of a two-sided 95% interval
SYSTEM = "You compare two answers to the same request, and are a fair and careful judge."
QUESTION = """Which answer is better? Judge whether it does what the request asks, and whether it is right, clear and \
to the point. Neither the order of the answers nor their length matters.

[Request]
{instruction}

[Answer A]
{first}

[Answer B]
{second}

[Verdict]
Reply with one letter only: A if answer A is better, B if answer B is better, or C if they are equally good."""
# the letter alone, or after what models like to put before it; the last one counts
VERDICT = re.compile(r"(?:\[\[|\*\*|\b(?:verdict|answer|choice)\W{1,4})?(?<![A-Za-z'])([ABC])(?![A-Za-z'])")


@dataclass(frozen=True)
class Comparison:
    """An instruction and two answers in the order in which the judge sees them."""

    instruction: str
    first: str
    second: str

    def question(self, template: str = QUESTION) -> str:
        return template.format(instruction=self.instruction, first=self.first, second=self.second)


@dataclass(frozen=True)
class Verdict:
    """`value`: 1 where the first answer is better, -1 where the second is, 0 for a tie, None for no verdict. `odds`:
    the log-odds of the first, from a judge that has them."""

    value: int | None
    odds: float | None = None


class Judge(Protocol):
    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One for each comparison; all comparisons of an evaluation come in one call."""
        ...

    @property
    def first_share(self) -> float:
        """Of what the judge preferred, how much stood first; .5 has no position bias. NaN before the first verdict."""
        ...


class AskingJudge:
    """A model that is asked for its verdict in words."""

    def __init__(self, api: TextAPI, seed: int, max_new_tokens: int = 16) -> None:
        self.api, self.seed, self.max_new_tokens = api, seed, max_new_tokens
        self.first_share = math.nan

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        prompts = [Prompt(c.question(), system=SYSTEM, max_new_tokens=self.max_new_tokens) for c in comparisons]
        found = [read_verdict(answer) for answer in self.api.generate(prompts, self.seed)]
        decided = [verdict for verdict in found if verdict]
        self.first_share = decided.count(1) / len(decided) if decided else math.nan
        return [Verdict(value) for value in found]


def read_verdict(answer: str | None) -> int | None:
    """The verdict in an answer to `QUESTION`: 1, -1 or 0; None where it names none, or is no answer.
    What it thinks before that, in tags, is no verdict."""
    letters = VERDICT.findall(without_reasoning(answer or ""))
    return {"A": 1, "B": -1, "C": 0}[letters[-1]] if letters else None


@dataclass(frozen=True)
class Judged:
    """The two verdicts on one pair, each from the first model's side: 1 better, -1 worse, 0 a tie, None no verdict.

    `margin` is the mean log-odds of the first model over both orders, in which a preference for a place cancels.
    """

    instruction: str
    answer: str
    against: str
    shown_first: int | None
    shown_second: int | None
    margin: float | None = None

    @property
    def outcome(self) -> int | None:
        """1 a win, -1 a loss, 0 a tie; None where one of the verdicts is missing."""
        if self.shown_first is None or self.shown_second is None:
            return None
        return self.shown_first if self.shown_first == self.shown_second else 0


def compare(judge: Judge, rows: Sequence[tuple[str, str, str]]) -> list[Judged]:
    """Judge each (instruction, answer, answer of the other model) in both orders, all in one call."""
    asked = [i for i, (_, answer, against) in enumerate(rows) if answer != against]
    there = [Comparison(*rows[i]) for i in asked]
    back = [Comparison(c.instruction, c.second, c.first) for c in there]
    verdicts = judge.verdicts([*there, *back]) if asked else []
    judged = {
        i: _both(rows[i], first, second)
        for i, first, second in zip(asked, verdicts[: len(asked)], verdicts[len(asked) :], strict=True)
    }
    return [judged.get(i) or Judged(*row, 0, 0) for i, row in enumerate(rows)]


def _both(row: tuple[str, str, str], first: Verdict, second: Verdict) -> Judged:
    """`second` was given with the answers the other way round."""
    margin = None if first.odds is None or second.odds is None else (first.odds - second.odds) / 2
    return Judged(*row, first.value, None if second.value is None else -second.value, margin)


@dataclass(frozen=True)
class WinRate:
    """How often a model is preferred to another; pairs without a verdict do not count."""

    wins: int
    ties: int
    losses: int

    @property
    def n(self) -> int:
        return self.wins + self.ties + self.losses

    @property
    def rate(self) -> float:
        """(wins + ties / 2) / n."""
        return (self.wins + self.ties / 2) / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% score interval of the rate over instructions (Wilson 1927).

        A tie counts as half a win; the variance of such outcomes is at most that of wins and losses at the same rate,
        so with ties the interval is wider than it has to be, never narrower.
        """
        centre = (self.rate + Z * Z / (2 * self.n)) / (1 + Z * Z / self.n)
        half = Z / (1 + Z * Z / self.n) * math.sqrt(self.rate * (1 - self.rate) / self.n + (Z / (2 * self.n)) ** 2)
        return max(0.0, centre - half), min(1.0, centre + half)

    def line(self, name: str, against: str) -> str:
        low, high = self.interval
        return (
            f"win rate {name} vs {against}: {self.rate:.2f} [{low:.2f}, {high:.2f}], {self.n} prompts, {self.ties} ties"
        )


def win_rate(judged: Sequence[Judged], by_margin: bool = False) -> WinRate:
    """The win rate by the verdicts in both orders, or by the sign of the margin, which leaves few ties."""
    outcomes: list[int | None]
    if by_margin:
        outcomes = [(pair.margin > 0) - (pair.margin < 0) if pair.margin is not None else 0 for pair in judged]
    else:
        outcomes = [pair.outcome for pair in judged]
    return WinRate(outcomes.count(1), outcomes.count(0), outcomes.count(-1))
