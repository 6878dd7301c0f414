"""Mechanisms that are broken on purpose, beside sound ones, and the attack on each; and runs that are, which no attack
on a mechanism would show, since what they claim is not what they did: they are refused.

python -m tests.audit.mutations      a table of what the audit shows of each, at its full size
"""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

from dpsda.audit import mechanisms
from dpsda.audit.mechanisms import Finding
from dpsda.errors import InputError
from dpsda.finetune.gradients import GradientSums, check_per_sample
from dpsda.pmixed import projection
from dpsda.pmixed.planning import plan
from dpsda.privacy import accounting
from dpsda.privacy.accounting import SubsampledGaussian, Zcdp
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.mechanism import GradientSum, RecordHistogram, UserHistogram
from dpsda.privacy.mixture import Mixture
from dpsda.privacy.noise import discrete_gaussian, gaussian
from dpsda.routes import augpe, finetune
from dpsda.tuning.generator import NextToken
from dpsda.tuning.generator import made_up as made_up_batch
from tests.conftest import made_up, options
from tests.finetune.made import options as finetune_options
from tests.finetune.tiny import SIZE, saved, tiny
from tests.fuzz import stand_ins

FAILURE = 1e-6
DELTA = 1e-5
EPSILON = 4.0
RELEASES = 2


class Quarter(RecordHistogram):
    def release(self, votes, users, bins):
        return (self.sums(votes, users, bins) + discrete_gaussian(self.scale / 4, bins)).astype(float)


class Silent(RecordHistogram):
    def release(self, votes, users, bins):
        return self.sums(votes, users, bins).astype(float)


class Twice(RecordHistogram):
    def sums(self, votes, users, bins):
        return 2 * super().sums(votes, users, bins)


class Replayed(RecordHistogram):
    """Noise by a seed that a restart starts from again."""

    def release(self, votes, users, bins):
        noise = np.random.default_rng(0).normal(0, self.scale, bins).round()
        return self.sums(votes, users, bins) + noise


class Unbounded(UserHistogram):
    def sums(self, votes, users, bins):
        return self.grid * np.bincount(votes.ravel(), minlength=bins)


class QuarterSteps(GradientSum):
    def noise(self, size):
        return gaussian(self.scale / 4, size)


class SilentSteps(GradientSum):
    def noise(self, size):
        return np.zeros(size, np.float32)


class Everybody(GradientSum):
    def sample(self, units):
        return np.arange(units)


@dataclass(frozen=True)
class Case:
    name: str
    attack: Callable[[], list[Finding]]


def histogram(kind: type[RecordHistogram], votes: int = 1) -> list[Finding]:
    noise = accounting.calibrate(lambda x: [kind(x, votes).event] * RELEASES, EPSILON, DELTA)
    return mechanisms.histogram(kind(noise, votes), RELEASES, DELTA, FAILURE)


def users(kind: type[UserHistogram]) -> list[Finding]:
    noise = accounting.calibrate(lambda x: [Zcdp(RELEASES / (2 * x**2))], EPSILON, DELTA)
    return mechanisms.histogram(kind(noise), RELEASES, DELTA, FAILURE)


def training(kind: type[GradientSum] = GradientSum, rate: float = 0.5, steps: int = 2) -> list[Finding]:
    return mechanisms.gradients(kind(step_noise(rate, steps), 0.5, rate, steps), DELTA, FAILURE)


@functools.cache
def step_noise(rate: float, steps: int) -> float:
    return accounting.calibrate(lambda noise: [SubsampledGaussian(noise, rate, steps)], EPSILON, DELTA)


def unclipped() -> list[Finding]:
    def add(self, weights):
        for total, parameter in zip(self.totals, self.weights, strict=True):
            total += (weights.view(-1, 1, 1) * parameter.grad_sample).sum(0)
            parameter.grad_sample = None

    with patch.object(GradientSums, "_add_clipped", add):
        return training()


def answers(method: str, shards: int, inclusion: float, queries: int, epsilon: float = 8.0) -> list[Finding]:
    return mechanisms.answers(plan(method, Mixture(shards, inclusion), queries, epsilon, DELTA), queries, DELTA)


def larger_ball() -> list[Finding]:
    real = projection.onto_max_divergence
    with patch.object(projection, "onto_max_divergence", lambda p, public, bound: real(p, public, 4 * bound)):
        return answers("max", 2, 1.0, 64, EPSILON)


