"""The ledger's promises, and a certificate that fails when anything under it is edited."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from dpsda.privacy import accounting, certificate
from dpsda.privacy.__main__ import main as privacy_command
from dpsda.privacy.accounting import DiscreteGaussian, epsilon
from dpsda.privacy.errors import BudgetError, LedgerError, PrivacyError
from dpsda.privacy.files import MARKER, write_atomic
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import histogram
from dpsda.privacy.mixture import ClippedLogits


def started(run, budget=None, **header):
    with contextlib.ExitStack() as failed:
        ledger = failed.enter_context(contextlib.closing(Ledger(run)))
        ledger.open(**{"unit": "record", "units": 1000, "delta": 1e-5, "facts": {"labels": "none"}, **header})
        ledger.set_budget(budget)
        failed.pop_all()
    return ledger


def release(ledger, t, noise=5.0, draw=None):
    mechanism = histogram("record", noise)
    votes = np.zeros((50, 1), dtype=np.int64)
    draw = draw or (lambda: ",".join(map(str, mechanism.release(votes, None, 3))).encode())
    return ledger.release("test", f"votes/{t}", f"{t}/counts.csv", mechanism, mechanism.event, draw)


def finished(run, budget=None):
    ledger = started(run, budget)
    for t in (1, 2):
        release(ledger, t)
    return certified(run, ledger)


def certified(run, ledger):
    """The certificate of a run whose released files are made up; it closes the ledger."""
    for name in certificate.RELEASED:
        write_atomic(run / "release" / name, b"text\r\nhello\r\n")
    facts = certificate.publish(ledger, certificate.build(ledger), {"labels": "public, on the owner's word"})
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
from dpsda.privacy.mechanism import RecordHistogram

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
ledger.release("test", "votes/1", "1/counts.csv", RecordHistogram(5.0), DiscreteGaussian(5.0, 1), draw)
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
    assert [path.name for path in (tmp_path / "private").iterdir()] == [MARKER]
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
    with pytest.raises(LedgerError, match="does not know"):
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
        (CERTIFICATE, r'"epsilon": [0-9.]+,\n', '"epsilon": 0.5,\n'),
        (CERTIFICATE, '"noise_multiplier": 5.0', '"noise_multiplier": 9.0'),
        (CERTIFICATE, '"delta": 1e-05', '"delta": 1e-09'),
        (CERTIFICATE, r"The release is \([0-9.]+", "The release is (0.01"),
        (CERTIFICATE, '"synthetic.csv": ', '"other.csv": '),
        (CERTIFICATE, r'(?s)"files": \{.*?\}', '"files": {}'),
        (CERTIFICATE, "public, on the owner's word", "private"),
        (CERTIFICATE, r'(?s)"about": \{.*?\}', '"about": {}'),
        (CERTIFICATE, r'"lower": [0-9.]+', '"lower": 0.01'),
        (CERTIFICATE, '"unit": "record"', '"unit": "record",\n  "approved": true'),
        (CERTIFICATE, '"format": 1', '"format": 0'),
        (CERTIFICATE, '"format": 1', '"format": 2'),
        (CERTIFICATE, "How long the run took", "Nothing"),
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


def test_runs_on_the_same_data_add_up(tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    facts = finished(one)
    shutil.copytree(one, two)
    spent, delta = certificate.total([one, two])
    assert delta == 1e-5 and facts["epsilon"] < spent < 2 * facts["epsilon"]
    (two / certificate.FILE).unlink()  # as before it finishes
    assert privacy_command(["total", str(one), str(two)]) == 0
    together, *unfinished = capsys.readouterr().out.splitlines()
    assert together.startswith(f"together: ({accounting.round_up(spent)}, 1e-05)-differentially private")
    assert unfinished == [f"{two}: is not finished; what it still spends comes on top"]
    started(tmp_path / "user", unit="user").close()
    with pytest.raises(PrivacyError, match="unit"):
        certificate.total([one, tmp_path / "user"])


# what a later result continues


CHAIN = "state/checkpoints/{}.safetensors"


def chain(ledger, *names, file=CHAIN):
    """One release after the other, each of which continues the one before."""
    mechanism, before = histogram("record", 5.0), None
    for name in names:
        path, draw = file.format(name), lambda name=name: name.encode()
        ledger.release("test", name, path, mechanism, mechanism.event, draw, continues=before)
        before = name


def test_a_superseded_result_may_go_and_its_charge_stays(tmp_path):
    ledger = started(tmp_path)
    chain(ledger, "a", "b", "c")
    spent, alone = ledger.epsilon(), len(ledger.events())
    ledger.drop_superseded()
    assert [(tmp_path / CHAIN.format(name)).exists() for name in "abc"] == [False, False, True]
    assert ledger.epsilon() == spent and alone == 3 and ledger.stored("c") == b"c"
    for name in "ab":
        with pytest.raises(LedgerError, match="not drawn twice"):
            ledger.stored(name)


def test_nothing_is_superseded_before_the_next_is_committed(tmp_path):
    ledger = started(tmp_path)
    chain(ledger, "a")
    mechanism = histogram("record", 5.0)
    with pytest.raises(ZeroDivisionError):
        ledger.release("test", "b", CHAIN.format("b"), mechanism, mechanism.event, lambda: bytes(1 // 0), continues="a")
    ledger.drop_superseded()
    assert ledger.stored("a") == b"a" and ledger.superseded() == set()


def test_verify_wants_the_last_of_a_chain_and_only_that(tmp_path):
    def certify():
        ledger = started(tmp_path)
        chain(ledger, "a", "b")
        certified(tmp_path, ledger)

    certify()
    certificate.verify(tmp_path)
    (tmp_path / CHAIN.format("a")).write_bytes(b"edited")
    with pytest.raises(LedgerError, match="edited"):  # while it is there, it has to be what it was
        certificate.verify(tmp_path)
    (tmp_path / CHAIN.format("a")).unlink()
    certificate.verify(tmp_path)
    (tmp_path / CHAIN.format("b")).unlink()
    with pytest.raises(LedgerError, match="result of b is missing"):
        certificate.verify(tmp_path)


# what a run builds on


def test_a_run_that_has_begun_is_given_no_other_ledger(tmp_path):
    """Lost, or emptied: what was spent is not known, so nothing goes on."""
    for left in ("1/counts.csv", "0/samples.csv", "state/answers/7.jsonl", "state/checkpoints/0-2.safetensors"):
        for emptied in (False, True):
            run = tmp_path / f"{left.replace('/', '_')}-{emptied}"
            finished(run)
            shutil.rmtree(run / "1")
            shutil.rmtree(run / "2")
            shutil.rmtree(run / "release")
            write_atomic(run / left, b"something")
            (run / LEDGER).write_bytes(b"") if emptied else (run / LEDGER).unlink()
            with pytest.raises(LedgerError, match=f"missing or empty, and a run has begun here .{left}"):
                started(run)
            (run / left).unlink()
            started(run).close()  # what is left is of no run


def test_a_ledger_that_is_older_than_the_run_is_refused(tmp_path):
    ledger = started(tmp_path)
    release(ledger, 1)
    older = (tmp_path / LEDGER).read_bytes()
    release(ledger, 2)
    certified(tmp_path, ledger)
    certificate.verify(tmp_path)
    (tmp_path / LEDGER).write_bytes(older)
    with pytest.raises(LedgerError, match=r"2/counts\.csv: a result that the run's ledger does not know"):
        started(tmp_path)
    ledger = Ledger(tmp_path)
    (tmp_path / certificate.FILE).unlink()
    certificate.publish(ledger, certificate.build(ledger), {})
    ledger.close()
    with pytest.raises(LedgerError, match=r"2/counts\.csv: a result that the run's ledger does not know"):
        certificate.verify(tmp_path)


def made(run, ledger, file="1/samples.csv", of=("votes/1",)):
    write_atomic(run / file, b"id,text\r\n1,hello\r\n")
    ledger.note("test", run / file, of=of)
    return run / file


def test_what_was_made_is_noted_and_held(tmp_path):
    ledger = started(tmp_path)
    release(ledger, 1)
    path = tmp_path / "1" / "samples.csv"
    assert not ledger.holds(path)
    write_atomic(path, b"left by a process that was killed before it could note it")
    assert not ledger.holds(path)
    made(tmp_path, ledger)
    lines = len(ledger.lines)
    made(tmp_path, ledger)
    assert ledger.holds(path) and len(ledger.lines) == lines
    path.write_bytes(b"replaced")
    with pytest.raises(LedgerError, match="not the file that the run made"):
        ledger.holds(path)
    path.unlink()
    assert not ledger.holds(path)  # to be made again


def test_a_folder_is_held_with_all_of_its_files(tmp_path):
    ledger, folder = started(tmp_path), tmp_path / "state" / "adapter"
    write_atomic(folder / "config.json", b"{}")
    write_atomic(folder / "weights", b"1")
    ledger.note("test", folder)
    assert ledger.holds(folder)
    write_atomic(folder / "another", b"1")
    with pytest.raises(LedgerError, match="another: not the file that the run made"):
        ledger.holds(folder)


def test_nothing_is_made_of_votes_that_are_not_committed(tmp_path):
    ledger = started(tmp_path)
    with pytest.raises(LedgerError, match="'votes/1' is not committed"):
        made(tmp_path, ledger)


@pytest.mark.parametrize(
    ("file", "match"),
    [
        ("1/samples.csv", "not the file that the run made; it was replaced"),
        ("3/samples.csv", "not a file that the run made"),
        ("state/adapter/weights", "not a file that the run made"),
        ("state/answers/000-010.json", "a result that the run's ledger does not know"),
        ("state/checkpoints/0-2.safetensors", "a result that the run's ledger does not know"),
        ("label_counts.csv", "a result that the run's ledger does not know"),
        ("release/more.csv", "no part of the release"),
        ("release/report.html", "no part of the release"),
        ("release/more/synthetic.csv", "no part of the release"),
    ],
)
def test_verify_knows_every_file_that_a_run_is_built_of(tmp_path, file, match):
    ledger = started(tmp_path)
    for t in (1, 2):
        release(ledger, t)
    made(tmp_path, ledger)
    certified(tmp_path, ledger)
    certificate.verify(tmp_path)
    write_atomic(tmp_path / file, b"from somewhere")
    with pytest.raises(PrivacyError, match=match):
        certificate.verify(tmp_path)


def test_a_page_that_is_noted_belongs_to_the_release(tmp_path):
    finished(tmp_path)
    write_atomic(tmp_path / "release" / certificate.PAGE, b"<html>")
    ledger = Ledger(tmp_path)
    ledger.note("report", tmp_path / "release" / certificate.PAGE)
    ledger.close()
    certificate.verify(tmp_path)
    (tmp_path / "release" / certificate.PAGE).write_bytes(b"<html>epsilon 0.1")
    with pytest.raises(LedgerError, match="replaced or edited"):
        certificate.verify(tmp_path)


def test_the_hash_of_an_edited_card_cannot_be_renewed(tmp_path):
    facts = finished(tmp_path)
    card = tmp_path / "release" / certificate.CARD
    card.write_bytes(b"epsilon 0.1")
    facts["files"][certificate.CARD] = certificate.sha256(card)
    (tmp_path / certificate.FILE).write_text(json.dumps(facts))
    with pytest.raises(PrivacyError, match="not what the ledger noted when it was published"):
        certificate.verify(tmp_path)


# what is charged as a whole


def part(ledger, start, stop, within="answers/0-10", draw=lambda: b"tokens"):
    return ledger.release(
        "test", f"answers/{start}-{stop}", f"state/answers/{start}.json", None, None, draw, within=within
    )


def test_parts_cost_what_their_charge_does_however_few_of_them_come(tmp_path):
    ledger = started(tmp_path)
    event = DiscreteGaussian(5.0, 10)
    ledger.charge("test", "answers/0-10", ClippedLogits(4, 1.0, 2.0), event)
    ledger.charge("test", "answers/0-10", ClippedLogits(4, 1.0, 2.0), event)
    before = ledger.epsilon()
    part(ledger, 0, 4)
    assert part(ledger, 0, 4, draw=never) == b"tokens" and ledger.epsilon() == before == epsilon([event], 1e-5)
    for start, stop, within in ((8, 11, "answers/0-10"), (2, 6, "answers/0-10"), (4, 6, "answers/0-99")):
        with pytest.raises(LedgerError, match="not a part"):
            part(ledger, start, stop, within, never)
    with pytest.raises(LedgerError, match="other settings"):
        ledger.charge("test", "answers/0-10", ClippedLogits(4, 1.0, 1.0), event)


def test_a_charge_above_the_budget_is_refused(tmp_path):
    ledger = started(tmp_path, budget=1.0)
    with pytest.raises(BudgetError, match="nothing was drawn"):
        ledger.charge("test", "answers/0-10", ClippedLogits(4, 1.0, 2.0), DiscreteGaussian(5.0, 10))


def test_a_result_lies_where_an_older_ledger_would_miss_it(tmp_path):
    ledger, mechanism = started(tmp_path), histogram("record", 5.0)
    for file in ("counts.csv", "state/new.csv", "../elsewhere/1/counts.csv"):
        with pytest.raises(LedgerError, match=r"no place of a result.*RESULTS"):
            ledger.release("test", "votes/1", file, mechanism, mechanism.event, never)
    assert not ledger.charges()
