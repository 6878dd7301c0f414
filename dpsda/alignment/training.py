"""What the trainers of trl share: settings, checkpoints that a killed step goes on from, quiet, a saved adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from dpsda.alignment.options import TrainingOptions
from dpsda.devices import is_bfloat16, pick_device
from dpsda.embedding import PRIVATE_BAR
from dpsda.privacy.files import write_atomic

if TYPE_CHECKING:
    from transformers import Trainer

HEADS = ("lm_head", "score")  # get no adapter: the one may be the embeddings, the other is new and trained whole
MARK = "complete"  # written into a checkpoint last


def arguments(options: TrainingOptions, seed: int, folder: Path) -> dict[str, Any]:
    """Arguments that every trainer of trl takes. `folder` holds its checkpoints."""
    device = pick_device(options.device)
    micro = options.micro_batch_size or options.batch_size
    return {
        "output_dir": str(folder),
        "num_train_epochs": options.epochs,
        "max_steps": options.max_steps or -1,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": options.batch_size // micro,
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "cosine",
        "save_strategy": "steps",
        "save_steps": options.save_steps,
        "save_total_limit": 2,
        "logging_steps": 1,
        "seed": seed,
        "use_cpu": device == "cpu",
        "bf16": is_bfloat16(options.dtype, device),
        "gradient_checkpointing": device != "cpu",  # where memory is what is short
        "dataloader_pin_memory": device != "cpu",
        "report_to": "none",
        "disable_tqdm": True,
        "log_level": "error",
    }


class _Watch(TrainerCallback):
    """A progress bar without figures of the data, and a mark in each checkpoint once all of it is written."""

    def __init__(self, desc: str) -> None:
        self.desc, self.bar = desc, None

    def on_train_begin(self, args, state, control, **_):
        self.bar = tqdm(
            total=state.max_steps, initial=state.global_step, desc=self.desc, bar_format=PRIVATE_BAR, delay=1
        )

    def on_step_end(self, args, state, control, **_):
        self.bar.update(state.global_step - self.bar.n)

    def on_train_end(self, args, state, control, **_):
        self.bar.close()

    def on_save(self, args, state, control, **_):
        write_atomic(Path(args.output_dir, f"checkpoint-{state.global_step}", MARK), b"")


def train(trainer: Trainer, folder: Path, desc: str) -> list[dict[str, float]]:
    """Train, from the newest whole checkpoint in `folder` if there is one; the logs of all steps.

    A checkpoint that a kill cut off has no mark, and is removed.
    """
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(_Watch(desc))
    whole = []
    for path in folder.glob("checkpoint-*"):
        if (path / MARK).exists():
            whole.append(path)
        else:
            shutil.rmtree(path)
    newest = max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    return [line for line in trainer.state.log_history if "loss" in line]


def save_adapter(model: Any, name: str, folder: Path) -> Path:
    """Write the adapter to `folder/adapter`, which appears when it is complete. Of a base model that
    lies on this machine, it has the last part of the path."""
    made, scratch = folder / "adapter", folder / ".adapter"
    shutil.rmtree(scratch, ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = Path(name).name if Path(name).exists() else name
    model.save_pretrained(scratch, selected_adapters=["default"], save_embedding_layers=False)
    (scratch / "README.md").unlink(missing_ok=True)  # a card of placeholders
    shutil.rmtree(made, ignore_errors=True)
    scratch.rename(made)
    return made


def write_log(path: Path, history: list[dict[str, float]]) -> None:
    """One line of json a step."""
    write_atomic(path, "".join(json.dumps(line, sort_keys=True) + "\n" for line in history).encode())
