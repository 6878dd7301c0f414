"""The folder that may be shared: the synthetic set, its certificate, and a data card."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from dpsda.privacy import certificate
from dpsda.privacy.accounting import round_up
from dpsda.privacy.files import sha256, write_atomic
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder, csv_bytes, read_json, write_json

if TYPE_CHECKING:
    import pandas as pd


def publish(folder: RunFolder, ledger: Ledger, frame: pd.DataFrame, about: dict[str, str]) -> dict[str, Any]:
    """Write `frame` and what may be claimed of it into `release/`; returns the certificate.

    `about` are lines for the data card (method, data set, model, ...), all public. The certificate is removed first and
    written last, so that a release which has one is complete.
    """
    path = folder.shared / certificate.FILE
    facts = certificate.build(ledger)
    path.unlink(missing_ok=True)
    (folder.release / "report.html").unlink(missing_ok=True)  # what dpsda.report made tells of an earlier spend
    parquet = io.BytesIO()
    frame.to_parquet(parquet, index=False)
    contents = (csv_bytes(frame), parquet.getvalue(), _card(facts, frame, about).encode())
    files = dict(zip(certificate.RELEASED, contents, strict=True))
    for name, data in files.items():
        write_atomic(folder.release / name, data)
    facts["about"] = about
    facts["files"] = {name: sha256(folder.release / name) for name in files}
    write_json(path, facts)
    return facts


def is_published(folder: RunFolder, ledger: Ledger, about: dict[str, str]) -> bool:
    """Whether the release there is tells the same of itself and was made from the ledger as it is now."""
    path = folder.shared / certificate.FILE
    if not path.exists():
        return False
    facts = read_json(path)
    return facts.get("about") == about and facts.get("ledger", {}).get("head") == ledger.head


def _card(facts: dict[str, Any], frame: pd.DataFrame, about: dict[str, str]) -> str:
    lines = ["# Synthetic text", "", facts["statement"], ""]
    lines += [f"- {name}: {value}" for name, value in {**about, "texts": f"{len(frame):,}"}.items()]
    lines += [f"- columns: {', '.join(frame.columns)}", "", "## The guarantee", ""]
    lines += [
        "| | |",
        "|---|---|",
        f"| epsilon | {facts['epsilon']} |",
        f"| delta | {facts['delta']:.4g} |",
        f"| protected unit | one {facts['unit']} of {facts['units']:,} |",
        f"| neighbouring relation | one {facts['unit']} added or removed |",
        f"| labels | {facts['facts'].get('labels', 'none')} |",
        f"| accountant | {facts['accountant']} |",
    ]
    if facts["cross_check"]:
        low, high = facts["cross_check"]["lower"], facts["cross_check"]["upper"]
        lines.append(f"| cross-check (PRV) | epsilon between {low:.4f} and {round_up(high)} |")
    lines += ["", "What was released of the private data:", "", "| releases | what | mechanism | noise multiplier |"]
    lines.append("|---|---|---|---|")
    for row in facts["mechanisms"]:
        lines.append(f"| {row['releases']} | {row['what']} | {row['mechanism']} | {row['noise_multiplier']} |")
    lines += ["", "## What it does not cover", "", *(f"- {line}" for line in facts["not_protected"]), ""]
    lines += [
        "`certificate.json` holds the same for machines, with the head of the run's ledger. It is not a signature: who",
        "has the run folder checks it with `python -m dpsda.privacy verify RUN`.",
        "",
    ]
    return "\n".join(lines)
