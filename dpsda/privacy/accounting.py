"""Events -> epsilon at a delta, and epsilon -> noise multiplier, for add/remove neighbours.

The main accountant is the privacy-loss distribution (PLD) of dp-accounting, with the connect-the-dots discretisation
(Doroshenko et al. 2022), which only ever overestimates epsilon. prv-accountant (Gopi et al. 2021) checks it on the
continuous proxy. An event of which only a Renyi or zCDP curve is known puts the whole ledger in RDP (Mironov 2017).

Events are written into ledgers, which outlive the code. So a kind of event is never removed or renamed, a new field
has a default, and what a field means never changes: what would mean something else is another kind.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any

import numpy as np

from dpsda.privacy.errors import BudgetError, PrivacyError

# Beyond these nothing is protected, or nothing left, and an accountant takes hours, or all memory, to say so.
LEAST_NOISE, MOST_NOISE, MOST_EPSILON = 0.1, 1000.0, 100.0


def check_noise(noise: float, name: str = "--noise") -> None:
    """PrivacyError for a noise multiplier that is not from LEAST_NOISE to MOST_NOISE."""
    if not LEAST_NOISE <= noise <= MOST_NOISE:
        raise PrivacyError(
            f"{name} has to be a noise multiplier from {LEAST_NOISE:g} to {MOST_NOISE:g}, not {noise:g}; --epsilon inf "
            "runs without noise, and protects nothing"
        )


def check_budget(epsilon_budget: float, name: str = "--epsilon") -> None:
    """PrivacyError for an epsilon that is not above 0 and at most MOST_EPSILON."""
    if not 0 < epsilon_budget <= MOST_EPSILON:
        raise PrivacyError(
            f"{name} has to be above 0 and at most {MOST_EPSILON:g}, not {epsilon_budget:g}; inf is for a run without "
            "noise, which protects nothing"
        )


@dataclass(frozen=True)
class DiscreteGaussian:
    """`count` releases of an integer that one unit moves by at most 1, each with discrete Gaussian noise of `scale`."""

    scale: float
    count: int


@dataclass(frozen=True)
class SubsampledGaussian:
    """`steps` Gaussian releases of L2 sensitivity 1, each on a Poisson sample drawn at `sampling_rate`."""

    noise_multiplier: float
    sampling_rate: float
    steps: int


@dataclass(frozen=True)
class Zcdp:
    """A release that is rho-zCDP (Bun and Steinke 2016)."""

    rho: float


@dataclass(frozen=True)
class PureDp:
    """`count` releases, each (epsilon, 0)-DP."""

    epsilon: float
    count: int


@dataclass(frozen=True)
class RdpCurve:
    """A release that is (orders[i], epsilons[i])-RDP for every i."""

    orders: tuple[float, ...]
    epsilons: tuple[float, ...]


@dataclass(frozen=True)
class Claimed(RdpCurve):
    """A curve that a publication states and that does not hold: an epsilon to compare with, and no guarantee."""


Event = DiscreteGaussian | SubsampledGaussian | Zcdp | PureDp | RdpCurve
Groups = tuple[tuple[Event, int], ...]  # different events, and how often each is composed
_KINDS: dict[str, type[Any]] = {
    "discrete_gaussian": DiscreteGaussian,
    "subsampled_gaussian": SubsampledGaussian,
    "zcdp": Zcdp,
    "pure_dp": PureDp,
    "rdp_curve": RdpCurve,
    "claimed": Claimed,
}

# How far, relatively, the discrete Gaussian may lie from its continuous proxy at scales of at least _PROXY_SCALE.
# Measured for 1, 4 and 11 compositions at delta 1e-3, 1e-5 and 1e-8: 1.6% at scale 1.5, below 1% from 2 on, below 0.4%
# from 4 on; at scale 1 it is up to 5%, both ways.
PROXY_TOLERANCE = 0.02
_PROXY_SCALE = 1.5

_TICKS = 10**4  # to one of the noise multiplier, on the grid of `calibrate`


def to_json(event: Event) -> dict[str, Any]:
    """The event as plain data, for the ledger."""
    kind = next(name for name, cls in _KINDS.items() if cls is type(event))
    return {"kind": kind, **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(event).items()}}


def from_json(data: dict[str, Any]) -> Event:
    """The inverse of `to_json`; an event that is not known is refused, never approximated."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise PrivacyError(f"no accounting is known for an event of kind {kind!r}")
    event: Event = _KINDS[kind](**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    return event


def accountant(events: Sequence[Event]) -> str:
    """Which accountant a composition of these events goes through: "PLD", or "RDP" if one event has only a curve."""
    return "RDP" if any(isinstance(event, Zcdp | RdpCurve) for event in events) else "PLD"


def epsilon(events: Sequence[Event], delta: float) -> float:
    """An upper bound on epsilon at `delta` for the adaptive composition of `events`; inf where one has no noise."""
    _check_delta(delta)
    if any(_noise(event) == 0 for event in events):
        return math.inf
    if not events:
        return 0.0
    return _rdp_epsilon(events, delta) if accountant(events) == "RDP" else _pld_epsilon(_grouped(events), delta)


def claimed(events: Sequence[Event]) -> bool:
    """Whether the epsilon of `events` is what a publication claims, and no guarantee."""
    return any(isinstance(event, Claimed) for event in events)


def guaranteed(events: Sequence[Event]) -> bool:
    """Whether the epsilon of `events` is finite, and more than what a publication claims."""
    return not claimed(events) and all(_noise(event) != 0 for event in events)


def cross_check(events: Sequence[Event], delta: float) -> tuple[float, float] | None:
    """PRV's bounds (lower, upper) on epsilon for the continuous proxy of `events`.

    Raises PrivacyError if PLD's epsilon lies outside of them by more than the proxy's tolerance (2%, for discrete
    Gaussians). None where PRV does not apply: no events, no noise, an event that is no Gaussian, a discrete Gaussian of
    scale below 1.5, of which the continuous one says little, or a privacy loss that prv-accountant finds its own grid
    too coarse for (little noise in few steps), which it says by a RuntimeError.
    """
    if not events or accountant(events) == "RDP" or min(map(_noise, events)) == 0:
        return None
    if any(isinstance(event, PureDp) for event in events):
        return None
    if any(isinstance(event, DiscreteGaussian) and event.scale < _PROXY_SCALE for event in events):
        return None
    bounds = _prv_bounds(_grouped(events), delta)
    if bounds is None:
        return None
    lower, upper = bounds
    pld = epsilon(events, delta)
    slack = PROXY_TOLERANCE * pld if any(isinstance(event, DiscreteGaussian) for event in events) else 1e-3
    if not lower - slack <= pld <= upper + slack:
        raise PrivacyError(
            f"the accountants disagree: PLD gives epsilon {pld:.4f}, PRV between {lower:.4f} and {upper:.4f}; "
            "nothing is certified until it is known why"
        )
    return lower, upper


def calibrate(
    events: Callable[[float], Sequence[Event]],
    epsilon_budget: float,
    delta: float,
    spent: Sequence[Event] = (),
    most: float = MOST_NOISE,
) -> float:
    """The smallest noise multiplier, on a grid of 1e-4, at which `spent` and `events(noise_multiplier)` together stay
    within the budget. Raises BudgetError where no noise up to `most` is enough.
    """
    check_budget(epsilon_budget)
    _check_delta(delta)
    too_much = BudgetError(
        f"epsilon {epsilon_budget:g} is not enough for what is still to be released: it would take a noise multiplier "
        f"above {most:g}; ask for a larger --epsilon"
    )

    def excess(tick: int) -> float:
        together = [*spent, *events(tick / _TICKS)]
        return math.log(max(epsilon(together, delta), 1e-12) / epsilon_budget)

    last = int(most * _TICKS)
    if spent and excess(last) > 0:
        raise too_much
    # An evaluation is what takes time. Epsilon falls nearly as a power of the noise: a secant on log-log axes, from the
    # closed form of a Gaussian of the same rho, soon says which two neighbours to ask, `over`, which is not within the
    # budget, and `fits`, which is. On a step function it may get nowhere: then halving does.
    over, fits, slope, before = 0, last + 1, -1.2, (0, 0.0)
    tick = min(max(round(_gaussian_guess([*spent, *events(1.0)], epsilon_budget, delta) * _TICKS), 1), last)
    for attempt in itertools.count():
        f = excess(tick)
        over, fits = (tick, fits) if f > 0 else (over, tick)
        if over == last:
            raise too_much
        if fits - over == 1:
            break
        if before[0]:
            slope = (f - before[1]) / math.log(tick / before[0])
        before = tick, f
        move = min(max(-f / slope if slope < 0 else math.copysign(1.0, f), -1.5), 1.5)
        root = tick * math.exp(move) if attempt < 20 else (over + fits) / 2
        tick = min(max(math.ceil(root) if f > 0 else math.ceil(root) - 1, over + 1), fits - 1)
    return fits / _TICKS


def gaussian_epsilon(noise_multiplier: float, releases: int, delta: float) -> float:
    """The exact epsilon at `delta` of `releases` continuous Gaussian releases, each of L2 sensitivity 1 and standard
    deviation `noise_multiplier`: together they are one at noise_multiplier / sqrt(releases) (Balle and Wang 2018,
    Theorem 8).

    For figures published for continuous noise. It is no upper bound for the discrete Gaussian, which runs draw.
    """
    from scipy.optimize import brentq

    _check_gaussian(releases, delta)
    if not noise_multiplier >= 0:
        raise PrivacyError(f"a noise multiplier has to be at least 0, not {noise_multiplier}")
    if noise_multiplier == 0:
        return math.inf
    mu = math.sqrt(releases) / noise_multiplier
    if _gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    above = mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / delta))  # what zCDP gives (Bun and Steinke 2016)
    return float(brentq(lambda e: _gaussian_delta(mu, e) - delta, 0.0, above, xtol=1e-12))


