"""The folder that may be shared: the synthetic set, if the run made one, its certificate, and a card."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dpsda import croissant
from dpsda.data.layout import cast
from dpsda.privacy import certificate
from dpsda.privacy.accounting import PROXY_TOLERANCE, round_up, shown
from dpsda.privacy.files import appearing, drop_unfinished, write_atomic, write_json
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder, csv_bytes, read_json

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from dpsda.data.layout import Layout


def publish(
    folder: RunFolder,
    ledger: Ledger,
    frames: pd.DataFrame | Iterable[pd.DataFrame] | None,
    about: dict[str, str],
    types: Layout,
) -> dict[str, Any]:
    """Write the texts and what may be claimed of them into `release/`; returns the certificate.

    The texts are one table, or parts of one, of which no two are held at a time; None where a model is what there is.
    Columns have the order and the `types` of the private file.

    `about` are lines for the data card (method, data set, model, ...), all public. The certificate is removed first and
    written last, so that a release which has one is complete.
    """
    path = folder.shared / certificate.FILE
    facts = certificate.build(ledger)
    certificate.withdraw(path)
    drop_unfinished(folder.release)
    (folder.release / certificate.PAGE).unlink(missing_ok=True)  # what dpsda.report made tells of an earlier spend
    count = None
    if frames is not None:
        texts, parquet = (folder.release / name for name in certificate.TEXTS)
        columns, count = _write_tables(texts, parquet, frames, types)
        described = {**about, "texts": f"{count:,}", "columns": ", ".join(columns)}
        write_json(folder.release / certificate.METADATA, croissant.metadata(texts, parquet, facts["statement"], about))
    else:
        described = about
        for name in (*certificate.TEXTS, certificate.METADATA):  # of texts before this model
            (folder.release / name).unlink(missing_ok=True)
    write_atomic(folder.release / certificate.CARD, _card(facts, described, count).encode())
    return certificate.publish(ledger, facts, about)


def _write_tables(
    texts: Path, parquet: Path, frames: pd.DataFrame | Iterable[pd.DataFrame], types: Layout
) -> tuple[list[str], int]:
    """Write the csv and the parquet file part by part; the columns, and how many texts there are."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = [frames] if isinstance(frames, pd.DataFrame) else frames
    columns: list[str] = []
    count = 0
    with appearing(texts) as csv_path, appearing(parquet) as parquet_path, contextlib.ExitStack() as stack:
        out = stack.enter_context(open(csv_path, "wb"))
        writer: pq.ParquetWriter | None = None
        for frame in parts:
            table = cast(pa.Table.from_pandas(frame, preserve_index=False), types)
            if writer is None:
                columns = table.column_names
                writer = stack.enter_context(pq.ParquetWriter(parquet_path, table.schema))
            out.write(csv_bytes(frame[columns], header=out.tell() == 0))
            writer.write_table(table.cast(writer.schema))
            count += len(frame)
    return columns, count


def add_audit(folder: RunFolder, line: str) -> None:
    """Add what an audit found, one line, to the certificate and the card of a release; a later audit's takes its place,
    and a release that is made again has none. Raises PrivacyError where `certificate.verify` would."""
    with contextlib.closing(Ledger(folder.root, protected=folder.protected)) as ledger:
        certificate.verify(folder.root)
        path, card = folder.shared / certificate.FILE, folder.release / certificate.CARD
        facts, body = read_json(path), card.read_text(encoding="utf-8").partition(certificate.AUDIT)[0]
        certificate.withdraw(path)
        write_atomic(card, f"{body}{certificate.AUDIT}{line}\n".encode())
        fresh = {"format": certificate.FORMAT, "ledger": {"lines": len(ledger.lines), "head": ledger.head}}
        certificate.publish(ledger, {**facts, **fresh, "audit": line}, facts["about"])


