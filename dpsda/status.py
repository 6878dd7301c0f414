"""How far runs are, from what lies in their folders: nothing is read in `private/` of a run with a guarantee.

dpsda status RUN [RUN ...]
"""

from __future__ import annotations

import math
import time
from pathlib import Path

from dpsda.arg_utils import Parser, run
from dpsda.runs import RunFolder, read_json
from dpsda.stages import AUGPE, FINETUNE, PREDICT, RESAMPLE, builders

NAMES = {AUGPE: "Aug-PE", FINETUNE: "fine-tuning", PREDICT: "private prediction", RESAMPLE: "resampling"}


def main() -> None:
    parser = Parser("dpsda status", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the --result_folder of a run, done or not")
    for root in parser.parse_args().runs:
        print(line(root))


def line(root: Path) -> str:
    """Stage, progress, spend, answers and age of a run. InputError where none is."""
    from dpsda.finetune.planning import charged_steps, done_steps
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
    if stage == FINETUNE and charged_steps(ledger):
        parts[0] += f", {done_steps(ledger):,} steps in checkpoints"
    spent, budget = ledger.epsilon(), ledger.budget
    parts.append(f"epsilon {round_up(spent)}" + (f" of {budget:g}" if budget is not None else "") + " spent")
    if math.isinf(spent):
        parts[-1] = "no guarantee"
    answers = sum(path.read_bytes().count(b"\n") for path in folder.answers.glob("*.jsonl"))
    parts += [f"{answers:,} answers stored"] if answers else []
    certified = folder.shared / certificate.FILE
    published = max((i for i, entry in enumerate(ledger.lines) if entry["type"] == "publish"), default=0)
    went_on = any(entry.get("stage") in NAMES for entry in ledger.lines[published:])
    if certified.is_file() and certificate.is_current(read_json(certified), ledger) and not went_on:
        parts.append("finished")
    else:
        files = [path for path in folder.state.rglob("*") if path.is_file()]
        age = time.time() - max(path.stat().st_mtime for path in files)
        parts.append(f"not finished, last file written {age:,.0f} s ago")
    return f"{root}: {'; '.join(parts)}"


if __name__ == "__main__":
    run(main)