def gaussian_noise(epsilon_budget: float, releases: int, delta: float) -> float:
    """The exact noise multiplier at which `releases` continuous Gaussian releases spend epsilon at `delta`: the inverse
    of `gaussian_epsilon`. `calibrate` gives the one of a run."""
    from scipy.optimize import brentq

    _check_gaussian(releases, delta)
    if not 0 < epsilon_budget < math.inf:
        raise PrivacyError(f"epsilon has to be above 0 and finite, not {epsilon_budget}")
    log_mu = brentq(lambda x: _gaussian_delta(math.exp(x), epsilon_budget) - delta, -300.0, 300.0, xtol=1e-12)
    return math.sqrt(releases) / math.exp(float(log_mu))


def default_delta(units: int) -> float:
    """1 / (n ln n) for n private units (Xie et al. 2024, section 4.1); n below 3 counts as 3."""
    n = max(units, 3)
    return 1 / (n * math.log(n))


def round_up(value: float, digits: int = 4) -> float:
    """`value` rounded up, as an upper bound is shown; inf stays inf."""
    return math.ceil(value * 10**digits - 1e-9) / 10**digits if math.isfinite(value) else value


def shown(delta: float, digits: int = 4) -> str:
    """`delta` as it is shown: to so many digits, and rounded up, as a smaller one would promise too much."""
    exact = Decimal(repr(float(delta)))
    place = exact.adjusted() - digits + 1
    return f"{float(exact.quantize(Decimal(1).scaleb(place), ROUND_CEILING)):.{digits}g}"


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise PrivacyError(f"delta has to lie between 0 and 1, not at {delta}")