def is_published(folder: RunFolder, ledger: Ledger, about: dict[str, str]) -> bool:
    """Whether the release there tells the same of itself and of its limits, and is of the ledger as it is now."""
    path = folder.shared / certificate.FILE
    if not path.exists():
        return False
    facts = read_json(path)
    described = {"about": about, "limits": certificate.limits(ledger), "budget": ledger.budget}
    there = {"limits": described["limits"], **facts}  # certificates from before there were codes have none
    return certificate.is_current(facts, ledger) and all(there.get(key) == value for key, value in described.items())


def spent(ledger: Ledger) -> str:
    """The epsilon of everything that is charged so far, as it is shown."""
    return f"{round_up(ledger.epsilon()):g}"


# as the hub names the size of a data set, by the first number of texts that is too large for it
_SIZES = {
    **{"n<1K": 10**3, "1K<n<10K": 10**4, "10K<n<100K": 10**5, "100K<n<1M": 10**6},
    **{"1M<n<10M": 10**7, "10M<n<100M": 10**8, "100M<n<1B": 10**9, "1B<n<10B": 10**10},
}


def _front(about: dict[str, str], count: int, *, protected: bool) -> str:
    """What `datasets` and the hub read of a card. The license and the languages are what spec.yaml says."""
    languages = [f"- {json.dumps(code)}" for code in about.get("language", "").split(", ") if code]
    lines = ["---", f"license: {json.dumps(about.get('license', 'unknown'))}"]
    lines += ["language:", *languages] if languages else []
    lines += ["tags:", "- synthetic", *(["- differential-privacy"] if protected else [])]
    lines += ["size_categories:", f"- {next(size for size, end in _SIZES.items() if count < end)}"]
    lines += ["configs:", "- config_name: default", "  data_files:", "  - split: train"]
    return "\n".join([*lines, f"    path: {certificate.TEXTS[1]}", "---\n"])


def _card(facts: dict[str, Any], about: dict[str, str], count: int | None) -> str:
    """The data card of `count` texts, or of a model."""
    protected = facts["epsilon"] != "inf"
    front = [] if count is None else [_front(about, count, protected=protected)]
    lines = [*front, "# A model of private data" if count is None else "# Synthetic text", "", facts["statement"], ""]
    lines += [f"- {name}: {value}" for name, value in about.items()]
    if not protected:
        lines += ["", "## No guarantee", "", "Nothing of the private data is protected: keep this folder private."]
    else:
        lines += ["", "## The guarantee", ""]
        lines += [
            "| | |",
            "|---|---|",
            f"| epsilon | {facts['epsilon']} |",
            f"| delta | {shown(facts['delta'])} |",
            f"| protected unit | one {facts['unit']} of {facts['units']:,} |",
            f"| neighbouring relation | one {facts['unit']} added or removed |",
            f"| labels | {facts['facts'].get('labels', 'none')} |",
            f"| accountant | {facts['accountant']} |",
        ]
    if facts["cross_check"]:
        low, high = facts["cross_check"]["lower"], facts["cross_check"]["upper"]
        discrete = any(row["event"]["kind"] == "discrete_gaussian" for row in facts["mechanisms"])
        proxy = f" for continuous noise; discrete noise may differ by {PROXY_TOLERANCE:.0%}" if discrete else ""
        lines.append(f"| a second accountant (PRV) | epsilon between {low:.4f} and {round_up(high)}{proxy} |")
    lines += ["", "What was released of the private data:", "", "| releases | what | mechanism | strength |"]
    lines.append("|---|---|---|---|")
    for row in facts["mechanisms"]:
        lines.append(f"| {row['releases']} | {row['what']} | {row['mechanism']} | {certificate.strength(row)} |")
    lines += ["", "## What it does not cover", "", *(f"- {line}" for line in facts["not_protected"]), ""]
    lines += [
        "`certificate.json` holds the same for machines, with the head of the run's ledger, and answers the questions",
        "of NIST SP 800-226. It is not a signature: `certificate.json.sig` is one, where it is there. Who has the run",
        "folder checks both with `dpsda verify RUN`.",
        "",
    ]
    return "\n".join(lines)
