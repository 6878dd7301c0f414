"""The mechanisms: frozen values that carry their sensitivity, noise scale and accounting event.

Both histograms take votes, one row of bins a record, and give one noisy number a bin; `GradientSum` is a stretch of
DP-SGD. What is private is an argument of a method, never a field. Neighbours differ by one unit added or removed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dpsda.privacy.accounting import DiscreteGaussian, Event, SubsampledGaussian, Zcdp
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.noise import discrete_gaussian, gaussian, poisson_sample

NO_VOTE = -1
Votes = npt.NDArray[np.int64]  # (records, k): the bins that a record votes for, NO_VOTE where it has fewer than k


@dataclass(frozen=True)
class RecordHistogram:
    """Counts of votes where every record votes for at most `votes` different bins.

    Privacy: the unit is a record. Adding or removing one changes at most `votes` bins by exactly 1 each, so the L2
    sensitivity is sqrt(votes). Every bin gets discrete Gaussian noise of scale sqrt(votes) * noise_multiplier. The loss
    is that of the bins that changed: at most `votes` integers, each moved by 1, each with noise of that scale, which is
    how it is accounted for ("sensitivity sqrt(k)" has no meaning for a discrete Gaussian). Which bins change may depend
    on the record and on everything released before. `release` checks the premise on the votes that it is given.
    """

    noise_multiplier: float
    votes: int = 1
    unit: ClassVar[str] = "record"

    @property
    def l2_sensitivity(self) -> float:
        return math.sqrt(self.votes)

    @property
    def scale(self) -> float:
        """The noise scale, in votes."""
        return self.l2_sensitivity * self.noise_multiplier

    @property
    def event(self) -> Event:
        return DiscreteGaussian(self.scale, self.votes)

    def sums(self, votes: Votes, users: npt.NDArray[np.int64] | None, bins: int) -> npt.NDArray[np.int64]:
        """The exact counts, (bins,), of votes (n, k); private. PrivacyError where the sensitivity would not hold."""
        if votes.shape[1] > self.votes:
            raise PrivacyError(f"a record casts {votes.shape[1]} votes where the mechanism allows {self.votes}")
        ordered = np.sort(votes, axis=1)
        if np.any((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != NO_VOTE)):
            raise PrivacyError("a record votes twice for one bin")
        cast = votes[votes != NO_VOTE]
        return np.bincount(cast, minlength=bins).astype(np.int64)

    def release(self, votes: Votes, users: npt.NDArray[np.int64] | None, bins: int) -> npt.NDArray[np.float64]:
        """The noisy counts, (bins,): whole numbers, negative ones included."""
        return (self.sums(votes, users, bins) + discrete_gaussian(self.scale, bins)).astype(np.float64)


@dataclass(frozen=True)
class UserHistogram:
    """Counts of votes where every user, with however many records, has one vote vector of L2 norm at most 1.

    Privacy: the unit is a user. A user's votes v over all bins, whatever the labels of the records, go on the integer
    grid g = floor(G * v / |v|), G = `grid`, so that sum g^2 <= G^2, which `release` checks in integers. Adding or
    removing a user moves the sum by at most G in L2. Discrete Gaussian noise of scale G * noise_multiplier on every bin
    makes it zCDP with rho = 1 / (2 noise_multiplier^2) (Canonne, Kamath,
    Steinke 2020, on the multivariate discrete Gaussian). The result is
    divided by G. How many votes a record casts does not matter.
    """

    noise_multiplier: float
    votes: int = 1
    grid: int = 2**16
    unit: ClassVar[str] = "user"

    @property
    def l2_sensitivity(self) -> float:
        return 1.0

    @property
    def scale(self) -> float:
        """The noise scale, in units of a user's whole vote."""
        return self.noise_multiplier

    @property
    def event(self) -> Event:
        if self.noise_multiplier == 0:
            return DiscreteGaussian(0.0, 1)
        return Zcdp(1 / (2 * self.noise_multiplier**2))

    def sums(self, votes: Votes, users: npt.NDArray[np.int64] | None, bins: int) -> npt.NDArray[np.int64]:
        """The exact sums on the grid, (bins,); private. Votes are (n, k) bins, `users` (n,) codes."""
        if users is None:
            raise PrivacyError("the unit is a user, but the records carry no user")
        owner = np.repeat(users, votes.shape[1])
        cast = votes.ravel()
        owner, cast = owner[cast != NO_VOTE], cast[cast != NO_VOTE]
        # one entry for every (user, bin) that has votes
        _, owner = np.unique(owner, return_inverse=True)
        pairs, times = np.unique(owner * bins + cast, return_counts=True)
        owner, cast = pairs // bins, pairs % bins
        squares = np.bincount(owner, weights=times.astype(np.float64) ** 2)
        onto_grid = np.floor(self.grid * times / np.sqrt(squares[owner])).astype(np.int64)
        # the quotient is rounded before the floor and may land one too high: then the whole vector gives up one
        onto_grid -= _squared_norms(owner, onto_grid, len(squares))[owner] > self.grid**2
        if np.any(_squared_norms(owner, onto_grid, len(squares)) > self.grid**2):
            raise PrivacyError("a user's vote vector is longer than 1 on the grid")
        total = np.zeros(bins, dtype=np.int64)
        np.add.at(total, cast, onto_grid)
        return total

    def release(self, votes: Votes, users: npt.NDArray[np.int64] | None, bins: int) -> npt.NDArray[np.float64]:
        """The noisy sums, (bins,), in units of a user's whole vote."""
        noisy = self.sums(votes, users, bins) + discrete_gaussian(self.scale * self.grid, bins)
        scaled: npt.NDArray[np.float64] = noisy / self.grid
        return scaled


