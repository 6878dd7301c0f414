"""What a run may claim, recomputed from its ledger: the certificate, its sentence, and its verification."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpsda.privacy import accounting
from dpsda.privacy.errors import LedgerError, PrivacyError
from dpsda.privacy.files import sha256
from dpsda.privacy.ledger import Ledger

FILE = "release/certificate.json"
TEXTS = ("synthetic.csv", "synthetic.parquet")
CARD = "README.md"
RELEASED = (*TEXTS, CARD)  # beside it, each with its hash in it; a run whose result is a model has the card alone
AUDIT = "\n## An attack on this run\n\n"  # what stands in the card before the line of an audit
_LIBRARIES = ("dp-accounting", "prv-accountant", "opendp", "numpy")
_TRAINING = ("torch", "opacus")

NOT_PROTECTED = (
    "How long the run took, and other side channels of the machine that it ran on.",
    "The choice of hyper-parameters, where several runs on the same data were compared to make it.",
    "What is looked up in the folder private/: it is computed from the private data without noise.",
    "Private text that the language model or the encoder saw in its own training.",
    "Other runs on the same data: their losses add up (`python -m dpsda.privacy total RUN ...`).",
    "The number of units, which is treated as public, and the label domain and prompts, which the owner wrote.",
)

TRAINED = (
    "Dropout in training against its generator, which is seeded in secret and is not a cryptographic one.",
    "The noise of training against its rounding: it is drawn in floating point; and a record's gradient moves, within "
    "the rounding of the arithmetic, with the records that are computed beside it.",
)

ANSWERED = ("The draw of a token against its rounding: the laws it comes from are computed in floating point.",)

CLAIMED = (
    "This run's epsilon: it is what a publication claims for its mechanism, and the claim does not hold (rare tokens "
    "break the bound; see Published in dpsda/privacy/mixture.py)."
)


def build(ledger: Ledger) -> dict[str, Any]:
    """The certificate of a run as plain data; everything in it but library versions and files follows from the ledger.

    Raises PrivacyError where the accountants disagree.
    """
    header, events, delta = ledger.header, ledger.events(), float(ledger.header["delta"])
    spent = accounting.epsilon(events, delta)
    bounds = accounting.cross_check(events, delta)
    protected = math.isfinite(spent)
    return {
        "epsilon": accounting.round_up(spent) if protected else "inf",
        "delta": delta,
        "unit": header["unit"],
        "units": header["units"],
        "relation": header["relation"],
        "budget": ledger.budget,
        "statement": sentence(spent, delta, header["unit"], claimed=_claimed(events)),
        "mechanisms": _mechanisms(ledger),
        "facts": header["facts"],
        "accountant": accounting.accountant(events),
        "cross_check": {"accountant": "PRV", "lower": bounds[0], "upper": bounds[1]} if bounds else None,
        "not_protected": limits(ledger),
        "ledger": {"lines": len(ledger.lines), "head": ledger.head},
        "versions": {name: version(name) for name in (*_LIBRARIES, *(_TRAINING if _trained(events) else ()))},
    }


def limits(ledger: Ledger) -> list[str]:
    """What the certificate of a run says that it does not cover."""
    events = ledger.events()
    claimed, trained = [CLAIMED] if _claimed(events) else [], TRAINED if _trained(events) else ()
    answered = ANSWERED if any("settings" in line for line in ledger.reservations()) else ()
    return [*claimed, *NOT_PROTECTED, *trained, *answered]


def _trained(events: list[accounting.Event]) -> bool:
    return any(isinstance(event, accounting.SubsampledGaussian) for event in events)


def _claimed(events: list[accounting.Event]) -> bool:
    """Whether their epsilon is no guarantee."""
    return any(isinstance(event, accounting.Claimed) for event in events)


def sentence(spent: float, delta: float, unit: str, *, claimed: bool = False) -> str:
    """The guarantee in one sentence; or, of what a publication claims, that it is none."""
    if not math.isfinite(spent):
        return "This run was made without noise (epsilon = inf): nothing is protected, treat its output as private."
    if claimed:
        return (
            f"NOT A VERIFIED GUARANTEE: the published accounting of this mechanism gives "
            f"({accounting.round_up(spent)}, {delta:.3g}), and it does not hold."
        )
    return (
        f"The release is ({accounting.round_up(spent)}, {delta:.3g})-differentially private for neighbouring data sets "
        f"that differ by one {unit} added or removed."
    )


def verify(run: Path) -> dict[str, Any]:
    """Recompute the certificate of `run` from its ledger alone, check the chain, every committed result and every
    released file, and return it. Raises PrivacyError with the first thing that does not fit."""
    path = run / FILE
    if not path.is_file():
        path = run / "private" / FILE  # where a run without noise puts it
    if not path.is_file():
        raise LedgerError(f"{run / FILE}: no certificate here; has the run finished?")
    ledger = Ledger(run, read_only=True)
    try:
        claimed = json.loads(path.read_text(encoding="utf-8"))
        claimed_epsilon, files = float(claimed["epsilon"]), dict(claimed["files"])
        lines, head = int(claimed["ledger"]["lines"]), claimed["ledger"]["head"]
    except (ValueError, KeyError, TypeError):
        raise LedgerError(f"{path}: not a certificate of ours; it was edited or damaged") from None
    if 0 < lines < len(ledger.lines) and ledger.lines[lines - 1]["hash"] == head:
        raise LedgerError(f"{path}: the run has gone on since it was certified; finish it with its own command")
    superseded = ledger.superseded()
    for line in ledger.reservations():
        committed = ledger.result(line["name"])
        if committed is None:
            continue  # charged, never seen
        file = run / line["file"]
        if not file.is_file():
            if line["name"] in superseded:
                continue
            raise LedgerError(f"{file}: the result of {line['name']} is missing")
        if sha256(file) != committed:
            raise LedgerError(f"{file}: not the result that the ledger committed for {line['name']}; it was edited")
    actual = build(ledger)
    for key, value in json.loads(json.dumps(actual)).items():
        if key not in ("versions", "cross_check", "epsilon", "statement") and claimed.get(key) != value:
            raise PrivacyError(
                f"{path}: {key!r} is not what the ledger gives; the certificate or the ledger was edited"
            )
    # another version of an accountant may move the last digit; a claim below what is spent is none
    if not float(actual["epsilon"]) - 1e-4 <= claimed_epsilon <= float(actual["epsilon"]) * 1.001:
        raise PrivacyError(f"{path}: epsilon {claimed_epsilon} is claimed, the ledger gives {actual['epsilon']}")
    statement = sentence(claimed_epsilon, actual["delta"], actual["unit"], claimed=_claimed(ledger.events()))
    if claimed.get("statement") != statement:
        raise PrivacyError(f"{path}: the statement is not what epsilon, delta and unit say; it was edited")
    texts = any(name in files or (path.parent / name).exists() for name in TEXTS)
    for name in RELEASED if texts else (CARD,):
        file = path.parent / name
        if not file.is_file() or sha256(file) != files.get(name):
            raise PrivacyError(f"{file}: not the file that was certified")
    told = (path.parent / CARD).read_text(encoding="utf-8").partition(AUDIT)[2]
    if told != (f"{claimed['audit']}\n" if "audit" in claimed else ""):
        raise PrivacyError(f"{path}: what it says of an audit is not what {CARD} says; it was edited")
    return actual


def total(runs: list[Path], delta: float | None = None) -> tuple[float, float]:
    """(epsilon, delta) of several runs on the same data together; `delta` is by default the smallest of theirs.

    The fingerprints of two runs cannot be compared, by design: that the data are the same is the caller's word. If they
    are not, the total is still an upper bound for each of them.
    """
    ledgers = [Ledger(run, read_only=True) for run in runs]
    for run, ledger in zip(runs, ledgers, strict=True):
        if _claimed(ledger.events()):
            raise PrivacyError(f"{run}: its epsilon is a claim that does not hold, so no total could be vouched for")
    for key in ("unit", "relation"):
        if len({ledger.header[key] for ledger in ledgers}) > 1:
            raise PrivacyError(f"the runs differ in their {key}, and losses of different kinds do not add up")
    at = delta if delta is not None else min(float(ledger.header["delta"]) for ledger in ledgers)
    return accounting.epsilon([event for ledger in ledgers for event in ledger.events()], at), at


def strength(row: dict[str, Any]) -> str:
    """The noise of a row of `mechanisms`, or what bounds it instead."""
    if "settings" not in row:
        return f"noise multiplier {row['noise_multiplier']}"
    return ", ".join(f"{name} {value:.6g}" for name, value in row["settings"].items())


def _mechanisms(ledger: Ledger) -> list[dict[str, Any]]:
    """The releases, those alike in one row with their number."""
    rows: list[dict[str, Any]] = []
    for line in ledger.reservations():
        keys = ("stage", "mechanism", "noise_multiplier", "l2_sensitivity", "scale", "event")
        row = {"releases": 1, "what": line["name"].split("/")[0], **{key: line.get(key) for key in keys}}
        if "settings" in line:
            row["settings"] = line["settings"]
        same = next((r for r in rows if {**r, "releases": 1} == row), None)
        if same:
            same["releases"] += 1
        else:
            rows.append(row)
    return rows