def _check_gaussian(releases: int, delta: float) -> None:
    _check_delta(delta)
    if releases < 1:
        raise PrivacyError(f"there has to be at least one release, not {releases}")


def _noise(event: Event) -> float:
    """The noise of an event at sensitivity 1; inf for one that brings its own curve."""
    match event:
        case DiscreteGaussian():
            return event.scale
        case SubsampledGaussian():
            return event.noise_multiplier
        case _:
            return math.inf


def _gaussian_guess(events: Sequence[Event], epsilon_budget: float, delta: float) -> float:
    """The noise multiplier at which a Gaussian mechanism with the rho of `events` (at noise multiplier 1) has exactly
    (epsilon, delta); only where a search starts."""
    rho = 0.0
    for event in events:
        match event:
            case DiscreteGaussian():
                rho += event.count / (2 * event.scale**2)
            case SubsampledGaussian():
                rho += event.sampling_rate**2 * event.steps / (2 * event.noise_multiplier**2)
            case Zcdp():
                rho += event.rho
            case PureDp():
                rho += event.count * event.epsilon**2 / 2
    if rho == 0:
        return 1.0
    return min(max(math.sqrt(2 * rho) * gaussian_noise(epsilon_budget, 1, delta), 0.3), 1e5)


def _gaussian_delta(mu: float, epsilon_budget: float) -> float:
    """The smallest delta at epsilon of a Gaussian release that one unit moves by `mu` standard deviations."""
    from scipy.special import log_ndtr, ndtr

    spill = math.exp(epsilon_budget + log_ndtr(-mu / 2 - epsilon_budget / mu))
    return float(ndtr(mu / 2 - epsilon_budget / mu)) - spill


