"""The run folder: where each result lies, what may be shared, and what a restarted command may change.

    RUN/release/    the synthetic set, its certificate and data card
    RUN/<t>/        samples.csv, counts.csv, prompts.jsonl of iteration t
    RUN/state/      ledger, resolved configuration, what a restart needs
    RUN/private/    everything computed from private data without noise; mode 0700

A run without noise protects nothing, so all its results lie under RUN/private.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsda import csv_records, json_lines
from dpsda.errors import InputError
from dpsda.privacy import certificate
from dpsda.privacy.files import is_private, private_folder, sha256, write_atomic, write_json
from dpsda.privacy.ledger import Ledger
from dpsda.stages import AS_BEFORE, OF_DATA

if TYPE_CHECKING:
    import pandas as pd


class RunFolder:
    """The folder of one run, whether it is there or not. `protected` is False for a run without noise."""

    def __init__(self, root: Path, *, protected: bool = True) -> None:
        self.root, self.protected = Path(root), protected
        self.private = self.root / "private"
        self.shared = self.root if protected else self.private
        self.state = self.shared / "state"
        self.release = self.shared / "release"

    def make(self) -> RunFolder:
        """This folder, made if it is not there; InputError where that cannot be."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            private_folder(self.private)
            self.state.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.root}: cannot be written to ({error.strerror}); give another --result_folder"
            ) from None
        return self

    @staticmethod
    def is_run(root: Path) -> bool:
        """Whether a run was started here, with noise or without."""
        return any((root / state / "ledger.jsonl").is_file() for state in ("state", "private/state"))

    @classmethod
    def existing(cls, root: Path) -> RunFolder:
        """The folder of a run that was started before; InputError if there is none."""
        if root.resolve().name == "private" and cls.is_run(root.resolve().parent):
            raise InputError(f"{root}: this is the private part of a run; give the run's own folder")
        for protected in (True, False):
            ledger = root / ("state" if protected else "private/state") / "ledger.jsonl"
            if ledger.is_file():
                folder = cls(root, protected=protected).make()
                # an earlier version kept what only claims an epsilon where guaranteed runs are
                folder.protected = protected and Ledger(root, read_only=True).guaranteed
                return folder
        raise InputError(f"{root}: this is not the folder of a run; give the --result_folder of one")

    def step(self, t: int) -> Path:
        """The folder of iteration `t`."""
        return self.shared / str(t)

    def steps(self) -> list[int]:
        """The iterations whose kept texts are here, in order."""
        return sorted(int(path.parent.name) for path in self.shared.glob("*/samples.csv") if path.parent.name.isdigit())

    @property
    def answers(self) -> Path:
        """Where the answers of a model are kept as they come."""
        return self.state / "answers"

    def begun(self) -> bool:
        """Whether something of a run is here: a first set of texts, or answers on the way to one."""
        return self.step(0).exists() or any(path.stat().st_size for path in self.answers.glob("*.jsonl"))

    def relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def secret_key(self) -> bytes:
        """A random key of this run, for fingerprints; it never leaves `private/`."""
        return secret_key(self.key_file)

    @property
    def key_file(self) -> Path:
        return self.private / "fingerprint.key"

    def earlier_config(self, stage: str, config: dict[str, Any], may_change: set[str]) -> dict[str, Any]:
        """The stage's configuration in this folder, {} if there is none; InputError if it is not `config`, but for the
        names in `may_change`."""
        path = self.state / f"{stage}.json"
        if not path.exists():
            return {}
        before: dict[str, Any] = {**AS_BEFORE.get(stage, {}), **read_json(path)}
        now = json.loads(json.dumps(config))
        changed = [key for key in now if _differ(before.get(key), now[key]) and key not in may_change]
        if changed:
            what = ", ".join(_change(key, before.get(key), now[key]) for key in changed)
            raise InputError(
                f"{self.root}: holds a run of another configuration ({what}); use its settings, or another "
                "--result_folder"
            )
        return before

    def config(self) -> dict[str, Any]:
        """The configuration of the run: that of its first stage, and what stages after it added; {} if none is here."""
        paths = {stage: self.state / f"{stage}.json" for stage in OF_DATA}
        needed = ("dataset", "split", "train_data_file", "private_share")
        found = [
            {**AS_BEFORE.get(stage, {}), **whole_json(path, needed)} for stage, path in paths.items() if path.exists()
        ]
        return {name: value for config in found for name, value in config.items()}

    def keep_config(self, stage: str, config: dict[str, Any]) -> None:
        write_json(self.state / f"{stage}.json", config)


def _differ(before: Any, now: Any) -> bool:
    """Whether a value of a configuration changed; of a file, whether it says something else. An earlier version kept
    the digest of a file and nothing else."""
    if isinstance(now, dict) and "says" in now:
        if isinstance(before, dict):
            return bool(before.get("says") != now["says"])
        return bool(before != now["sha256"])
    return bool(before != now)


def _change(key: str, before: Any, now: Any) -> str:
    if not (isinstance(now, dict) and "says" in now):
        return f"{key} was {before!r}, now {now!r}"
    old, new = (one.get("says") if isinstance(one, dict) else None for one in (before, now))
    if isinstance(old, dict) and isinstance(new, dict):
        return f"{key} has another {' and '.join(f'`{k}`' for k in {**old, **new} if old.get(k) != new.get(k))}"
    return f"{key} was changed"


def row_columns(config: dict[str, Any]) -> list[str]:
    """The attributes of the rows that the texts of a run belong to, by its configuration; [] for one without rows."""
    names: list[str] = (config.get("rows") or {}).get("attributes", [])
    return names