def _squared_norms(owner: Votes, vectors: Votes, users: int) -> Votes:
    """The squared L2 norm of every user's vector, in exact integers."""
    norms = np.zeros(users, dtype=np.int64)
    np.add.at(norms, owner, vectors**2)
    return norms


Histogram = RecordHistogram | UserHistogram


def histogram(unit: str, noise_multiplier: float, votes: int = 1) -> Histogram:
    """The mechanism for votes by records or users; `noise_multiplier` 0 means no noise and no guarantee."""
    if unit not in ("record", "user"):
        raise PrivacyError(f"the privacy unit is 'record' or 'user', not {unit!r}")
    return RecordHistogram(noise_multiplier, votes) if unit == "record" else UserHistogram(noise_multiplier, votes)


@dataclass(frozen=True)
class GradientSum:
    """`steps` noisy sums of clipped gradients, each over a fresh Poisson sample of the units (Abadi et al. 2016).

    Privacy: the unit is whatever contributes one vector of L2 norm at most `clip_norm` to a step's sum: a record's
    clipped gradient, or a mean of clipped gradients of a user's records. In each step every unit is in the sample with
    probability `sampling_rate`, independently of all else, by entropy of the operating system; the sample is never
    stored or shown. The sum, which one unit moves by at most `clip_norm`, gets Gaussian noise of standard deviation
    noise_multiplier * clip_norm in every coordinate, an empty sample's sum, too. The caller divides by a public number
    (the expected size of the sample). So a step is the Poisson-subsampled Gaussian mechanism under add/remove, and the
    steps compose adaptively. All of it holds for real numbers: the sums and the noise here are floating-point ones.
    """

    noise_multiplier: float
    clip_norm: float
    sampling_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.sampling_rate <= 1:
            raise PrivacyError(f"a sampling rate lies in (0, 1], not at {self.sampling_rate:g}")
        if self.noise_multiplier and not 0 < self.clip_norm < math.inf:
            raise PrivacyError(f"a clipping norm is above 0 and finite, not {self.clip_norm:g}")

    @property
    def l2_sensitivity(self) -> float:
        return self.clip_norm

    @property
    def scale(self) -> float:
        """The noise scale, in units of the gradient."""
        return self.noise_multiplier * self.clip_norm if self.noise_multiplier else 0.0

    @property
    def event(self) -> Event:
        return SubsampledGaussian(self.noise_multiplier, self.sampling_rate, self.steps)

    def sample(self, units: int) -> npt.NDArray[np.int64]:
        """The units of one step, (B,) of 0 ... units - 1; private. B is 0 now and then."""
        return poisson_sample(units, self.sampling_rate)

    def noise(self, size: int) -> npt.NDArray[np.float32]:
        """The noise of `size` coordinates of one step's sum, (size,)."""
        return gaussian(self.scale, size)
