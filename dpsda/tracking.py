"""Figures of a run on Weights & Biases, where the user asks for it: only what may be shared, unless told otherwise.

Of the machine, the environment and the code nothing is sent, and the key stays in WANDB_API_KEY. Without a key or a
network the figures are kept below the run folder (with --log_private, in private/), and `wandb sync` sends them later.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dpsda.errors import InputError
from dpsda.options import TrackedRunOptions
from dpsda.privacy.ledger import Ledger
from dpsda.reference import Distances
from dpsda.runs import RunFolder, read_json, write_json
from dpsda.summary import spent
from dpsda.wording import count

_MODES = ("online", "offline", "disabled")
PATIENCE = 30  # seconds for a server that may not be there
Observe = Callable[[int, list[str]], dict[str, float]]


@contextlib.contextmanager
def tracker(
    folder: RunFolder, ledger: Ledger, run: TrackedRunOptions, distances: Distances, *options: Any
) -> Iterator[Observe]:
    """What to call with the texts kept at each iteration: it notes their distances, logs them with --log_online, and
    gives those that may be shown.

    `options` are shown with the run. Distances to a private reference, and all of a run without noise, are shown and
    logged with --log_private only.
    """
    shown = run.log_private or (distances.public and folder.protected)

    def noted(t: int, texts: list[str]) -> dict[str, float]:
        distances.note(t, texts)
        return distances.row(t) if shown else {}

    if run.log_online and not run.dry_run and not (folder.protected or run.log_private):
        print("wandb: nothing is logged of a run without noise, unless --log_private is given")
    elif run.log_online and not run.dry_run:
        config = {name: value for group in options for name, value in asdict(group).items()}
        with _start(folder, folder.private if run.log_private else folder.shared, run.project, config) as log:

            def observe(t: int, texts: list[str]) -> dict[str, float]:
                measured = noted(t, texts)
                words = sum(count(text) for text in texts) / max(len(texts), 1)
                figures = {"epsilon": spent(ledger, t), "texts": len(texts), "mean_words": words}
                log({"iteration": t, **figures, **measured})
                return measured

            yield observe
            return
    yield noted


def _init(mode: Any, arguments: dict[str, Any]) -> Any:
    import wandb

    try:
        return wandb.init(mode=mode, **arguments)
    except wandb.errors.CommError:
        raise
    except Exception as error:  # wandb has several kinds, not all of them its own
        raise InputError(f"wandb does not start ({error}); correct that, or leave --log_online out") from None


@contextlib.contextmanager
def _start(
    folder: RunFolder, where: Path, project: str, config: dict[str, Any]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A wandb run, with its files below `where`; the same one whenever the command is continued, and no iteration is
    logged twice."""
    mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    if mode not in _MODES:
        raise InputError(f"WANDB_MODE is one of {', '.join(_MODES)}, not {mode!r}")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # a traceback would go to a third party
    import wandb

    memory = folder.state / "wandb.json"
    known = read_json(memory) if memory.exists() else {"id": secrets.token_hex(4), "logged": -1}
    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        init_timeout=PATIENCE,
        save_code=False,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    arguments = {"project": project, "name": folder.root.name, "config": config, "settings": settings}
    arguments |= {"id": known["id"], "resume": "allow", "dir": where}
    try:
        session = _init(mode, arguments)
    except wandb.errors.CommError:
        print("wandb: cannot be reached, or refuses the key; this run is logged offline", flush=True)
        wandb.teardown()  # or the run's id stays taken
        session = _init("offline", arguments)
    session.define_metric("*", step_metric="iteration")

    def log(figures: dict[str, Any]) -> None:
        if figures["iteration"] > known["logged"]:
            session.log(figures)
            known["logged"] = figures["iteration"]
            write_json(memory, known)

    try:
        yield log
    finally:
        session.finish()