def label_columns(columns: Iterable[str], config: dict[str, Any]) -> list[str]:
    """Those of a release's columns that are labels."""
    return [column for column in columns if column not in ("id", "parent_id", "text", *row_columns(config))]


def secret_key(path: Path) -> bytes:
    """The random key in this file, which is made where it is not there."""
    if not path.exists():
        write_atomic(path, secrets.token_bytes(32))
    return path.read_bytes()


def run_of(path: Path) -> Path | None:
    """The folder of the run that a file or folder belongs to; None where it is not there, or is of none."""
    place = path.expanduser().resolve()
    return next((p for p in place.parents if RunFolder.is_run(p)), None) if place.exists() else None


def is_released(path: Path) -> bool:
    """Whether a run with a guarantee made a file, or all files of a folder, as they are now: its ledger committed or
    noted them, or its certificate has their hashes. Where a file lies says nothing: it may have been put there.

    Privacy: post-processing. Such a file was computed from releases of the run's ledger and from public data only, so
    whatever is computed from it costs nothing more.
    """
    ledger = vouching(path)
    return ledger is not None and are_as_made(path, ledger.run, certificate.made_files(ledger))


def vouching(path: Path) -> Ledger | None:
    """The ledger of the run that a file or folder belongs to, if that has a guarantee which may cover it."""
    root = run_of(path)
    ledger = None if root is None or is_private(path) else Ledger(root, read_only=True)
    return ledger if ledger is not None and ledger.lines and ledger.guaranteed else None


def are_as_made(path: Path, base: Path, made: dict[str, str]) -> bool:
    """Whether a file, or all files of a folder, have the sha256 that `made` gives by their paths relative to `base`."""
    place = path.expanduser().resolve()
    there = [p for p in (place, *sorted(place.rglob("*"))) if p.is_file()]
    return bool(there) and all(made.get(file.relative_to(base).as_posix()) == sha256(file) for file in there)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # not JSON, or not even UTF-8
        raise InputError(f"{path}: not JSON; it was edited or damaged, restore it or use another folder") from None


def csv_bytes(frame: pd.DataFrame, *, header: bool = True) -> bytes:
    """UTF-8, RFC 4180 quoting."""
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False, header=header, lineterminator="\r\n")
    return buffer.getvalue().encode()


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    write_atomic(path, csv_bytes(frame))


def read_csv(path: Path | io.BytesIO) -> pd.DataFrame:
    """A csv of ours as strings, empty fields as empty strings."""
    import pandas as pd

    return pd.read_csv(path, dtype=str, keep_default_na=False)


def whole_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """A json object of ours that has `keys`; InputError if it is none."""
    if not path.is_file():
        raise InputError(f"{path}: the file is missing; this is not the whole folder of a run")
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a file of ours; it was edited or damaged, restore it or use another folder")
    missing = [key for key in keys if key not in data]
    if missing:
        raise InputError(f"{path}: {missing[0]!r} is missing; it was edited or damaged, run the run's command again")
    return data


def whole_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A csv of ours as strings; InputError if it is none, or has not these columns or no row."""
    try:
        frame = read_csv(path)
    except FileNotFoundError:
        raise InputError(f"{path}: the file is missing; this is not the whole folder of a run") from None
    except ValueError:  # pandas quotes the row in its message: never pass it on
        frame = None
    if frame is None or _has_index(frame):
        raise InputError(f"{path}: not a CSV file; it was edited or damaged, restore it")
    missing = [column for column in columns if column not in frame.columns]
    if missing or frame.empty:
        what = f"has no column {missing[0]!r}" if missing else "has no rows"
        raise InputError(f"{path}: {what}; it was edited or damaged, restore it")
    return frame.fillna("")  # a row that is too short


def _has_index(frame: pd.DataFrame) -> bool:
    """A first row that is too long makes an index of its first fields."""
    return frame.index.nlevels > 1 or frame.index.dtype != int


def read_table(path: Path, choose: Callable[[list[str]], list[str]] = list) -> pd.DataFrame:
    """A csv, tsv, JSON lines or parquet file, or the parquet files of a folder in the order of their names, as strings:
    the columns that `choose` takes of those that are there, but for such without a name. InputError where it cannot be
    read, or one of these is there twice."""
    import pandas as pd

    files = sorted(filter(csv_records.is_parquet, path.iterdir())) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: this folder holds no parquet file")
    return pd.concat([_read_file(file, choose) for file in files], ignore_index=True)


def _read_file(path: Path, choose: Callable[[list[str]], list[str]]) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def chosen(there: list[str]) -> list[str]:
        columns = choose([name for name in dict.fromkeys(there) if name])
        twice = next((name for name in columns if there.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{path}: has more than one column {twice!r} in its header; rename all but one")
        return columns

    try:
        if csv_records.is_parquet(path):
            file = pq.ParquetFile(path)
            columns = chosen(file.schema_arrow.names)
            table = file.read(columns).select(columns)
        elif json_lines.is_json_lines(path):
            parts = [*json_lines.tables(path, chosen(json_lines.columns(path)))]
            if any(damaged for _, damaged in parts):
                raise InputError(f"{path}: a line is no JSON object in UTF-8; write an object a line")
            table = pa.concat_tables([part for part, _ in parts])
        else:
            table = pa.concat_tables(csv_records.tables(path, chosen))
        table, broken = csv_records.texts(table)
    except InputError:
        raise
    except (ValueError, OSError, pa.ArrowException):  # the reader's message quotes what stands there
        raise InputError(f"{path}: cannot be read as a table; write it with a CSV library, in UTF-8") from None
    if broken:
        raise InputError(f"{path}: cannot be read as a table: {next(iter(broken))!r} is not UTF-8; save it in UTF-8")
    return table.to_pandas().fillna("").astype(str)
