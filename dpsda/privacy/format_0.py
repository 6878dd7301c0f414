"""Certificates of format 0, which have no number and of which the ledger noted no digest: what they are held against.

Its sentences are those of that format for ever, whatever later versions say.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dpsda.privacy.errors import PrivacyError

_KEYS = (
    *("epsilon", "delta", "unit", "units", "relation", "budget", "statement", "mechanisms", "facts", "accountant"),
    *("cross_check", "not_protected", "ledger", "versions", "about", "files"),
)


def check(path: Path, facts: dict[str, Any], card: Path, audit: str) -> None:
    """PrivacyError for a key too many or too few, and for sentences in the certificate or on its card that do not say
    what its numbers do. `audit` stands before what the card says of an audit."""
    changed = [*(key for key in facts if key not in (*_KEYS, "audit")), *(key for key in _KEYS if key not in facts)]
    if changed:
        raise PrivacyError(f"{path}: {changed[0]!r} was added or removed; the certificate was edited")
    shown = card.read_text(encoding="utf-8") if card.is_file() else ""
    lines = (_statement(facts), f"| epsilon | {facts['epsilon']} |")
    if facts["statement"] != lines[0] or any(line not in shown.splitlines() for line in lines):
        raise PrivacyError(f"{path}: its statement, or that of {card.name}, is not what epsilon, delta and unit say")
    if shown.partition(audit)[2] != (f"{facts['audit']}\n" if "audit" in facts else ""):
        raise PrivacyError(f"{path}: what it says of an audit is not what {card.name} says; it was edited")


def _statement(facts: dict[str, Any]) -> str:
    spent, delta = float(facts["epsilon"]), f"{float(facts['delta']):.3g}"
    if not math.isfinite(spent):
        return "This run was made without noise (epsilon = inf): nothing is protected, treat its output as private."
    if any(row["event"]["kind"] == "claimed" for row in facts["mechanisms"]):
        return (
            f"NOT A VERIFIED GUARANTEE: the published accounting of this mechanism gives ({spent}, {delta}), and it "
            "does not hold."
        )
    return (
        f"The release is ({spent}, {delta})-differentially private for neighbouring data sets that differ by one "
        f"{facts['unit']} added or removed."
    )
