"""The ledger's promises, and a certificate that fails when anything under it is edited."""

import json
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from dpsda.privacy import certificate
from dpsda.privacy.errors import BudgetError, LedgerError, PrivacyError
from dpsda.privacy.files import write_atomic
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import describe, histogram


def started(run, budget=None, **header):
    ledger = Ledger(run)
    ledger.open(**{"unit": "record", "units": 1000, "delta": 1e-5, "facts": {"labels": "none"}, **header})
    ledger.set_budget(budget)
    return ledger


def release(ledger, t, noise=5.0, draw=None):
    mechanism = histogram("record", noise)
    votes = np.zeros((50, 1), dtype=np.int64)
    draw = draw or (lambda: ",".join(map(str, mechanism.release(votes, None, 3))).encode())
    return ledger.release("test", f"votes/{t}", f"{t}/counts.csv", describe(mechanism), mechanism.event, draw)


def finished(run, budget=None):
    ledger = started(run, budget)
    for t in (1, 2):
        release(ledger, t)
    return certified(run, ledger)


def certified(run, ledger):
    """The certificate of a run whose released files are made up; it closes the ledger."""
    facts = certificate.build(ledger)
    facts["files"] = {}
    for name in certificate.RELEASED:
        write_atomic(run / "release" / name, b"text\r\nhello\r\n")
        facts["files"][name] = certificate.sha256(run / "release" / name)
    write_atomic(run / certificate.FILE, json.dumps(facts).encode())
    ledger.close()
    return facts


def never():
    raise AssertionError("drawn twice")


def test_a_committed_result_is_never_drawn_again(tmp_path):
    ledger = started(tmp_path)
    first = release(ledger, 1)
    assert release(ledger, 1, draw=never) == first
    ledger.close()
    assert release(Ledger(tmp_path), 1, draw=never) == first


KILLED = """
import os, signal, sys
from pathlib import Path
from dpsda.privacy import ledger as module
from dpsda.privacy.accounting import DiscreteGaussian

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

moment, run = sys.argv[1], Path(sys.argv[2])  # "write": the draw is on disk, and not yet under its name
ledger = module.Ledger(run)
ledger.open(unit="record", units=1000, delta=1e-5, facts={"labels": "none"})
ledger.set_budget(None)
write, append = module.write_atomic, module.Ledger._append
if moment == "draw":
    module.write_atomic = die
if moment == "write":
    Path.replace = die
if moment == "store":
    module.write_atomic = lambda *arguments: die(write(*arguments))
if moment == "commit":
    module.Ledger._append = lambda self, kind, fields: die(append(self, kind, fields)) if kind == "commit" else append(
        self, kind, fields
    )
draw = die if moment == "reserve" else lambda: b"first draw"
mechanism = {"mechanism": "RecordHistogram", "noise_multiplier": 5.0, "l2_sensitivity": 1.0, "scale": 5.0}
ledger.release("test", "votes/1", "1/counts.csv", mechanism, DiscreteGaussian(5.0, 1), draw)
"""


