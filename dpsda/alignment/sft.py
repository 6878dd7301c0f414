"""Supervised fine-tuning on (instruction, answer) with an adapter (Yu et al. 2024: batch 32, 3 epochs, lr 3e-4)."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, cast

from dpsda.alignment.models import load
from dpsda.alignment.options import TrainingOptions
from dpsda.alignment.training import HEADS, arguments, save_adapter, train, write_log
from dpsda.errors import InputError
from dpsda.tuning.adapter import lora_config


def examples(pairs: Sequence[tuple[str, str]], chat: bool) -> list[dict[str, Any]]:
    """Pairs as trl reads a prompt and its completion: turns of a chat, or plain text for a model without a template,
    whose answer then begins on a line of its own."""
    if not chat:
        return [{"prompt": text, "completion": f"\n{answer}"} for text, answer in pairs]
    return [
        {"prompt": [{"role": "user", "content": text}], "completion": [{"role": "assistant", "content": answer}]}
        for text, answer in pairs
    ]


def trainer(pairs: Sequence[tuple[str, str]], options: TrainingOptions, seed: int, folder: Path):
    """A trainer whose loss is over the tokens of the answers; those of an instruction have the label -100."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = load(options.model_type, options)
    made = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(examples(pairs, chat=bool(tokenizer.chat_template))),  # in memory, never cached
        args=SFTConfig(
            **arguments(options, seed, folder),
            max_length=options.max_length,
            completion_only_loss=True,
            train_sampling_strategy="group_by_length",  # so that little padding is computed
        ),
        peft_config=lora_config(model, options, "CAUSAL_LM", HEADS),
    )
    if not len(cast(Sized, made.train_dataset)):
        raise InputError(f"no answer begins within --max_length {options.max_length} tokens: raise it")
    return made


def finetune(
    pairs: Sequence[tuple[str, str]], options: TrainingOptions, seed: int, folder: Path, desc: str
) -> dict[str, Any]:
    """Train an adapter and write it to `folder/adapter`; the mean loss of the steps of the first and the last epoch."""
    made = trainer(pairs, options, seed, folder / "training")
    history = train(made, folder / "training", desc)
    write_log(folder / "log.jsonl", history)
    save_adapter(made.model, options.model_type, folder)
    # over whole epochs: batches hold answers of one length each, so single steps do not compare
    first = [line["loss"] for line in history if line["epoch"] <= 1]
    last = [line["loss"] for line in history if line["epoch"] > history[-1]["epoch"] - 1]
    return {
        "steps": made.state.global_step,
        "first_epoch_loss": sum(first) / max(len(first), 1),
        "last_epoch_loss": sum(last) / len(last),
    }
