"""How far runs are, from what lies in their folders: nothing is read in `private/` of a run with a guarantee.

dpsda status RUN [RUN ...]
"""

from __future__ import annotations

import math
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from apis.journal import TOOK, lines_so_far
from apis.spending import Spending
from dpsda.arg_utils import Parser, run
from dpsda.augpe.options import AugPEOptions
from dpsda.runs import RunFolder, read_json
from dpsda.stages import AS_BEFORE, AUGPE, FINETUNE, PREDICT, RESAMPLE, builders
from dpsda.wording import about

NAMES = {AUGPE: "Aug-PE", FINETUNE: "fine-tuning", PREDICT: "private prediction", RESAMPLE: "resampling"}


def main() -> None:
    parser = Parser("dpsda status", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --result_folder of a run, done or not")
    for root in parser.parse_args().runs:
        print(line(root))


def line(root: Path) -> str:
    """Stage, progress, spend, answers, cost, time left and age of a run. InputError where none is."""
    from dpsda.finetune.planning import all_steps, charged_steps, done_steps
    from dpsda.privacy import certificate
    from dpsda.privacy.accounting import round_up
    from dpsda.privacy.ledger import Ledger

    folder = RunFolder.existing(root)
    ledger = Ledger(root, read_only=True)
    stages = builders(ledger)
    begun = [stage for stage in NAMES if (folder.state / f"{stage}.json").is_file()]
    stage = stages[-1] if stages else begun[-1] if begun else ""
    parts = [NAMES.get(stage, "nothing yet")]
    config = read_json(folder.state / f"{stage}.json") if stage in begun else {}
    if stage == AUGPE:
        parts[0] += f", iteration {max(folder.steps(), default=0)} of {config.get('epochs')}"
    if stage == FINETUNE and charged_steps(ledger) and config:
        planned = all_steps(config["steps"], config["epochs"], config["batch_size"] / ledger.header["units"])
        parts[0] += f", {done_steps(ledger):,} of {planned:,} steps in checkpoints"
    spent, budget = round_up(ledger.epsilon()), ledger.budget
    left = "" if budget is None else f" of {budget:g}"
    parts.append(f"epsilon {spent}{left} spent" + (f", {budget - spent:.4f} left" if budget and budget > spent else ""))
    if math.isinf(spent):
        parts[-1] = "no guarantee"
    answers = sum(path.read_bytes().count(b"\n") for path in folder.answers.glob("*.jsonl"))
    parts += [f"{answers:,} answers stored"] if answers else []
    parts += _cost(folder, config)
    certified = folder.shared / certificate.FILE
    published = max((i for i, entry in enumerate(ledger.lines) if entry["type"] == "publish"), default=0)
    went_on = any(entry.get("stage") in NAMES for entry in ledger.lines[published:])
    if certified.is_file() and certificate.is_current(read_json(certified), ledger) and not went_on:
        parts.append("finished")
    else:
        files = [path for path in folder.state.rglob("*") if path.is_file()]
        age = time.time() - max(path.stat().st_mtime for path in files)
        parts += _time_left(folder, config) if stage == AUGPE else []
        parts.append(f"not finished, last file written {about(age)} ago")
    return f"{root}: {'; '.join(parts)}"


def _cost(folder: RunFolder, config: dict[str, Any]) -> list[str]:
    """What a served model was asked, and what that cost, if its prices are known."""
    log, prices = folder.state / "requests.jsonl", config.get("prices")
    if not log.is_file():
        return []
    table = Path(prices) if prices and Path(prices).is_file() else None  # as seen from where the run was started
    return [Spending.so_far(config.get("model_type", ""), log, table).totals]


def _time_left(folder: RunFolder, config: dict[str, Any]) -> list[str]:
    """How long the answers take that a run of Aug-PE is still to ask for, by what they took so far; votes come on top.
    An answer that was asked for again counts for the text that it was to be."""
    given = {**AS_BEFORE[AUGPE], **config}
    options = AugPEOptions(**{f.name: given[f.name] for f in fields(AugPEOptions) if f.name in given})
    t = max(folder.steps(), default=-1)
    kept = (folder.step(t) / "samples.csv").stat().st_mtime if t >= 0 else 0.0
    calls = [(path.stat().st_mtime > kept, lines_so_far(path)) for path in folder.answers.glob("*.jsonl")]
    begun = sum(len(lines) for new, lines in calls if new)
    now = min(begun, options.asks(t + 1))
    done = now + sum(map(options.asks, range(t + 1)))
    left = sum(map(options.asks, range(t + 1, options.epochs + 2))) - now
    took = sum(line.get(TOOK, 0.0) for _, lines in calls for line in lines)
    return [f"answers for about {about(took / done * left)} left"] if left and done and took else []


if __name__ == "__main__":
    run(main)