@pytest.mark.parametrize("moment", ["reserve", "draw", "write", "store", "commit"])
def test_sigkill_at_any_point_costs_no_second_charge(tmp_path, moment):
    """A process is killed right after `moment`; the next one finds its way, and nobody sees two draws."""
    killed = subprocess.run([sys.executable, "-c", KILLED, moment, str(tmp_path)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()

    outside = [path for path in tmp_path.rglob("*") if path.is_file() and "private" not in path.parts]
    stored = moment in ("store", "commit")
    assert sum(b"first draw" in path.read_bytes() for path in outside) == stored
    again = Ledger(tmp_path)
    assert not list((tmp_path / "private").iterdir())
    result = release(again, 1, draw=lambda: b"second draw")
    assert result == (b"first draw" if stored else b"second draw")
    assert len(again.reservations()) == 1
    assert sum(line["type"] == "retry" for line in again.lines) == (not stored)
    assert again.epsilon() == pytest.approx(_spend_of_one(tmp_path / "other"))


def _spend_of_one(folder):
    ledger = started(folder)
    release(ledger, 1)
    return ledger.epsilon()


def test_a_torn_last_line_is_dropped(tmp_path):
    ledger = started(tmp_path)
    release(ledger, 1)
    ledger.close()
    with open(ledger.path, "ab") as file:
        file.write(b'{"seq": 4, "type": "res')
    again = Ledger(tmp_path)
    assert again.head == ledger.head
    release(again, 2)
    again.close()
    assert len(Ledger(tmp_path).reservations()) == 2


def test_a_torn_last_line_does_not_count_for_readers(tmp_path):
    finished(tmp_path)
    with open(tmp_path / "state" / "ledger.jsonl", "ab") as file:
        file.write(b'{"seq": 4, "type": "res')
    certificate.verify(tmp_path)


def test_a_run_that_went_on_is_told_from_an_edited_one(tmp_path):
    finished(tmp_path)
    ledger = Ledger(tmp_path)
    release(ledger, 3)
    ledger.close()
    with pytest.raises(LedgerError, match="gone on since"):
        certificate.verify(tmp_path)


def test_a_spend_above_the_budget_is_refused_before_the_draw(tmp_path):
    ledger = started(tmp_path, budget=1.0)
    release(ledger, 1)
    with pytest.raises(BudgetError, match="nothing was drawn"):
        release(ledger, 2, draw=never)
    assert len(ledger.reservations()) == 1
    ledger.set_budget(2.0)
    release(ledger, 2)
    with pytest.raises(BudgetError, match="is spent"):
        ledger.set_budget(1.0)


def test_another_unit_delta_or_data_is_refused(tmp_path):
    started(tmp_path).close()
    for change in ({"unit": "user"}, {"delta": 1e-6}, {"units": 999}, {"facts": {"labels": "other"}}):
        with pytest.raises(LedgerError, match="differs"):
            ledger = Ledger(tmp_path)
            try:
                ledger.open(**{"unit": "record", "units": 1000, "delta": 1e-5, "facts": {"labels": "none"}, **change})
            finally:
                ledger.close()


def test_a_reservation_is_finished_as_it_was_made(tmp_path):
    ledger = started(tmp_path)
    with pytest.raises(ZeroDivisionError):
        release(ledger, 1, draw=lambda: 1 / 0)
    with pytest.raises(LedgerError, match="other settings"):
        release(ledger, 1, noise=4.0)


def test_a_result_that_no_reservation_covers_is_refused(tmp_path):
    ledger = started(tmp_path)
    write_atomic(tmp_path / "1" / "counts.csv", b"from somewhere")
    with pytest.raises(LedgerError, match="without a reservation"):
        release(ledger, 1)


def test_one_process_at_a_time(tmp_path):
    ledger = started(tmp_path)
    with pytest.raises(LedgerError, match="another process"):
        Ledger(tmp_path)
    ledger.close()
    Ledger(tmp_path).close()


def test_a_finished_run_verifies(tmp_path):
    facts = finished(tmp_path)
    assert certificate.verify(tmp_path)["epsilon"] == facts["epsilon"]
    assert facts["mechanisms"][0]["releases"] == 2 and facts["cross_check"]["lower"] < facts["epsilon"]


LEDGER, COUNTS, CERTIFICATE = "state/ledger.jsonl", "1/counts.csv", certificate.FILE


@pytest.mark.parametrize(
    "file, old, new",
    [
        (LEDGER, '"noise_multiplier": 5.0', '"noise_multiplier": 9.0'),
        (LEDGER, '"scale": 5.0', '"scale": 6.0'),
        (LEDGER, '"units": 1000', '"units": 1001'),
        (LEDGER, r"(?s)^(.*?\n.*?\n).*?\n", r"\1"),  # one line gone
        (LEDGER, r"(?s)\n[^\n]*\n$", "\n"),  # the last line gone
        (LEDGER, r"(?s)$", "{}\n"),
        (LEDGER, r"(?s)$", "not json\n"),
        (COUNTS, r"(?s)$", "0"),
        (CERTIFICATE, r'"epsilon": [0-9.]+, "delta"', '"epsilon": 0.5, "delta"'),
        (CERTIFICATE, '"noise_multiplier": 5.0', '"noise_multiplier": 9.0'),
        (CERTIFICATE, '"delta": 1e-05', '"delta": 1e-09'),
        (CERTIFICATE, r"The release is \([0-9.]+", "The release is (0.01"),
        (CERTIFICATE, '"synthetic.csv": ', '"other.csv": '),
        (CERTIFICATE, r'"files": \{.*?\}', '"files": {}'),
        (CERTIFICATE, r'"epsilon": [0-9.]+', '"epsilon": "low"'),
        (CERTIFICATE, r"(?s)^.*$", "[]"),
        ("release/synthetic.csv", "hello", "goodbye"),
    ],
)
def test_verify_fails_when_one_thing_is_edited(tmp_path, file, old, new):
    finished(tmp_path)
    path = tmp_path / file
    data = path.read_bytes()
    edited = re.sub(old.encode(), new.encode(), data, count=1)
    assert edited != data
    path.write_bytes(edited)
    with pytest.raises(PrivacyError):
        certificate.verify(tmp_path)


def test_a_rewritten_chain_does_not_fit_the_certificate(tmp_path):
    """An editor who computes every hash again still has another head."""
    from dpsda.privacy.ledger import _digest

    finished(tmp_path)
    lines = [json.loads(x) for x in (tmp_path / LEDGER).read_text().splitlines()]
    head = "0" * 64
    for line in lines:
        if line["type"] == "reserve":
            line["noise_multiplier"] = line["scale"] = line["event"]["scale"] = 9.0
        line["prev"] = head
        line["hash"] = head = _digest(line)
    (tmp_path / LEDGER).write_text("".join(json.dumps(x) + "\n" for x in lines))
    with pytest.raises(PrivacyError):
        certificate.verify(tmp_path)


def test_runs_on_the_same_data_add_up(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    facts = finished(one)
    shutil.copytree(one, two)
    spent, delta = certificate.total([one, two])
    assert delta == 1e-5 and facts["epsilon"] < spent < 2 * facts["epsilon"]
    started(tmp_path / "user", unit="user").close()
    with pytest.raises(PrivacyError, match="unit"):
        certificate.total([one, tmp_path / "user"])


# what a later result continues


def chain(ledger, *names, file="{}.bin"):
    """One release after the other, each of which continues the one before."""
    mechanism, before = histogram("record", 5.0), None
    for name in names:
        fields = {**describe(mechanism), "continues": before}
        ledger.release("test", name, file.format(name), fields, mechanism.event, lambda name=name: name.encode())
        before = name


def test_a_superseded_result_may_go_and_its_charge_stays(tmp_path):
    ledger = started(tmp_path)
    chain(ledger, "a", "b", "c")
    spent, alone = ledger.epsilon(), len(ledger.events())
    ledger.drop_superseded()
    assert [(tmp_path / f"{name}.bin").exists() for name in "abc"] == [False, False, True]
    assert ledger.epsilon() == spent and alone == 3 and ledger.stored("c") == b"c"
    for name in "ab":
        with pytest.raises(LedgerError, match="not drawn twice"):
            ledger.stored(name)


def test_nothing_is_superseded_before_the_next_is_committed(tmp_path):
    ledger = started(tmp_path)
    chain(ledger, "a")
    mechanism = histogram("record", 5.0)
    with pytest.raises(ZeroDivisionError):
        fields = {**describe(mechanism), "continues": "a"}
        ledger.release("test", "b", "b.bin", fields, mechanism.event, lambda: bytes(1 // 0))
    ledger.drop_superseded()
    assert ledger.stored("a") == b"a" and ledger.superseded() == set()


def test_verify_wants_the_last_of_a_chain_and_only_that(tmp_path):
    def certify():
        ledger = started(tmp_path)
        chain(ledger, "a", "b")
        certified(tmp_path, ledger)

    certify()
    certificate.verify(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"edited")
    with pytest.raises(LedgerError, match="edited"):  # while it is there, it has to be what it was
        certificate.verify(tmp_path)
    (tmp_path / "a.bin").unlink()
    certificate.verify(tmp_path)
    (tmp_path / "b.bin").unlink()
    with pytest.raises(LedgerError, match="result of b is missing"):
        certificate.verify(tmp_path)
