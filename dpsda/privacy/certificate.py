"""What a run may claim, recomputed from its ledger: the certificate, its sentence, and its verification.

A certificate outlives the code that wrote it. Its numbers are recomputed from the ledger. Its words are held against a
digest of the whole certificate, which the ledger noted when it was published: a later version may put them better.
"""

from __future__ import annotations

import hashlib
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dpsda.privacy import accounting, folder, format_0, questions
from dpsda.privacy.errors import LedgerError, PrivacyError
from dpsda.privacy.files import sha256, write_json
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mixture import Mixture
from dpsda.privacy.reservation import Line, describe

FORMAT = 1
FILE = "release/certificate.json"
TEXTS = ("synthetic.csv", "synthetic.parquet")
CARD = "README.md"
METADATA = "croissant.json"
# beside it, each with its hash in it; a run whose result is a model has the card alone
RELEASED = (*TEXTS, CARD, METADATA)
_ENDS = ("lower", "upper")  # of the cross-check
PAGE = "report.html"  # and this, which is made later, and noted in the ledger
AUDIT = "\n## An attack on this run\n\n"  # what stands in the card before the line of an audit
_LIBRARIES = ("dpsda", "dp-accounting", "prv-accountant", "opendp", "numpy")
_TRAINING = ("torch", "opacus")
_SPENDING = ("reserve", "charge", "retry", "commit")  # lines after which a certificate is an old one

# What a certificate does not cover: codes, which mean the same for ever, and how they are put today. A certificate
# holds both, and only codes are compared.
LIMITS = {
    "claimed": "This run's epsilon: it is what a publication claims for its mechanism, and the claim does not hold "
    "(rare tokens break the bound; see PublishedRenyi in dpsda/privacy/mixture.py).",
    "side_channels": "How long the run took, and other side channels of the machine that it ran on.",
    "hyper_parameters": "The choice of hyper-parameters, where several runs on the same data were compared to make it.",
    "private_folder": "What is looked up in the folder private/: it is computed from the private data without noise.",
    "pre_training": "Private text that the language model or the encoder saw in its own training.",
    "other_runs": "Other runs on the same data: their losses add up (`dpsda total RUN ...`).",
    "taken_as_public": "The number of units, which is treated as public, and what the owner wrote: the domains of "
    "labels and attributes, their bins and descriptions, and the prompts.",
    "dropout": "Dropout in training against its generator, which is seeded in secret and is not a cryptographic one.",
    "training_rounding": "The noise of training against its rounding: it is drawn in floating point; and a record's "
    "gradient moves, within the rounding of the arithmetic, with the records that are computed beside it.",
    "token_rounding": "The draw of a token against its rounding: the laws it comes from are computed in floating "
    "point.",
}
_ALWAYS = ("side_channels", "hyper_parameters", "private_folder", "pre_training", "other_runs", "taken_as_public")
_TRAINED = ("dropout", "training_rounding")
_ANSWERED = ("token_rounding",)


def build(ledger: Ledger) -> dict[str, Any]:
    """What a certificate says of a run, but for its files: all of it but the versions follows from the ledger.

    Raises PrivacyError where the accountants disagree.
    """
    header, events, delta = ledger.header, ledger.events(), float(ledger.header["delta"])
    spent = accounting.epsilon(events, delta)
    bounds = accounting.cross_check(events, delta)
    claimed = {"claimed": {"epsilon": accounting.round_up(spent)}} if accounting.claimed(events) else {}
    facts = {
        "format": FORMAT,
        "epsilon": accounting.round_up(spent) if ledger.guaranteed else "inf",
        **claimed,
        "delta": delta,
        "unit": header["unit"],
        "units": header["units"],
        "relation": header["relation"],
        "budget": ledger.budget,
        "statement": sentence(spent, delta, header["unit"], claimed=bool(claimed)),
        "mechanisms": _mechanisms(ledger),
        "facts": header["facts"],
        "accountant": accounting.accountant(events),
        "cross_check": {"accountant": "PRV", "lower": bounds[0], "upper": bounds[1]} if bounds else None,
        "limits": limits(ledger),
        "not_protected": [LIMITS[code] for code in limits(ledger)],
        "ledger": {"lines": len(ledger.lines), "head": ledger.head},
        "versions": {name: version(name) for name in (*_LIBRARIES, *(_TRAINING if _trained(events) else ()))},
    }
    return {**facts, "evaluation": {"guide": questions.GUIDE, "answers": questions.answers(facts)}}


def publish(ledger: Ledger, facts: dict[str, Any], about: dict[str, str]) -> dict[str, Any]:
    """Write the certificate of the files that lie beside it: what `build` gave, as `about` tells it, with the hashes of
    the files; it is noted in the ledger first. Whoever replaces one of the files removes the old certificate before."""
    path = ledger.shared / FILE
    files = {name: sha256(path.parent / name) for name in RELEASED if (path.parent / name).is_file()}
    whole = {**facts, "about": about, "files": files}
    ledger.publish(digest(whole))
    write_json(path, whole)
    return whole


