"""Figures of a run on Weights & Biases, where the user asks for it: only what may be shared, unless told otherwise.

Of the machine, the environment and the code nothing is sent, and the key stays in WANDB_API_KEY. Without a key or a
network the figures are kept below the run folder, and `wandb sync` sends them later.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from dpsda.options import RunOptions
from dpsda.privacy.ledger import Ledger
from dpsda.report import Distances, spent
from dpsda.runs import RunFolder, read_json, write_json

Observe = Callable[[int, list[str]], None]


@contextlib.contextmanager
def tracker(
    folder: RunFolder, ledger: Ledger, run: RunOptions, distances: Distances, *options: Any
) -> Iterator[Observe]:
    """What to call with the texts kept at each iteration: it notes their distances and, with --log_online, logs them.

    `options` are shown with the run. Distances to a private reference, and all of a run without noise, are logged with
    --log_private only.
    """
    if run.log_online and not run.dry_run and not (folder.protected or run.log_private):
        print("wandb: nothing is logged of a run without noise, unless --log_private is given")
    elif run.log_online and not run.dry_run:
        config = {name: value for group in options for name, value in asdict(group).items()}
        shown = run.log_private or distances.public
        with _start(folder, run.project, config) as log:

            def observe(t: int, texts: list[str]) -> None:
                distances.note(t, texts)
                words = sum(len(text.split()) for text in texts) / max(len(texts), 1)
                figures = {"epsilon": spent(ledger, t), "texts": len(texts), "mean_words": words}
                log({"iteration": t, **figures, **(distances.row(t) if shown else {})})

            yield observe
            return
    yield distances.note


@contextlib.contextmanager
def _start(folder: RunFolder, project: str, config: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A wandb run, the same one whenever the command is continued."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # a traceback would go to a third party
    import wandb

    where = folder.state / "wandb.json"
    if not where.exists():
        write_json(where, {"id": secrets.token_hex(4)})
    settings = wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        init_timeout=30,
        save_code=False,
        silent=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    told = {"project": project, "name": folder.root.name, "config": config, "settings": settings}
    told |= {"id": read_json(where)["id"], "resume": "allow", "dir": folder.shared}
    mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
    try:
        session = wandb.init(mode=mode, **told)
    except (wandb.errors.Error, OSError) as error:
        print(f"wandb: cannot be reached ({type(error).__name__}); this run is logged offline", flush=True)
        wandb.teardown()  # or the run's id stays taken
        session = wandb.init(mode="offline", **told)
    session.define_metric("*", step_metric="iteration")
    try:
        yield session.log
    finally:
        session.finish()
