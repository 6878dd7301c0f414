"""What a run releases, how much noise that takes, and what to expect of the signal: all from public figures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from dpsda.attributes.marginals import MARGINALS, Marginals
from dpsda.augpe.options import CORRECTIONS, DEFAULT, AugPEOptions
from dpsda.budget import multiplier
from dpsda.label_counts import LABEL_COUNTS
from dpsda.options import PrivacyOptions
from dpsda.privacy.accounting import round_up, shown
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import Histogram, histogram
from dpsda.runs import RunFolder
from dpsda.stages import AUGPE

# Below this many votes a candidate for one standard deviation of noise, the ranking of a label is mostly noise: the
# best of ~5 candidates has to have its lead of about one mean share stand out.
WEAK_SIGNAL = 0.5
HUBS = 0.25  # share of the votes above which the top hundredth of the candidates is told of


def votes_name(t: int) -> str:
    return f"votes/{t}"


def releases(epochs: int, *, label_counts: bool, votes: bool, rows: bool = False) -> list[str]:
    """The names of all releases of a run: T votes, and the marginals of its attributes, of which the label counts are
    one, or these alone, where they are private."""
    names = [MARGINALS] if rows else [LABEL_COUNTS] if label_counts else []
    return names + [votes_name(t) for t in range(1, epochs + 1)] if votes else names


def mechanism(
    name: str, unit: str, noise_multiplier: float, options: AugPEOptions, marginals: Marginals | None = None
) -> Histogram:
    """The mechanism of a release."""
    if name == MARGINALS and marginals:
        return histogram(unit, noise_multiplier * options.marginals_noise, len(marginals.sets))
    return histogram(unit, noise_multiplier, 1 if name == LABEL_COUNTS else options.num_nearest_neighbor)


def plan(
    folder: RunFolder,
    ledger: Ledger,
    privacy: PrivacyOptions,
    options: AugPEOptions,
    config: dict[str, Any],
    may_change: set[str],
    *,
    labelled: bool,
    marginals: Marginals | None = None,
) -> float:
    """The noise multiplier of the releases still to come; it is kept with the configuration.

    A restart of the same command takes the multiplier that it had. Where epochs or epsilon changed, what is spent stays
    as it is, and the rest is calibrated so that all of it composes to epsilon. Raises BudgetError where no noise is
    enough, InputError for a folder of another configuration.
    """
    before = _before(folder, ledger, config, may_change)
    label_counts = labelled and privacy.label_counts == "private"
    names = releases(options.epochs, label_counts=label_counts, votes=options.takes_votes, rows=bool(marginals))
    open_names = [name for name in names if not ledger.charged(name)]
    unit = str(ledger.header["unit"])
    noise = multiplier(
        ledger,
        privacy,
        lambda noise: [mechanism(name, unit, noise, options, marginals).event for name in open_names],
        goal={key: config[key] for key in ("epsilon", "noise", "epochs")},
        before=before,
        earlier=[
            release.noise_multiplier / (options.marginals_noise if release.kind == MARGINALS else 1)
            for release in ledger.reservations(AUGPE)
        ],
    )
    ledger.set_budget(privacy.epsilon)  # after everything that may refuse the command
    folder.keep_config(AUGPE, {**config, "noise_multiplier": noise})
    return noise


def settled(folder: RunFolder, ledger: Ledger, options: AugPEOptions) -> AugPEOptions:
    """`options` with a hub correction: the one that is asked for, or that of the run that is here, or the default."""
    before = _before(folder, ledger, {}, set())
    correction = options.hub_correction or before.get("hub_correction", DEFAULT)
    same = before.get("hub_correction") == correction
    strength = before["hub_strength"] if same else CORRECTIONS[correction]
    given = options.hub_strength if correction != "none" else None
    return replace(options, hub_correction=correction, hub_strength=strength if given is None else given)


def _before(folder: RunFolder, ledger: Ledger, config: dict[str, Any], may_change: set[str]) -> dict[str, Any]:
    """The configuration of the run that is here; a command that failed before it began anything is none."""
    begun = ledger.reservations(AUGPE) or folder.begun()
    return folder.earlier_config(AUGPE, config, may_change) if begun else {}


def describe_plan(
    ledger: Ledger,
    privacy: PrivacyOptions,
    options: AugPEOptions,
    noise: float,
    *,
    labelled: bool,
    marginals: Marginals | None = None,
) -> str:
    """What is still to be released under which noise, in one line for the user."""
    unit, units, delta = ledger.header["unit"], ledger.header["units"], ledger.header["delta"]
    if not privacy.protected:
        return f"epsilon inf: no noise at all, nothing is protected; everything goes to {ledger.run / 'private'}"
    label_counts = labelled and privacy.label_counts == "private"
    names = releases(options.epochs, label_counts=label_counts, votes=options.takes_votes, rows=bool(marginals))
    still = [name for name in names if not ledger.charged(name)]  # what is charged may have had another multiplier
    spent = f"epsilon {round_up(ledger.epsilon())}" if len(still) < len(names) else ""
    if not names:
        return "privacy: nothing of the private data is released"
    if not still:
        of = "" if ledger.budget is None else f" of {ledger.budget:g}"
        return f"privacy: all releases are charged already, {spent}{of} is spent; a larger --epochs spends more"
    goal = "the epsilon of" if privacy.epsilon is None else f"epsilon {privacy.epsilon:g} by"
    extra = ""
    if MARGINALS in still and marginals:
        times = f", {options.marginals_noise:g} times that," if options.marginals_noise != 1 else ""
        extra = f" and{times} for {len(marginals.sets)} marginals of the attributes"
    elif LABEL_COUNTS in still:
        extra = " and for the label counts, a release of their own"
    if labelled and not label_counts:
        extra += " (the label counts are taken as public)"
    votes = sum(name not in (MARGINALS, LABEL_COUNTS) for name in still)
    what = f"{votes or 'no'} {'more ' if spent else ''}vote{'s' if votes > 1 else ''}{extra}"
    there = f"; {spent} is spent already" if spent else ""
    return f"privacy: {goal} noise multiplier {noise:.4f} for {what}{there}; delta {shown(delta)}, {units:,} {unit}s"


def top_share(noisy: np.ndarray, part: int = 100) -> float:
    """The share of the positive noisy votes that one in `part` candidates took, those with the most, at least one."""
    votes = np.sort(np.maximum(noisy, 0.0))[::-1]
    return float(votes[: math.ceil(len(votes) / part)].sum() / votes.sum()) if votes.any() else 0.0


def signal(
    unit: str, units: int, k: int, shares: np.ndarray, candidates: np.ndarray, noise_scale: float, epochs: int = 0
) -> list[str]:
    """A line on the votes to expect against the noise, and warnings of labels that rank noise or get no text at all.

    `shares` are the labels' noisy shares of the data and `candidates` their numbers of candidates, both (cells,).
    `epochs` are those that share a budget of which nothing is spent yet, if that is so: then it is said how many would
    not rank noise.
    """
    votes = k if unit == "record" else 1
    there = candidates > 0
    per_candidate = votes * units * shares[there] / candidates[there]
    lines = [
        f"signal: {units:,} {unit}s vote for {int(candidates.sum()):,} candidates, on average "
        f"{votes * units / candidates.sum():.3g} votes each, against noise of standard deviation {noise_scale:.3g}"
    ]
    weak, labels = int(np.sum(per_candidate < WEAK_SIGNAL * noise_scale)), len(candidates)
    if weak:
        average = votes * units / candidates.sum()
        # one budget over fewer votes has less noise in each, by the root of their number
        carried = int(epochs * (average / (WEAK_SIGNAL * noise_scale)) ** 2)
        fewer = f"fewer epochs (on average it would carry {carried})" if 0 < carried < epochs else "fewer epochs"
        lines.append(
            f"warning: {weak} of {labels} labels expect fewer than {WEAK_SIGNAL:g} votes a candidate for one standard "
            "deviation of noise, so that noise decides which of their texts are kept; use fewer seeds, a smaller L, "
            f"{fewer}, fewer labels, or a larger epsilon"
        )
    if not there.all():
        lines.append(
            f"warning: {labels - int(there.sum())} of {labels} labels are too rare to get a text; use more seeds, or "
            "fewer labels"
        )
    return lines
