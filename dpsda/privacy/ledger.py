"""What a run has spent: an append-only, hash-chained file, written before every draw.

The sequence of a release is reserve -> draw -> store -> commit. The reservation is on disk before the noise is drawn,
and nothing reads the result before it is stored, so that a kill at any moment costs at most one draw that nobody saw:

    killed after     found on restart                what happens
    reserve, draw    a reservation, no result        a `retry` line, a fresh draw, no new charge; what the killed
                                                     process may have written lies in private/ and is removed
    store            a reservation and its result    the stored result is committed; nothing is drawn
    commit           all of it                       the stored result is used

A line holds `seq`, `type`, its own fields, the hash of the line before it and its own hash. The types are

    open      format, unit, number of units, delta, relation, facts on the data
    budget    epsilon or null
    reserve   stage, name, file, mechanism, event: a release and its charge; or `within` in the place of the last two
    charge    stage, name, mechanism, event: of releases that are reserved `within` it, of which fewer may come
    retry     stage, name
    commit    stage, name, sha256 of the file
    made      stage, files with the sha256 of each, `of`: what was computed from the releases of these names
    publish   sha256 of the certificate

A reservation may say that it `continues` another release, as an interval of training does the one before. Once it is
committed, the result that it continues is superseded: its file may go, its charge stays.

A run builds on what its ledger knows and on nothing else (`dpsda.privacy.folder` says which files have to be known): a
`made` file without its line is made again. Ledgers of format 0, which have no number in their first line, are from
before there were such lines; their files are taken where the releases that they come from are committed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dpsda.privacy import accounting, folder
from dpsda.privacy.accounting import Event
from dpsda.privacy.errors import BudgetError, LedgerError
from dpsda.privacy.files import append_line, drop_unfinished, private_folder, sha256, write_atomic
from dpsda.privacy.reservation import Line, Mechanism, Reservation, describe, span

FORMAT = 1
RELATION = "add_remove"
_FIRST = "0" * 64


class Ledger:
    """The ledger of the run in folder `run`, read or started, and locked against a second process until `close`."""

    def __init__(self, run: Path, *, read_only: bool = False, protected: bool = True) -> None:
        self.run = Path(run)
        # the hashes of exact counts can be searched for the counts, so a run without noise has its ledger in private/
        shared, hidden = (self.run / place / "ledger.jsonl" for place in ("state", "private/state"))
        self.path = hidden if not protected or (read_only and not shared.exists()) else shared
        other = shared if self.path == hidden else hidden
        if not read_only and other.exists():
            raise LedgerError(f"{self.run}: runs with and without noise do not share a folder; use another one")
        self._lock: int | None = None
        if not read_only:
            self._lock = _lock(self.path.with_suffix(".lock"))
            _drop_torn_line(self.path)
            self._scratch = private_folder(self.run / "private")
            drop_unfinished(self._scratch)  # a draw that was killed before it was stored
            drop_unfinished(self.path.parent)
        self.lines = _read(self.path)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # what it holds

    @property
    def header(self) -> Line:
        if not self.lines:
            raise LedgerError(f"{self.path}: no ledger here, or an empty one; is this the folder of a run?")
        return self.lines[0]

    @property
    def format(self) -> int:
        return int(self.header.get("format", 0))

    @property
    def shared(self) -> Path:
        """The folder that the files of the run lie below."""
        return self.path.parent.parent

    @property
    def head(self) -> str:
        """The hash of the last line; it stands for the whole chain."""
        return str(self.lines[-1]["hash"]) if self.lines else _FIRST

    @property
    def budget(self) -> float | None:
        """The epsilon that the run may not exceed; None where a noise multiplier was given instead."""
        return next((line["epsilon"] for line in reversed(self.lines) if line["type"] == "budget"), None)

    def reservations(self, stage: str | None = None) -> list[Reservation]:
        """The releases that have a file, committed or not."""
        return [Reservation.of(x) for x in self.lines if x["type"] == "reserve" and stage in (None, x["stage"])]

    def reservation(self, name: str) -> Reservation | None:
        """The release of this name, committed or not."""
        lines = (x for x in self.lines if x["type"] == "reserve" and x["name"] == name)
        return next(map(Reservation.of, lines), None)

    def charges(self, stage: str | None = None) -> list[Reservation]:
        """What is spent: the lines that have an event."""
        return [Reservation.of(x) for x in self.lines if "event" in x and stage in (None, x["stage"])]

    def charged(self, name: str) -> bool:
        """Whether the event of this name is spent."""
        return any("event" in x and x["name"] == name for x in self.lines)

    def events(self, stage: str | None = None) -> list[Event]:
        return [x.event for x in self.charges(stage) if x.event is not None]

    @property
    def guaranteed(self) -> bool:
        """Whether epsilon is finite, and more than what a publication claims."""
        return accounting.guaranteed(self.events())

    def result(self, name: str) -> str | None:
        """The sha256 of a committed result; None where it is not committed."""
        return next((str(x["sha256"]) for x in self.lines if x["type"] == "commit" and x["name"] == name), None)

    def superseded(self) -> set[str]:
        """The releases that a committed one continues."""
        committed = {x["name"] for x in self.lines if x["type"] == "commit"}
        return {x.continues for x in self.reservations() if x.name in committed and x.continues}

    def stored(self, name: str) -> bytes:
        """The result of a committed release. Raises LedgerError where it is not the one that was committed."""
        committed = self.result(name)
        reserved = self.reservation(name)
        if committed is None or reserved is None:
            raise LedgerError(f"{self.path}: no result of {name!r} is committed")
        path = self.run / str(reserved.file)
        if not path.is_file() or sha256(path) != committed:
            raise LedgerError(f"{path}: not the result that the ledger committed; restore it, it is not drawn twice")
        return path.read_bytes()

    def made(self) -> dict[str, str]:
        """The sha256 of every file that was noted, by its path relative to the run."""
        return {file: digest for x in self.lines if x["type"] == "made" for file, digest in x["files"].items()}

    def holds(self, path: Path, *, noted: bool = False) -> bool:
        """Whether a file, or a folder with all its files, is what the run made; if not, it is to be made again.

        A ledger of format 0 noted nothing, and takes what is there, unless it has to be `noted`. Raises LedgerError for
        a file that was noted and is another one now.
        """
        known, there = self.made(), [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        place = self._relative(path)
        if not any(file == place or file.startswith(f"{place}/") for file in known):
            return bool(there) and self.format == 0 and not noted
        for file in there:
            if known.get(self._relative(file)) != sha256(file):
                raise LedgerError(
                    f"{file}: not the file that the run made; restore it, or remove {path} to make it again"
                )
        return bool(there)

    def epsilon(self) -> float:
        """What is spent, reservations without a result included: an upper bound at the ledger's delta."""
        return accounting.epsilon(self.events(), float(self.header["delta"]))

    # what is written

    def open(self, *, unit: str, units: int, delta: float, facts: dict[str, Any]) -> None:
        """Start the ledger, or check that it was started for the same unit, delta and data, and that it is the one of
        the files that are there: a folder in which a run has begun is never given another ledger."""
        fields = {"relation": RELATION, "unit": unit, "units": units, "delta": delta, "facts": facts}
        if not self.lines:
            begun = folder.begun(self.shared) if self.path.is_relative_to(self.run / "state") else None
            if begun is not None:
                raise LedgerError(
                    f"{self.path}: is missing or empty, and a run has begun here ({self._relative(begun)}), so what it "
                    "spent is not known; restore the ledger, or begin anew in another --result_folder"
                )
            self._append("open", {"format": FORMAT, **fields})
            return
        for key, value in fields.items():
            if self.header.get(key) != value:
                what = ", ".join(k for k in facts if self.header["facts"].get(k) != facts[k]) if key == "facts" else key
                raise LedgerError(
                    f"{self.run}: this run was started with other private data or settings ({what} differs): its "
                    "budget covers those only; use another --result_folder"
                )
        folder.check(self)

    def set_budget(self, epsilon: float | None) -> None:
        """Note the budget. It may be raised, or dropped for none, but never lie below what is spent."""
        if epsilon is not None and self.reservations() and self.epsilon() > epsilon:
            raise BudgetError(
                f"{self.run}: epsilon {accounting.round_up(self.epsilon())} is spent, which is above the {epsilon:g} "
                "asked for; ask for a larger --epsilon"
            )
        if not any(line["type"] == "budget" for line in self.lines) or self.budget != epsilon:
            self._append("budget", {"epsilon": epsilon})

    def charge(self, stage: str, name: str, mechanism: Mechanism, event: Event) -> None:
        """Charge for the releases that are reserved `within` it, before the first of them, however many of them come:
        how many were needed may follow from what was drawn, and an epsilon that does as well is no bound.

        Raises BudgetError where it would exceed the budget, LedgerError where `name` was charged for something else.
        """
        fields = {"stage": stage, "name": name, **describe(mechanism), "event": accounting.to_json(event)}
        if not self._is_there("charge", fields):
            self._check_budget(name, event)
            self._append("charge", fields)

    def release(
        self,
        stage: str,
        name: str,
        file: str,
        mechanism: Mechanism | None,
        event: Event | None,
        draw: Callable[[], bytes],
        *,
        within: str | None = None,
        continues: str | None = None,
    ) -> bytes:
        """The result of release `name`, drawn at most once: `draw()` gives the bytes of `file`, relative to the run. It
        costs the `event` of a `mechanism`, or is a part of the charge `within`.

        Raises BudgetError before the draw where it would exceed the budget, and LedgerError where a stored result is
        not the one that was committed, or `name` was charged for something else.
        """
        path = self.run / file
        if self.result(name) is not None:
            return self.stored(name)
        fields: Line = {"stage": stage, "name": name, "file": file}
        if mechanism is not None and event is not None:
            fields |= {**describe(mechanism), "event": accounting.to_json(event)}
        else:
            fields["within"] = within
        if continues is not None:
            fields["continues"] = continues
        if not self._is_there("reserve", fields):
            if path.exists():
                raise LedgerError(folder.unknown(path))
            if not folder.is_result(path, self.shared):
                raise LedgerError(
                    f"{file}: no place of a result, where an older ledger would miss it (dpsda.privacy.folder.RESULTS)"
                )
            if event is not None:
                self._check_budget(name, event)
            else:
                self._check_part(name, str(within))
            self._append("reserve", fields)
        elif not path.exists():
            self._append("retry", {"stage": stage, "name": name})
        if not path.exists():
            write_atomic(path, draw(), self._scratch)
        self._append("commit", {"stage": stage, "name": name, "sha256": sha256(path)})
        return path.read_bytes()

    def note(self, stage: str, *paths: Path, of: Sequence[str] = ()) -> None:
        """Note files, or folders with all their files, that were computed from the committed releases `of` and from
        public data, before anything is built on them. What is noted already is not noted again."""
        missing = [name for name in of if self.result(name) is None]
        if missing:
            raise LedgerError(f"{self.path}: {missing[0]!r} is not committed, so nothing can have been made of it")
        files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
        made = {self._relative(file): sha256(file) for file in files if file.is_file()}
        if not made.items() <= self.made().items():
            self._append("made", {"stage": stage, "files": made, "of": list(of)})

    def publish(self, digest: str) -> None:
        """Note the certificate that is about to be written, by the digest of what it says."""
        self._append("publish", {"certificate": digest})

    def drop_superseded(self) -> None:
        """Remove the files of superseded results, which nothing reads any more."""
        superseded = self.superseded()
        for release in self.reservations():
            if release.name in superseded:
                (self.run / str(release.file)).unlink(missing_ok=True)

    def _check_budget(self, name: str, event: Event) -> None:
        if self.budget is None:
            return
        after = accounting.epsilon([*self.events(), event], float(self.header["delta"]))
        if after > self.budget:
            raise BudgetError(
                f"{self.run}: {name} would bring epsilon to {accounting.round_up(after)}, above the budget of "
                f"{self.budget:g}; nothing was drawn"
            )

    def _is_there(self, kind: str, fields: Line) -> bool:
        """Whether such a line was written; LedgerError where one of its name has other settings."""
        before = next((x for x in self.lines if x["type"] == kind and x["name"] == fields["name"]), None)
        if before is not None and any(before.get(key) != value for key, value in fields.items()):
            raise LedgerError(
                f"{self.path}: {fields['name']!r} is reserved with other settings; go on with the command that made it"
            )
        return before is not None

    def _check_part(self, name: str, within: str) -> None:
        """A part lies in what its charge covers, and beside the other parts."""
        start, stop = span(name)
        whole = span(within) if self.charged(within) else (0, 0)
        parts = [(x.start, x.stop) for x in self.reservations() if x.within == within]
        if not whole[0] <= start < stop <= whole[1] or any(a < stop and start < b for a, b in parts):
            raise LedgerError(
                f"{self.path}: {name!r} is not a part of what {within!r} was charged for, or stands twice"
            )

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.run).as_posix()

    def _append(self, kind: str, fields: Line) -> None:
        if self._lock is None:
            raise LedgerError(f"{self.path}: opened for reading only")
        line = {"seq": len(self.lines), "type": kind, **fields, "prev": self.head}
        line["hash"] = _digest(line)
        append_line(self.path, json.dumps(line, sort_keys=True))
        # what was written is what is kept, so that a float or tuple reads the same now and after a restart
        self.lines.append(json.loads(json.dumps(line)))


def _digest(line: Line) -> str:
    body = {key: value for key, value in line.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> list[Line]:
    if not path.exists():
        return []
    lines: list[Line] = []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]  # a line without its newline was torn by a kill and does not count
    for number, text in enumerate(whole.decode(errors="replace").splitlines(), 1):
        where = f"{path}, line {number}"
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            raise LedgerError(f"{where}: not JSON; the ledger is damaged, restore it from a copy") from None
        before = lines[-1]["hash"] if lines else _FIRST
        if not isinstance(line, dict) or line.get("hash") != _digest(line):
            raise LedgerError(f"{where}: its hash does not fit its content; it was edited or damaged")
        if line.get("prev") != before or line.get("seq") != len(lines):
            raise LedgerError(f"{where}: it does not follow the line before; a line was removed, added or moved")
        if (line["type"] == "open") != (number == 1):
            raise LedgerError(f"{where}: a ledger has one `open` line, its first")
        lines.append(line)
    return lines


def _drop_torn_line(path: Path) -> None:
    """Cut a last line that has no newline: a kill tore it, and whatever it announced had not happened yet."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with open(path, "r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())


def _lock(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise LedgerError(f"{path.parent.parent}: another process is working in this run folder; wait for it") from None
    return handle
