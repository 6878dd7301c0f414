"""The budget of a training: how many steps, at which sampling rate, under how much noise. All from public figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from dpsda.budget import multiplier, open_histogram
from dpsda.errors import InputError
from dpsda.finetune.options import TrainingOptions
from dpsda.options import PrivacyOptions
from dpsda.privacy import accounting
from dpsda.privacy.accounting import Event, round_up, shown
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import GradientSum, Histogram, histogram
from dpsda.privacy.reservation import Reservation
from dpsda.runs import RunFolder
from dpsda.stages import CLUSTERS, FINETUNE, went_on

STEPS = "steps"  # the kind of its releases


@dataclass(frozen=True)
class Counts:
    """The histogram that decides the labels of the samples, and their rows."""

    name: str  # of the release
    about: str
    noise_multiplier: float
    votes: int = 1  # of a record

    def mechanism(self, ledger: Ledger) -> Histogram:
        return histogram(str(ledger.header["unit"]), self.noise_multiplier, self.votes)


@dataclass(frozen=True)
class Plan:
    """`steps` in all, each on a Poisson sample at `sampling_rate`; `expected` units are in it. No noise is 0."""

    steps: int
    sampling_rate: float
    expected: int
    noise_multiplier: float
    counts: Counts | None
    histogram_noise: float | None

    def gradient_sum(self, training: TrainingOptions, steps: int, noise_multiplier: float | None = None) -> GradientSum:
        """The mechanism of a stretch of `steps`."""
        noise = self.noise_multiplier if noise_multiplier is None else noise_multiplier
        return GradientSum(noise, training.clip_norm, self.sampling_rate, steps)


def plan(
    folder: RunFolder,
    ledger: Ledger,
    privacy: PrivacyOptions,
    training: TrainingOptions,
    config: dict[str, Any],
    may_change: set[str],
    counts: Counts | None,
) -> Plan:
    """The plan of a run, of which nothing is kept before `keep`.

    Where epochs, steps or epsilon changed, what is spent stays as it is and the rest is calibrated so that all of it,
    with `counts` and the histogram that is reserved, composes to epsilon. Raises BudgetError where no noise is
    enough, InputError for a folder of another configuration, a batch above the corpus, or steps after a later stage.
    """
    units, unit = int(ledger.header["units"]), str(ledger.header["unit"])
    if training.batch_size > units:
        raise InputError(
            f"--batch_size {training.batch_size:,} is more than there is, {units:,} {unit}s: the sampling rate would "
            f"be above 1; take a smaller batch, of {max(1, units // 8):,} as an example"
        )
    before = folder.earlier_config(FINETUNE, config, may_change) if ledger.reservations(FINETUNE) else {}
    rate = training.batch_size / units
    steps = all_steps(training.steps, training.epochs, rate)
    made = Plan(steps, rate, training.batch_size, 0.0, counts, training.histogram_noise)
    if went_on(ledger, FINETUNE) and steps > done_steps(ledger):
        raise InputError(
            f"{folder.root}: a later stage went on with its texts, and more steps would replace them; train further in "
            "another --result_folder"
        )
    left = steps - charged_steps(ledger)
    noise = multiplier(
        ledger,
        privacy,
        lambda noise: [made.gradient_sum(training, left, noise).event] if left > 0 else [],
        goal={key: config[key] for key in ("epsilon", "noise", "epochs", "steps", "histogram_noise")},
        before=before,
        earlier=[interval.noise_multiplier for interval in intervals(ledger)],
        beside=others(ledger, made),
    )
    return replace(made, noise_multiplier=noise)


def all_steps(steps: int | None, epochs: float, rate: float) -> int:
    """How many steps are asked for, by their number or by that of the passes over the data."""
    return steps or max(1, int(epochs / rate + 1e-9))


def keep(folder: RunFolder, ledger: Ledger, privacy: PrivacyOptions, config: dict[str, Any], made: Plan) -> None:
    """Note budget and plan, for a restart of the same command: after everything that may refuse it. A run that a
    later stage went on with has nothing to train any more, and stays as it is certified."""
    if not went_on(ledger, FINETUNE):
        ledger.set_budget(privacy.epsilon)
        folder.keep_config(FINETUNE, {**config, "noise_multiplier": made.noise_multiplier})


def others(ledger: Ledger, made: Plan) -> list[Event]:
    """What is still to be charged beside the steps: the counts, and a histogram that is reserved for later."""
    of = made.counts
    counts = open_histogram(ledger, of.name, of.noise_multiplier, of.votes) if of else []
    later = None if went_on(ledger, FINETUNE) else made.histogram_noise
    return counts + open_histogram(ledger, CLUSTERS, later)


def intervals(ledger: Ledger) -> list[Reservation]:
    """The reserved stretches of training, in order."""
    return [release for release in ledger.reservations(FINETUNE) if release.kind == STEPS]


def charged_steps(ledger: Ledger) -> int:
    return max((interval.stop for interval in intervals(ledger)), default=0)


def done_steps(ledger: Ledger) -> int:
    """The steps whose result is stored and committed."""
    return max((x.stop for x in intervals(ledger) if ledger.result(x.name) is not None), default=0)


def open_intervals(ledger: Ledger, made: Plan, training: TrainingOptions) -> Iterator[tuple[str, GradientSum]]:
    """What is still to be trained, one checkpoint each: first the interval that was reserved and not finished."""
    start = done_steps(ledger)
    reserved = next((x for x in intervals(ledger) if ledger.result(x.name) is None), None)
    if reserved is not None:
        yield reserved.name, made.gradient_sum(training, reserved.stop - reserved.start, reserved.noise_multiplier)
        start = reserved.stop
    while start < made.steps:
        stop = min(made.steps, start + training.checkpoint_steps)
        yield f"{STEPS}/{start}-{stop}", made.gradient_sum(training, stop - start)
        start = stop


def describe_plan(ledger: Ledger, privacy: PrivacyOptions, made: Plan, training: TrainingOptions) -> str:
    """Sampling rate, steps, noise and epsilon, for the user."""
    header = ledger.header
    unit, units, delta = header["unit"], int(header["units"]), float(header["delta"])
    count = -(-made.steps // training.checkpoint_steps)
    lines = [
        f"training: {made.steps:,} steps, each {unit} in a step with probability q = {training.batch_size:,} / "
        f"{units:,} = {made.sampling_rate:.6g}; {count} checkpoint{'s' if count > 1 else ''}"
    ]
    if not privacy.protected:
        lines.append(f"epsilon inf: no clipping, no noise, nothing is protected; all goes to {ledger.run / 'private'}")
        return "\n".join(lines)
    left = made.steps - charged_steps(ledger)
    rest = [made.gradient_sum(training, left).event] if left > 0 else []
    total = accounting.epsilon([*ledger.events(), *rest, *others(ledger, made)], delta)
    parts = [f"noise multiplier {made.noise_multiplier:.4f} on gradients clipped to {training.clip_norm:g}"]
    if made.counts:
        parts.append(f"{made.counts.noise_multiplier:g} on {made.counts.about}")
    if made.histogram_noise is not None:
        parts.append(f"{made.histogram_noise:g} on a later histogram, for which budget is left")
    lines.append(f"privacy: {', '.join(parts)}: epsilon {round_up(total)} at delta {shown(delta)}, {units:,} {unit}s")
    return "\n".join(lines)