BROKEN = [
    Case("votes: a quarter of the noise", lambda: histogram(Quarter)),
    Case("votes: no noise", lambda: histogram(Silent)),
    Case("votes: a record votes twice", lambda: histogram(Twice)),
    Case("votes: a resume replays the noise", lambda: histogram(Replayed)),
    Case("votes of users: three records, three votes", lambda: users(Unbounded)),
    Case("DP-SGD: a quarter of the noise", lambda: training(QuarterSteps)),
    Case("DP-SGD: no noise", lambda: training(SilentSteps)),
    Case("DP-SGD: no clipping", unclipped),
    Case("DP-SGD: all records in a batch, 1 in 20 accounted", lambda: training(Everybody, 0.05, 8)),
    Case("PMixED as published, N = 2, p = 0.5, T = 64", lambda: answers("paper", 2, 0.5, 64)),
    Case("PMixED as published, N = 16, p = 0.03, T = 512", lambda: answers("paper", 16, 0.03, 512)),
    Case("PMixED: max-divergence, a ball four times as large", larger_ball),
]

SOUND = [
    Case("votes", lambda: histogram(RecordHistogram)),
    Case("votes: three a record", lambda: histogram(RecordHistogram, 3)),
    Case("votes of users", lambda: users(UserHistogram)),
    Case("DP-SGD", training),
    *(
        Case(f"PMixED: {method}, N = {n}, p = {p:g}, T = {t}", lambda m=method, n=n, p=p, t=t: answers(m, n, p, t))
        for method in ("max", "renyi", "dclip")
        for n, p, t in ((2, 0.5, 64), (16, 0.03, 256))
    ),
]


@dataclass(frozen=True)
class Guard:
    """A run in an empty folder, which `attempt` breaks on purpose if it is told to."""

    name: str
    attempt: Callable[[Path, bool], None]

    def refused(self, *, broken: bool) -> str | None:
        """What the run is refused with, or None."""
        with tempfile.TemporaryDirectory() as root, contextlib.redirect_stdout(io.StringIO()):
            try:
                self.attempt(Path(root), broken)
            except (InputError, PrivacyError) as error:
                return str(error)
        return None


def goes_on_with_another_ledger(root: Path, broken: bool) -> None:
    """An empty ledger would be begun anew, and certify epsilon 0 for texts that were voted for."""
    chosen = options(made_up(root / "data"), privacy={"noise": 3.0}, evolution={"epochs": 1})
    with stand_ins():
        augpe.generate(root / "run", *chosen)
        if broken:
            (root / "run" / "state" / "ledger.jsonl").unlink()
        augpe.generate(root / "run", *chosen)


def samples_another_adapter(root: Path, broken: bool) -> None:
    """That of a training without noise, say: its texts would be certified by the noise of this one."""
    data, model = made_up(root / "data"), saved("llama", root / "model")
    for run in ("run", "other"):
        finetune.generate(root / run, *finetune_options(data, model, sampling={"skip_sampling": True}))
    if broken:
        shutil.copytree(root / "other" / "state" / "adapter", root / "run" / "state" / "adapter", dirs_exist_ok=True)
    finetune.generate(root / "run", *finetune_options(data, model))


def trains_records_on_each_other(root: Path, broken: bool) -> None:
    """A layer that takes the mean over its batch: clipped each by itself, all gradients move by one record."""
    model = tiny("llama", tied=False)
    if broken:
        layer = model.model.layers[0]
        layer.register_forward_hook(lambda module, inputs, out: out + 0.1 * out.mean(dim=0, keepdim=True))
    check_per_sample(GradientSums(model, NextToken(model), 0.5), made_up_batch(SIZE, "cpu"))


GUARDS = [
    Guard("a run goes on under a fresh ledger", goes_on_with_another_ledger),
    Guard("an adapter is swapped before it is sampled", samples_another_adapter),
    Guard("a record's gradient moves its batch-mates'", trains_records_on_each_other),
]


def worst(findings: list[Finding]) -> Finding:
    """The finding whose bound is most above its claim, or least below."""
    return max(findings, key=lambda finding: finding.bound.epsilon - finding.claimed)


if __name__ == "__main__":
    print(f"| mechanism | delta | claimed | at least | |\n|{'---|' * 5}")
    for case in [*BROKEN, *SOUND]:
        found = worst(case.attack())
        verdict = "caught" if found.caught else "passes"
        print(
            f"| {case.name} | {found.delta:g} | {found.claimed:.2f} | {found.bound.epsilon:.2f} | {verdict} |",
            flush=True,
        )
    print(f"\n| run | refused with | unbroken |\n|{'---|' * 3}")
    for guard in GUARDS:
        unbroken = guard.refused(broken=False) or "passes"
        print(f"| {guard.name} | {guard.refused(broken=True) or 'NOTHING'} | {unbroken} |", flush=True)