def _grouped(events: Sequence[Event]) -> Groups:
    """Equal events merged, each with how often it is composed. For those that PLD knows."""
    counts: dict[Event, int] = {}
    for event in events:
        one: Event
        match event:
            case DiscreteGaussian():
                one, count = DiscreteGaussian(event.scale, 1), event.count
            case SubsampledGaussian():
                one, count = SubsampledGaussian(event.noise_multiplier, event.sampling_rate, 1), event.steps
            case PureDp():
                one, count = PureDp(event.epsilon, 1), event.count
            case _:
                raise PrivacyError(f"PLD knows no event of kind {type(event).__name__}")
        counts[one] = counts.get(one, 0) + count
    return tuple((event, count) for event, count in counts.items() if count)


@functools.lru_cache(256)  # a run asks for the same events before a release, after it, in its table and its certificate
def _pld_epsilon(groups: Groups, delta: float) -> float:
    from dp_accounting.pld import privacy_loss_distribution as pld

    if not groups:
        return 0.0
    if len(groups) == 1:
        event, count = groups[0]
        if isinstance(event, PureDp):
            return _pure_epsilon(event, count, delta)
    composed = []
    for event, count in groups:
        match event:
            case PureDp():
                laws, count = _randomized_response(event, count), 1
                one = pld.from_two_probability_mass_functions(*laws, log_mass_truncation_bound=-45)
            case DiscreteGaussian():
                one = pld.from_discrete_gaussian_mechanism(event.scale, use_connect_dots=True)
            case SubsampledGaussian():
                one = pld.from_gaussian_mechanism(event.noise_multiplier, sampling_prob=event.sampling_rate)
        composed.append(one.self_compose(count))
    total = functools.reduce(lambda one, other: one.compose(other), composed)
    return float(total.get_epsilon_for_delta(delta))


@functools.lru_cache(256)
def _prv_bounds(groups: Groups, delta: float) -> tuple[float, float] | None:
    from prv_accountant import GaussianMechanism, PoissonSubsampledGaussianMechanism, PRVAccountant

    prvs, counts = [], []
    for event, count in groups:
        if isinstance(event, SubsampledGaussian) and event.sampling_rate < 1:
            prvs.append(PoissonSubsampledGaussianMechanism(event.sampling_rate, event.noise_multiplier))
        else:
            prvs.append(GaussianMechanism(_noise(event)))
        counts.append(count)
    try:
        prv = PRVAccountant(prvs=prvs, eps_error=0.01, delta_error=delta / 1000, max_self_compositions=counts)
    except RuntimeError:
        return None
    # at a large delta they lie below 0
    lower, _, upper = (max(float(bound), 0.0) for bound in prv.compute_epsilon(delta, counts))
    return lower, upper


