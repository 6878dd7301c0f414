"""The lines of a ledger that reserve a release or charge for one, typed; and mechanisms as plain data, both ways."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dpsda.privacy import accounting
from dpsda.privacy.accounting import DiscreteGaussian, Event, SubsampledGaussian
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.mechanism import GradientSum, Histogram, RecordHistogram, UserHistogram
from dpsda.privacy.mixture import ClippedLogits, MaxDivergence, PublishedRenyi, Renyi

Line = dict[str, Any]
Noisy = Histogram | GradientSum  # what noise protects, by its multiplier
Mechanism = Noisy | MaxDivergence | Renyi | PublishedRenyi | ClippedLogits
_MIXTURES: dict[str, type[Any]] = {  # by their names in a ledger, which stay
    "MaxDivergence": MaxDivergence,
    "Renyi": Renyi,
    "Published": PublishedRenyi,
    "ClippedLogits": ClippedLogits,
}


@dataclass(frozen=True)
class Reservation:
    """A release with its charge, one `within` the charge of another line, or (without a file) such a charge.

    A name is KIND, KIND/NUMBER or KIND/START-STOP: what is released, and of which iterations, steps or answers.
    """

    stage: str
    name: str
    file: str | None
    mechanism: Mechanism | None  # None within another charge, as is the event
    event: Event | None
    within: str | None = None
    continues: str | None = None

    @classmethod
    def of(cls, line: Line) -> Reservation:
        """Of a ledger's line. PrivacyError for an event or a mechanism that this version does not know."""
        charged = "event" in line
        return cls(
            stage=str(line["stage"]),
            name=str(line["name"]),
            file=line.get("file"),
            mechanism=restored(line) if charged else None,
            event=accounting.from_json(line["event"]) if charged else None,
            within=line.get("within"),
            continues=line.get("continues"),
        )

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]

    @property
    def start(self) -> int:
        return span(self.name)[0]

    @property
    def stop(self) -> int:
        """One more than the last iteration, step or answer."""
        return span(self.name)[1]

    @property
    def noise_multiplier(self) -> float:
        """Raises PrivacyError where noise is not what protects."""
        if not isinstance(self.mechanism, Noisy):
            raise PrivacyError(f"{self.name}: has no noise multiplier")
        return self.mechanism.noise_multiplier


def span(name: str) -> tuple[int, int]:
    """(start, stop) of a name; those of a single release are 0 and 1."""
    first, _, last = name.partition("/")[2].partition("-")
    start = int(first) if first else 0
    return start, int(last) if last else start + 1


def describe(mechanism: Mechanism) -> dict[str, Any]:
    """What the ledger and the certificate say of a mechanism: `restored` reads it, with the event beside it."""
    if not isinstance(mechanism, Noisy):
        name = next(name for name, kind in _MIXTURES.items() if type(mechanism) is kind)
        return {"mechanism": name, "settings": asdict(mechanism)}
    return {
        "mechanism": type(mechanism).__name__,
        "noise_multiplier": mechanism.noise_multiplier,
        "l2_sensitivity": mechanism.l2_sensitivity,
        "scale": mechanism.scale,
    }


def restored(line: Line) -> Mechanism:
    """The mechanism of a line with an event; PrivacyError for one that this version does not know."""
    name, event = line["mechanism"], accounting.from_json(line["event"])
    if name in _MIXTURES:
        mixture: Mechanism = _MIXTURES[name](**line["settings"])
        return mixture
    if name == RecordHistogram.__name__ and isinstance(event, DiscreteGaussian):
        return RecordHistogram(float(line["noise_multiplier"]), event.count)
    if name == UserHistogram.__name__:
        return UserHistogram(float(line["noise_multiplier"]))
    if name == GradientSum.__name__ and isinstance(event, SubsampledGaussian):
        noise, clip_norm = float(line["noise_multiplier"]), float(line["l2_sensitivity"])
        return GradientSum(noise, clip_norm, event.sampling_rate, event.steps)
    raise PrivacyError(f"{line['name']}: the ledger was written by a mechanism that this version does not know, {name}")
