"""The budget of a training: how many steps, at which sampling rate, under how much noise. All from public figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from dpsda.errors import InputError
from dpsda.finetune.options import TrainingOptions
from dpsda.label_counts import NAME as LABEL_COUNTS
from dpsda.options import PrivacyOptions
from dpsda.privacy import accounting
from dpsda.privacy.accounting import Event, round_up, shown
from dpsda.privacy.ledger import Ledger, Line, span
from dpsda.privacy.mechanism import GradientSum, histogram
from dpsda.runs import RunFolder
from dpsda.start import LATER

STAGE = "finetune"
STEPS = "steps/"

# Steps that are added with next to no budget left would undo the earlier ones: at most so many times their noise.
DROWNED = 5


@dataclass(frozen=True)
class Plan:
    """`steps` in all, each on a Poisson sample at `sampling_rate`; `expected` units are in it. No noise is 0."""

    steps: int
    sampling_rate: float
    expected: int
    noise_multiplier: float
    label_noise: float
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
    *,
    label_counts: bool,
) -> Plan:
    """The plan of a run, of which nothing is kept before `keep`.

    Where epochs, steps or epsilon changed, what is spent stays as it is and the rest is calibrated so that all of it,
    with the label counts and the histogram that is reserved, composes to epsilon. Raises BudgetError where no noise is
    enough, InputError for a folder of another configuration, a batch above the corpus, or steps after a resampling.
    """
    units, unit = int(ledger.header["units"]), str(ledger.header["unit"])
    if training.batch_size > units:
        raise InputError(
            f"--batch_size {training.batch_size:,} is more than there is, {units:,} {unit}s: the sampling rate would "
            "be above 1; take a smaller batch"
        )
    before = folder.earlier_config(STAGE, config, may_change) if ledger.reservations(STAGE) else {}
    rate = training.batch_size / units
    steps = training.steps or max(1, int(training.epochs / rate + 1e-9))
    label_noise = training.label_noise if privacy.protected else 0.0
    made = Plan(steps, rate, training.batch_size, 0.0, label_noise, training.histogram_noise)
    if ledger.reservations(LATER) and steps > done_steps(ledger):
        raise InputError(
            f"{folder.root}: its texts were resampled, and more steps would replace them; train further in another "
            "--result_folder"
        )
    goal = {key: config[key] for key in ("epsilon", "noise", "epochs", "steps", "histogram_noise")}
    if {key: before.get(key) for key in goal} == goal:
        noise = float(before["noise_multiplier"])
    elif privacy.noise is not None:
        noise = privacy.noise
    else:
        noise = _calibrate(ledger, made, training, privacy, label_counts=label_counts) if privacy.protected else 0.0
    return replace(made, noise_multiplier=noise)


def keep(folder: RunFolder, ledger: Ledger, privacy: PrivacyOptions, config: dict[str, Any], made: Plan) -> None:
    """Note budget and plan, for a restart of the same command: after everything that may refuse it. A run whose texts
    were resampled has nothing to train any more, and stays as it is certified."""
    if not ledger.reservations(LATER):
        ledger.set_budget(privacy.epsilon)
        folder.keep_config(STAGE, {**config, "noise_multiplier": made.noise_multiplier})


def others(ledger: Ledger, made: Plan, *, label_counts: bool) -> list[Event]:
    """What is still to be charged beside the steps: the label counts, and a histogram that is reserved for later."""
    unit, charged = str(ledger.header["unit"]), {line["name"] for line in ledger.charges()}
    events = []
    if label_counts and LABEL_COUNTS not in charged:
        events.append(histogram(unit, made.label_noise).event)
    if made.histogram_noise is not None and not ledger.reservations(LATER):
        events.append(histogram(unit, made.histogram_noise).event)
    return events


def _calibrate(
    ledger: Ledger, made: Plan, training: TrainingOptions, privacy: PrivacyOptions, *, label_counts: bool
) -> float:
    """The smallest noise multiplier for the steps that are not charged yet."""
    assert privacy.epsilon is not None
    delta, spent = float(ledger.header["delta"]), ledger.events()
    fixed = others(ledger, made, label_counts=label_counts)
    open_steps = made.steps - charged_steps(ledger)
    if open_steps <= 0:
        return max((float(x["noise_multiplier"]) for x in intervals(ledger)), default=0.0)
    beside = accounting.epsilon([*spent, *fixed], delta) if spent or fixed else 0.0
    if beside >= privacy.epsilon:
        raise InputError(
            f"epsilon {privacy.epsilon:g} leaves nothing for the training: what is spent, the label counts and the "
            f"reserved histogram take {round_up(beside)}; ask for a larger --epsilon, or more --label_noise or "
            "--histogram_noise"
        )

    def events(noise: float) -> list[Event]:
        return [made.gradient_sum(training, open_steps, noise).event]

    earlier = [float(x["noise_multiplier"]) for x in intervals(ledger)]
    most = DROWNED * max(earlier) if earlier else 1000.0
    return accounting.calibrate(events, privacy.epsilon, delta, [*spent, *fixed], most)


def intervals(ledger: Ledger) -> list[Line]:
    """The reserved stretches of training, in order."""
    return [line for line in ledger.reservations(STAGE) if str(line["name"]).startswith(STEPS)]


def charged_steps(ledger: Ledger) -> int:
    return max((span(str(line["name"]))[1] for line in intervals(ledger)), default=0)


def done_steps(ledger: Ledger) -> int:
    """The steps whose result is stored and committed."""
    names = [str(line["name"]) for line in intervals(ledger)]
    return max((span(name)[1] for name in names if ledger.result(name) is not None), default=0)


def open_intervals(ledger: Ledger, made: Plan, training: TrainingOptions) -> Iterator[tuple[str, GradientSum]]:
    """What is still to be trained, one checkpoint each: first the interval that was reserved and not finished."""
    start = done_steps(ledger)
    reserved = next((x for x in intervals(ledger) if ledger.result(str(x["name"])) is None), None)
    if reserved is not None:
        start, stop = span(str(reserved["name"]))
        yield str(reserved["name"]), made.gradient_sum(training, stop - start, float(reserved["noise_multiplier"]))
        start = stop
    while start < made.steps:
        stop = min(made.steps, start + training.checkpoint_steps)
        yield f"{STEPS}{start}-{stop}", made.gradient_sum(training, stop - start)
        start = stop


def describe_plan(
    ledger: Ledger, privacy: PrivacyOptions, made: Plan, training: TrainingOptions, *, label_counts: bool
) -> str:
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
    total = accounting.epsilon([*ledger.events(), *rest, *others(ledger, made, label_counts=label_counts)], delta)
    parts = [f"noise multiplier {made.noise_multiplier:.4f} on gradients clipped to {training.clip_norm:g}"]
    if label_counts:
        parts.append(f"{made.label_noise:g} on the label counts")
    if made.histogram_noise is not None:
        parts.append(f"{made.histogram_noise:g} on a later histogram, for which budget is left")
    lines.append(f"privacy: {', '.join(parts)}: epsilon {round_up(total)} at delta {shown(delta)}, {units:,} {unit}s")
    return "\n".join(lines)