def _randomized_response(event: PureDp, count: int) -> tuple[dict[int, float], dict[int, float]]:
    """Log probabilities of how many of `count` randomised responses are the truth, on two neighbours. No composition of
    (epsilon, 0)-DP releases loses more than this one does (Kairouz, Oh, Viswanath 2015, Theorem 3.3), and taken whole
    its loss is rounded to the grid of the PLD once, not `count` times.

    Of many responses, what is far from both means is one outcome of its own for each neighbour, whose loss is infinite:
    together less than 2 exp(-62), by Hoeffding's inequality with a reach of sqrt(31 count)."""
    from scipy.stats import binom

    reach = math.ceil(math.sqrt(31 * count))
    truth = 1 / (1 + math.exp(-event.epsilon))
    chances = 1 - truth, truth
    means = [int(count * p) for p in chances]
    said = np.union1d(*(np.arange(max(0, mean - reach), min(count, mean + 1 + reach) + 1) for mean in means))
    logs = [binom.logpmf(said, count, p) for p in chances]
    # of many outcomes, each is off by the same, up to 1e-7 of itself
    laws = [dict(zip(said.tolist(), (log - np.logaddexp.reduce(log)).tolist(), strict=True)) for log in logs]
    if len(said) <= count:
        for i, law in enumerate(laws):
            law[-1 - i] = math.log(2) - 62
    return laws[0], laws[1]


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """The library warns of every order that it leaves out, which makes a bound no better and no less valid."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@_without_advice()
def _rdp_epsilon(events: Sequence[Event], delta: float) -> float:
    """The best order's epsilon. At one order, "(a, e)-RDP" and "zCDP with rho = e / a" say the same, which lets curves
    go through the library's accountant."""
    from dp_accounting import dp_event
    from dp_accounting.rdp import RdpAccountant
    from dp_accounting.rdp.rdp_privacy_accountant import DEFAULT_RDP_ORDERS

    curves = [dict(zip(e.orders, e.epsilons, strict=True)) for e in events if isinstance(e, RdpCurve)]
    orders = [order for order in DEFAULT_RDP_ORDERS if order > 1]
    if curves:
        orders = sorted(set.intersection(*(set(curve) for curve in curves)) - {1.0})
    if not orders:
        raise PrivacyError("the RDP curves of the ledger have no order in common, so they cannot be composed")
    best = math.inf
    for order in orders:
        rdp = RdpAccountant([order])
        for event in events:
            match event:
                case DiscreteGaussian():  # the discrete Gaussian has the continuous one's curve as an upper bound
                    rdp.compose(dp_event.ZCDpEvent(event.count / (2 * event.scale**2)))
                case SubsampledGaussian():
                    one = dp_event.GaussianDpEvent(event.noise_multiplier)
                    rdp.compose(dp_event.PoissonSampledDpEvent(event.sampling_rate, one), event.steps)
                case Zcdp():
                    rdp.compose(dp_event.ZCDpEvent(event.rho))
                case PureDp():
                    rdp.compose(dp_event.ZCDpEvent(_pure_rdp(event.epsilon, order) / order), event.count)
        spent = sum(curve[order] for curve in curves)
        if spent:
            rdp.compose(dp_event.ZCDpEvent(spent / order))
        best = min(best, float(rdp.get_epsilon(delta)))
    return best


def _pure_epsilon(event: PureDp, count: int, delta: float) -> float:
    """The exact epsilon at `delta` of `count` randomised responses: where the probability that the loss is above it,
    less exp(epsilon) times that on the other neighbour, is `delta`. Both are tails of a binomial law. An upper bound
    beyond 700, where the other tail may be too small for float64."""
    from scipy.optimize import brentq
    from scipy.stats import binom

    if event.epsilon == 0:
        return 0.0
    truth = 1 / (1 + math.exp(-event.epsilon))

    def excess(epsilon: float) -> float:
        below = math.floor((epsilon / event.epsilon + count) / 2)  # as many truths have a loss of at most epsilon
        lost, other = binom.sf(below, count, truth), binom.logsf(below, count, 1 - truth)
        return float(lost - math.exp(min(epsilon + other, 0.0))) - delta

    if excess(0.0) <= 0:
        return 0.0
    most = event.epsilon * count
    return min(float(brentq(excess, 0.0, most, xtol=1e-12)) + 1e-9, most)


def _pure_rdp(epsilon: float, order: float) -> float:
    """The Renyi divergence of randomised response, which no (epsilon, 0)-DP release exceeds (Mironov 2017, Prop. 5)."""
    truth = -math.log1p(math.exp(-epsilon))  # log of its probability
    lie = truth - epsilon
    found = np.logaddexp(order * truth + (1 - order) * lie, order * lie + (1 - order) * truth) / (order - 1)
    return max(0.0, float(found))