def place(run: Path) -> Path | None:
    """Where the certificate of a run lies; None for a run that never finished."""
    places = (run / FILE, run / "private" / FILE)  # the second is where a run without a guarantee puts it
    return next((place for place in places if place.is_file()), None)


def find(run: Path) -> Path:
    """The certificate of a run; LedgerError where there is none."""
    path = place(run)
    if path is None and (run / Path(FILE).name).is_file():
        raise LedgerError(f"{run}: is a release without its ledger; give the folder of the run, with its state/")
    if path is None:
        raise LedgerError(f"{run / FILE}: no certificate here; has the run finished?")
    return path


def signature(path: Path) -> Path:
    """Where the signature of a certificate lies, if somebody made one (`dpsda sign`)."""
    return path.with_name(f"{path.name}.sig")


def withdraw(path: Path) -> None:
    """Remove a certificate that is to be another one, and its signature."""
    signature(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def digest(facts: dict[str, Any]) -> str:
    """The hash of all that a certificate says."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def is_current(facts: dict[str, Any], ledger: Ledger) -> bool:
    """Whether a certificate is the last one of this ledger, which spent nothing since."""
    after = _after(facts, ledger)
    if after is None or any(line["type"] in _SPENDING for line in after):
        return False
    published = [line["certificate"] for line in after if line["type"] == "publish"]
    return published == [digest(facts)] if facts.get("format", 0) else not published


def made_files(ledger: Ledger) -> dict[str, str]:
    """The sha256 of every file that the run made of its releases, by its path relative to the run."""
    known = {str(release.file): ledger.result(release.name) for release in ledger.reservations()}
    found = {file: committed for file, committed in known.items() if committed is not None} | ledger.made()
    if ledger.format == 0:
        found |= {path.relative_to(ledger.run).as_posix(): sha256(path) for path in folder.taken(ledger)}
    path = ledger.shared / FILE
    if path.is_file() and is_current(facts := _read(path), ledger):
        found |= {(path.parent / name).relative_to(ledger.run).as_posix(): of for name, of in facts["files"].items()}
    return found


def limits(ledger: Ledger) -> list[str]:
    """The codes of what the certificate of a run does not cover."""
    events = ledger.events()
    claimed, trained = ["claimed"] if accounting.claimed(events) else [], _TRAINED if _trained(events) else ()
    answered = _ANSWERED if any(isinstance(x.mechanism, Mixture) for x in ledger.charges()) else ()
    return [*claimed, *_ALWAYS, *trained, *answered]


def _trained(events: list[accounting.Event]) -> bool:
    return any(isinstance(event, accounting.SubsampledGaussian) for event in events)


def sentence(spent: float, delta: float, unit: str, *, claimed: bool = False) -> str:
    """The guarantee in one sentence; or, of what a publication claims, that it is none."""
    if not math.isfinite(spent):
        return "This run was made without noise (epsilon = inf): nothing is protected, treat its output as private."
    if claimed:
        return (
            f"NOT A VERIFIED GUARANTEE: the published accounting of this mechanism gives "
            f"({accounting.round_up(spent)}, {accounting.shown(delta)}), and it does not hold: nothing is protected."
        )
    return (
        f"The release is ({accounting.round_up(spent)}, {accounting.shown(delta)})-differentially private for "
        f"neighbouring data sets that differ by one {unit} added or removed."
    )


def verify(run: Path) -> dict[str, Any]:
    """Recompute the certificate of `run` from its ledger alone, check the chain, every file that the ledger knows, that
    it knows every file that it has to, and every released file; what `build` gives. Raises PrivacyError with the first
    thing that does not fit."""
    path = find(run)
    ledger = Ledger(run, read_only=True)
    if not ledger.lines:
        raise LedgerError(f"{ledger.path}: no ledger here, or an empty one, so what was spent is not known; restore it")
    facts = _read(path)
    after = _after(facts, ledger)
    if after is not None and any(line["type"] in ("budget", *_SPENDING) for line in after):
        raise LedgerError(f"{path}: the run has gone on since it was certified; finish it with its own command")
    _check_results(ledger)
    actual = build(ledger)
    _check_numbers(path, facts, actual)
    if not is_current(facts, ledger):
        raise PrivacyError(f"{path}: is not what the ledger noted when it was published; one of the two was edited")
    if not facts.get("format", 0):
        format_0.check(path, facts, path.parent / CARD, AUDIT)
    _check_release(path, facts, ledger)
    return actual


def _read(path: Path) -> dict[str, Any]:
    """The certificate in a file, of a format that is known."""
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        number, _, _ = int(facts.get("format", 0)), float(facts["epsilon"]), facts["ledger"]["head"]
        sound = isinstance(facts["files"], dict) and isinstance(facts["ledger"]["lines"], int)
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise LedgerError(f"{path}: not a certificate of ours; it was edited or damaged")
    if number > FORMAT:
        raise PrivacyError(f"{path}: has format {number}, and this version knows up to {FORMAT}; take a newer version")
    return facts


def _after(facts: dict[str, Any], ledger: Ledger) -> list[Line] | None:
    """The lines that came after a certificate was built; None where it is of another ledger."""
    lines, head = facts["ledger"]["lines"], facts["ledger"]["head"]
    here = 0 < lines <= len(ledger.lines) and ledger.lines[lines - 1]["hash"] == head
    return ledger.lines[lines:] if here else None


def _check_results(ledger: Ledger) -> None:
    """Every committed result and every file that was noted is as it was, and there is no other of their kinds."""
    superseded = ledger.superseded()
    for release in ledger.reservations():
        committed = ledger.result(release.name)
        if committed is None:
            continue  # charged, never seen
        file = ledger.run / str(release.file)
        if not file.is_file():
            if release.name in superseded:
                continue
            raise LedgerError(f"{file}: the result of {release.name} is missing")
        if sha256(file) != committed:
            raise LedgerError(f"{file}: not the result that the ledger committed for {release.name}; it was edited")
    folder.check(ledger)
    for name, noted in ledger.made().items():
        file = ledger.run / name
        if file.is_file() and sha256(file) != noted:
            raise LedgerError(f"{file}: not the file that the run made; it was replaced or edited")
    stray = folder.unnoted(ledger)
    if stray is not None:
        raise LedgerError(f"{stray}: not a file that the run made, as far as its ledger knows; remove it")


def _check_numbers(path: Path, facts: dict[str, Any], actual: dict[str, Any]) -> None:
    """What a certificate says in numbers is what the ledger gives."""
    keys = ["delta", "unit", "units", "relation", "budget", "facts", "mechanisms", "accountant"]
    spent = float(actual["epsilon"])
    if facts.get("format", 0):
        keys += ["claimed", *(["limits"] if "limits" in facts else [])]  # the first of format 1 had no codes yet
    else:  # which told what a publication claims as the epsilon
        spent = float(actual.get("claimed", actual)["epsilon"])
    for key in keys:
        if facts.get(key) != json.loads(json.dumps(actual.get(key))):
            raise PrivacyError(f"{path}: {key!r} is not what the ledger gives; one of the two was edited")
    # another version of an accountant may move the last digit; a claim below what is spent is none
    if not spent - 1e-4 <= float(facts["epsilon"]) <= spent * 1.001:
        raise PrivacyError(f"{path}: epsilon {facts['epsilon']} is claimed, the ledger gives {actual['epsilon']}")
    stated, found = facts.get("cross_check"), actual["cross_check"]
    if not (stated == found or (stated and found and all(abs(stated[end] - found[end]) < 0.02 for end in _ENDS))):
        raise PrivacyError(f"{path}: 'cross_check' is not what the other accountant gives; the certificate was edited")


def _check_release(path: Path, facts: dict[str, Any], ledger: Ledger) -> None:
    """Every released file is the one that was certified, and no other file is there."""
    texts = any(name in facts["files"] or (path.parent / name).exists() for name in TEXTS)
    for name in sorted({CARD, *(TEXTS if texts else ()), *facts["files"]}):  # certificates of before have no METADATA
        file = path.parent / name
        if not file.is_file() or sha256(file) != facts["files"].get(name):
            raise PrivacyError(f"{file}: not the file that was certified")
    page = path.parent / PAGE
    noted = not facts.get("format", 0) or page.relative_to(ledger.run).as_posix() in ledger.made()
    known = {path.name, signature(path).name, *facts["files"], *((PAGE,) if noted else ())}
    for file in sorted(path.parent.rglob("*")):
        if file.name not in known or file.parent != path.parent:
            raise PrivacyError(f"{file}: is no part of the release that was certified; remove it")


def total(runs: list[Path], delta: float | None = None) -> tuple[float, float]:
    """(epsilon, delta) of several runs on the same data together; `delta` is by default the smallest of theirs.

    The fingerprints of two runs cannot be compared, by design: that the data are the same is the caller's word. If they
    are not, the total is still an upper bound for each of them.
    """
    ledgers = [Ledger(run, read_only=True) for run in runs]
    for run, ledger in zip(runs, ledgers, strict=True):
        if accounting.claimed(ledger.events()):
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
    for charge in ledger.charges():
        assert charge.mechanism is not None and charge.event is not None
        row = {
            **{"releases": 1, "what": charge.kind, "stage": charge.stage, "noise_multiplier": None},
            **{"l2_sensitivity": None, "scale": None, "event": accounting.to_json(charge.event)},
            **describe(charge.mechanism),
        }
        same = next((r for r in rows if {**r, "releases": 1} == row), None)
        if same:
            same["releases"] += 1
        else:
            rows.append(row)
    return rows
