"""One step of the pipeline: where its result lies, whether it may be shared, and whether it is there already.

RUN/alignment/NAME/            may be shared, like everything outside RUN/private
RUN/private/alignment/NAME/    computed from something that no guarantee covers
    settings.json              written first: what the step was asked to do
    done.json                  written last, with the hash of every result: what it does not name is none
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from dpsda.alignment.options import StepOptions
from dpsda.errors import InputError
from dpsda.privacy.files import is_private, private_folder, sha256
from dpsda.runs import are_as_made, is_released, read_json, vouching, write_json

SCRATCH = ("training", "journal")  # what only a restart needs
WEIGHTS = ("adapter_model.safetensors", "adapter_config.json")


def is_public(path: Path) -> bool:
    """Whether a run with a guarantee vouches for a file or folder as it is now: the run made it (`is_released`), or a
    step of the pipeline in the run's folder did, of what such runs had made and of public data."""
    if is_released(path):
        return True
    ledger = vouching(path)
    steps = () if ledger is None else [p for p in path.resolve().parents if p.parent == ledger.run / "alignment"]
    done = next((step / "done.json" for step in steps if (step / "done.json").is_file()), None)
    return done is not None and are_as_made(path, done.parent, read_json(done).get("files", {}))


def check_adapter(path: Path) -> Path:
    """`path`, if it is the folder of an adapter; InputError otherwise."""
    for name in WEIGHTS:
        if not (path / name).is_file():
            raise InputError(f"{path}: no adapter is here ({name} is missing); give the folder that a training wrote")
    return path


def digest(path: Path) -> str:
    """A hash of a file, of an adapter, or of the parquet files of a folder."""
    if path.is_file():
        return sha256(path)
    names = [name for name in WEIGHTS if (path / name).is_file()] or sorted(p.name for p in path.glob("*.parquet"))
    return hashlib.sha256("".join(sha256(path / name) for name in names).encode()).hexdigest()


class Step:
    """A step with its settings. `inputs` are the files that it reads, by the names of their options."""

    def __init__(
        self, kind: str, options: StepOptions, settings: dict[str, Any], inputs: dict[str, Path], public: bool = False
    ) -> None:
        """With `public`, the inputs are public by declaration. Raises InputError where an input is missing."""
        for name, path in inputs.items():
            if not path.exists():
                raise InputError(f"--{name} {path}: there is no such file or folder")
        root = Path(options.result_folder)
        models = [settings.get(name) for name in ("model_type", "reward_model")]
        hidden = any(is_private(Path(name)) for name in models if name)  # one that was trained without noise
        self.private = hidden or (not public and not (inputs and all(map(is_public, inputs.values()))))
        self.folder = (root / "private" if self.private else root) / "alignment" / options.name
        self.show = options.log_private or not self.private
        self.settings = {"step": kind, "seed": options.seed, **settings}
        self.settings |= {name: digest(path) for name, path in inputs.items()}

    def finished(self) -> dict[str, Any] | None:
        """What `finish` wrote, if the step is complete. Raises InputError if something else has its name."""
        path = self.folder / "settings.json"
        if path.exists():
            before = read_json(path)
            changed = sorted(key for key in {*before, *self.settings} if before.get(key) != self.settings.get(key))
            if changed:
                raise InputError(
                    f"{self.folder}: holds the result of another step or setting ({', '.join(changed)} changed); give "
                    "another --name, or remove the folder"
                )
        done = self.folder / "done.json"
        if not done.exists():
            return None
        self._tidy()
        facts = dict(read_json(done))
        if "files" not in facts:  # an earlier version did not name them
            self.finish(facts)
        return facts

    def begin(self) -> None:
        """Make the folder, and say there what the step is to do."""
        try:
            if self.private:
                private_folder(self.folder.parent.parent)
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder}: cannot be written to ({error.strerror})") from None
        for left in self.folder.glob(".merged-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        if not (self.folder / "settings.json").exists():
            write_json(self.folder / "settings.json", self.settings)

    def finish(self, facts: dict[str, Any]) -> None:
        """Mark the step as complete, and remove what only a restart would have needed."""
        notes = ("settings.json", "done.json", "requests.jsonl", "batches.jsonl")
        files = [p for p in sorted(self.folder.rglob("*")) if p.is_file() and p.name not in notes]
        results = [p for p in files if p.relative_to(self.folder).parts[0] not in SCRATCH]
        made = {p.relative_to(self.folder).as_posix(): sha256(p) for p in results}
        write_json(self.folder / "done.json", {**facts, "files": made})
        self._tidy()

    def _tidy(self) -> None:
        for scratch in SCRATCH:
            shutil.rmtree(self.folder / scratch, ignore_errors=True)


def refuse_to_send(inputs: dict[str, Path], allowed: bool) -> None:
    """InputError if private texts are about to go to an API and their owner has not said that they may."""
    private = [name for name, path in inputs.items() if not is_public(path)]
    if private and not allowed:
        raise InputError(
            f"--{private[0]} {inputs[private[0]]}: no run with noise vouches for these texts, so they are taken as "
            "private, and are not sent to an API; answer them with a local model (--api HFGPT), or state by "
            "--send_private that their owner allows it"
        )
