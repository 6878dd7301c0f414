"""Runs of every format, as they were written: they verify whatever later versions say, and none of it may change."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dpsda.privacy import certificate, folder
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.reservation import describe, restored

GOLDEN = sorted(path for path in (Path(__file__).parent / "golden").glob("*/*") if path.is_dir())
FORMATS = {"format_0", "format_1"}
PLACES = ("release", "private/release")


def here(run: Path) -> Path:
    """The certificate of a golden run."""
    return next(run / place / "certificate.json" for place in PLACES if (run / place).is_dir())


@pytest.fixture(params=GOLDEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def run(request, tmp_path) -> Path:
    return Path(shutil.copytree(request.param, tmp_path / "run"))


def numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where finite numbers stand in JSON."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(item, (*path, key))
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield path


def test_there_is_a_run_of_every_format_and_route():
    assert {path.parent.name for path in GOLDEN} == FORMATS
    assert certificate.FORMAT == 1, "a new format needs golden runs, and FORMATS its name"
    charges = [charge for path in GOLDEN for charge in Ledger(path, read_only=True).charges()]
    kinds = {describe(charge.mechanism)["mechanism"] for charge in charges if charge.mechanism is not None}
    known = {"RecordHistogram", "UserHistogram", "GradientSum", "MaxDivergence", "Renyi", "Published", "ClippedLogits"}
    assert kinds == known
    assert {charge.stage for charge in charges} == {"augpe", "finetune", "predict", "resample"}


def test_every_result_is_of_a_kind_that_a_ledger_has_to_know(run):
    """So that one which no reservation names is seen (dpsda.privacy.folder)."""
    ledger = Ledger(run, read_only=True)
    for release in ledger.reservations():
        file = (run / str(release.file)).relative_to(ledger.shared)
        assert any(file.match(pattern) for pattern in folder.RESULTS), file


def test_it_verifies_as_it_was_certified(run):
    facts, actual = json.loads(here(run).read_text()), certificate.verify(run)
    assert actual["epsilon"] == facts["epsilon"] or "claimed" in actual


def test_it_verifies_however_limits_are_put(run, monkeypatch):
    for code in certificate.LIMITS:
        monkeypatch.setitem(certificate.LIMITS, code, "It is put in other words.")
    certificate.verify(run)


def test_its_mechanisms_are_restored_and_described_as_they_were(run):
    lines = [line for line in Ledger(run, read_only=True).lines if "event" in line]
    assert lines
    for line in lines:
        told = describe(restored(line))
        assert told == {key: line[key] for key in told}


def test_no_number_of_its_certificate_can_change(run):
    path = here(run)
    facts = json.loads(path.read_text())
    changed = 0
    for where in numbers(facts):
        other = json.loads(path.read_text())
        place = other
        for key in where[:-1]:
            place = place[key]
        place[where[-1]] = place[where[-1]] * 2 + 1
        path.write_text(json.dumps(other))
        with pytest.raises(PrivacyError):
            certificate.verify(run)
        path.write_text(json.dumps(facts))
        changed += 1
    assert changed > 5
    certificate.verify(run)


def test_no_file_that_it_vouches_for_can_change(run):
    ledger = Ledger(run, read_only=True)
    known = [run / str(release.file) for release in ledger.reservations() if release.name not in ledger.superseded()]
    for path in (*filter(Path.is_file, known), *sorted(here(run).parent.iterdir()), ledger.path):
        if path == here(run) and ledger.format == 0:
            continue  # of which no digest was noted: its numbers are held against the ledger, as above
        data = path.read_bytes()
        path.write_bytes(data.replace(b"1", b"2", 1) if b"1" in data else data + b"1")
        with pytest.raises(PrivacyError):
            certificate.verify(run)
        path.write_bytes(data)
    certificate.verify(run)
