"""Which files of a run folder its ledger has to know.

Where a file lies says nothing of what it cost. So every noisy result is the file of a reservation, and what was made
of results and is built on is noted with its hash; a file of these kinds that the ledger does not know tells that the
ledger is another one, or an older one, than that of the run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dpsda.privacy.errors import LedgerError

if TYPE_CHECKING:
    from dpsda.privacy.ledger import Ledger

# below RUN, or below RUN/private where the run has no noise
RESULTS = (
    "label_counts.csv",
    "marginals.csv",
    "[0-9]*/counts.csv",
    "resample/counts.csv",
    "state/checkpoints/*.safetensors",
    "state/answers/*.json",
)
MADE = (
    "[0-9]*/samples.csv",
    "state/rows.csv",
    "state/candidates-*.csv",
    "state/adapter/*",
    "state/model/*",
    "state/samples/*.parquet",
    "state/centres.safetensors",
    "state/before_resampling.csv",
)
OTHERS = ("state/answers/*.jsonl", "release/*")  # of a run that has begun: a model's answers, and what was published


def begun(shared: Path) -> Path | None:
    """A file that only a run leaves behind, if one is here."""
    return next(_there(shared, (*RESULTS, *MADE, *OTHERS)), None)


def is_result(path: Path, shared: Path) -> bool:
    """Whether a result may lie there: only one that `RESULTS` matches is missed by an older ledger."""
    there = path.relative_to(shared) if path.is_relative_to(shared) else Path()
    return any(there.match(pattern) and len(there.parts) == pattern.count("/") + 1 for pattern in RESULTS)


def unknown(path: Path) -> str:
    return (
        f"{path}: a result that the run's ledger does not know, so the ledger is older than the run, or another one; "
        "restore it, or begin anew in another --result_folder"
    )


def check(ledger: Ledger) -> None:
    """LedgerError for a noisy result without a reservation, and for what was made of votes that are not committed."""
    reserved = {release.file for release in ledger.reservations()}
    for path in _there(ledger.shared, RESULTS):
        if path.relative_to(ledger.run).as_posix() not in reserved:
            raise LedgerError(unknown(path))
    if ledger.format == 0:
        known = set(taken(ledger))
        stray = next((path for path in _there(ledger.shared, MADE) if path not in known), None)
        if stray is not None:
            raise LedgerError(unknown(stray))


def taken(ledger: Ledger) -> Iterator[Path]:
    """The files that a run of format 0 made, which were not noted: those of votes that are committed, if of any."""
    votes = not _keeps_at_random(ledger.shared)
    for path in _there(ledger.shared, MADE):
        behind = _votes_behind(path) if votes else None
        if behind is None or ledger.result(behind) is not None:
            yield path


def unnoted(ledger: Ledger) -> Path | None:
    """A file that would have been noted had the run made it; None for a ledger of format 0, which noted nothing."""
    if ledger.format == 0:
        return None
    known = ledger.made()
    return next((p for p in _there(ledger.shared, MADE) if p.relative_to(ledger.run).as_posix() not in known), None)


def _there(shared: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (path for path in sorted(shared.glob(pattern)) if path.is_file() and path.name[0] != ".")


def _votes_behind(path: Path) -> str | None:
    """The votes that the kept texts of an iteration come from, or those that its candidates do; None of other files."""
    number = path.parent.name if path.name == "samples.csv" else path.stem.removeprefix("candidates-")
    t = int(number) - (path.name != "samples.csv") if number.isdigit() else 0
    return f"votes/{t}" if t > 0 else None


def _keeps_at_random(shared: Path) -> bool:
    """Whether this is the control of Aug-PE, which takes no vote: the one rule of that kind in format 0."""
    path = shared / "state" / "augpe.json"
    return path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("select_syn_mode") == "random"
