"""The synthetic set that is resampled: which file it is, whether the run's ledger covers it, and its texts.

A certificate speaks of everything that went into a release. A text from elsewhere may have cost privacy that this
ledger does not know of, so it is taken only where the owner states that it is public.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dpsda.errors import InputError
from dpsda.privacy import certificate
from dpsda.privacy.files import is_private
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder, is_released, read_json, read_table
from dpsda.stages import AUGPE, FINETUNE, RESAMPLE, builders

if TYPE_CHECKING:
    import pandas as pd

    from dpsda.data import DatasetSpec

RESAMPLED = "resampling"  # the line of the data card by which a release is known to be ours


@dataclass(frozen=True)
class Source:
    """Where the candidates lie: `path` is read, and `stays` is where they are found after the release is replaced.

    `about` are the lines on them for the data card.
    """

    path: Path
    stays: Path
    about: dict[str, str]


def locate(root: Path, file: str | None, public: bool, *, protected: bool) -> Source:
    """The candidates of the run in `root`, or `file`; InputError if there are none, or the ledger does not cover them.

    A run that is not there yet is not begun by this, so a mistake leaves no ledger behind.
    """
    if file is not None and not Path(file).exists():
        raise InputError(f"{file}: there is no such file or folder")
    begun = RunFolder.is_run(root)
    if not begun and file is None:
        raise InputError(f"{root}: no run is here whose texts could be resampled; give one, or --synthetic_file")
    folder = RunFolder.existing(root) if begun else RunFolder(root, protected=protected)
    if folder.protected != protected:
        raise InputError(f"{root}: runs with and without noise do not share a folder; use another one")
    kept = folder.state / "before_resampling.csv"
    if file is None:
        about = _about(folder)
        if about is None:
            raise InputError(
                f"{root}: its texts are not finished; finish the run with the command that began it, or give "
                "--synthetic_file"
            )
        shards, released = folder.state / "samples", folder.release / "synthetic.csv"
        own = released if _is_of_another_stage(folder) and _is_current(folder) else kept
        before = [stage for stage in builders(Ledger(folder.root, read_only=True)) if stage != RESAMPLE]
        tuned = shards.is_dir() and not (FINETUNE in before and before[-1] == AUGPE)
        source = Source(shards, shards, about) if tuned else Source(own, kept, about)
        if protected and not is_released(source.path):
            raise InputError(f"{source.path}: not what the run made; it was replaced or edited, restore it")
        return source
    path = Path(file)
    where = path.resolve()
    if where.is_relative_to(folder.release.resolve()):
        raise InputError(f"{path}: is replaced by what comes out; leave --synthetic_file out, which takes it, too")
    if protected and is_private(path):
        raise InputError(f"{path}: lies in a private folder, which nothing protects; take texts from outside of it")
    if where.is_relative_to((folder.shared / "alignment").resolve()):
        raise InputError(f"{path}: may come from the releases of other runs, which this run's ledger does not know")
    if where.is_relative_to(folder.shared.resolve()) and (is_released(path) or not protected):
        return Source(path, path, _about(folder) or {"method": "texts of this run"})
    if public:
        return Source(path, path, {"method": "given texts", "candidates": "public, on the owner's word"})
    if protected:
        raise InputError(
            f"{path}: was not made by the run in {root}, whose ledger does not know what privacy it cost; give the run "
            "that made it as --result_folder, or state by --synthetic_public that nothing private went into it"
        )
    return Source(path, path, {"method": "given texts"})


def _is_current(folder: RunFolder) -> bool:
    """Whether nothing was spent since the release; if something was, this stage did, and had set its texts aside."""
    facts = read_json(folder.shared / certificate.FILE)
    return certificate.is_current(facts, Ledger(folder.root, read_only=True))


def _is_of_another_stage(folder: RunFolder) -> bool:
    path = folder.shared / certificate.FILE
    return path.is_file() and RESAMPLED not in read_json(path).get("about", {})


def _about(folder: RunFolder) -> dict[str, str] | None:
    """What the stage that made the texts says of itself; None where it has not finished, or has gone on since."""
    if _is_of_another_stage(folder):
        facts = read_json(folder.shared / certificate.FILE)
        ledger = Ledger(folder.root, read_only=True)
        if not ledger.reservations(RESAMPLE) and not certificate.is_current(facts, ledger):
            return None
        about: dict[str, str] = facts.get("about", {})
        return about
    earlier = folder.state / f"{RESAMPLE}.json"
    return read_json(earlier).get("about") if earlier.is_file() else None


def read(path: Path, spec: DatasetSpec) -> pd.DataFrame:
    """The candidates as strings: id, parent_id if there, text, then the columns of labels and attributes, if there.

    `path` is a csv or parquet file, or a folder of parquet files, taken in the order of their names. Rows without a
    text are left out. Raises InputError if it cannot be read, has no text column, or no text.
    """

    def columns(there: list[str]) -> list[str]:
        text = next((name for name in ("text", spec.text) if name in there), None)
        if text is None:
            raise InputError(f"{path}: has no column 'text' in its first line")
        wanted = ["id", "parent_id", text, *spec.label_columns, *spec.attribute_names]
        return [name for name in dict.fromkeys(wanted) if name in there]

    frame = read_table(path, columns)
    if "text" not in frame:
        frame = frame.rename(columns={spec.text: "text"})
    if "id" not in frame:
        frame.insert(0, "id", [str(i) for i in range(len(frame))])
    frame = frame[frame["text"].str.strip() != ""].reset_index(drop=True)
    if frame.empty:
        raise InputError(f"{path}: holds no text")
    return frame


def digest(frame: pd.DataFrame) -> str:
    """A hash of all that `read` gives, whatever files it came from."""
    state = hashlib.sha256()
    for column in frame.columns:
        for value in (column, *frame[column]):
            data = value.encode("utf-8", "surrogatepass")
            state.update(len(data).to_bytes(8, "little"))
            state.update(data)
    return state.hexdigest()
