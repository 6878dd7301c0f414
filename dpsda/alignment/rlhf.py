"""Reinforcement learning from a judge's preferences: a reward model, and a policy gradient (Yu et al. 2024).

The paper updates its policy by PPO, which trl no longer keeps up. REINFORCE leave-one-out (RLOO: Ahmadian et al. 2024)
has no value model: each of several answers to an instruction is measured against the mean reward of the others.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, cast

from dpsda.alignment.models import Precision, load, with_adapter
from dpsda.alignment.options import PolicyOptions, TrainingOptions
from dpsda.alignment.training import HEADS, arguments, save_adapter, train, write_log
from dpsda.errors import InputError
from dpsda.runs import read_json
from dpsda.tuning.adapter import lora_config

Preference = tuple[str, str, str]  # instruction, chosen, rejected


def preferences(rows: Sequence[dict[str, str]]) -> list[Preference]:
    """Which answer the judge prefers, from the rows of a verdicts.csv: by its margin where it has one, so that a small
    judge, whose two orders rarely agree, still decides most pairs; otherwise by its wins and losses."""
    found = []
    for row in rows:
        try:
            side = float(row["margin"] or row["outcome"] or 0)
        except ValueError:
            raise InputError("a margin or outcome is no number; give the verdicts.csv of a judge step") from None
        if side > 0:
            found.append((row["instruction"], row["answer"], row["against"]))
        elif side < 0:
            found.append((row["instruction"], row["against"], row["answer"]))
    return found


def _turns(chat: bool, text: str, answer: str) -> Any:
    if not chat:
        return f"{text}\n{answer}"
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


def reward_model(
    chosen: Sequence[Preference], options: TrainingOptions, seed: int, folder: Path, desc: str
) -> dict[str, Any]:
    """Train a model of one figure a text by the Bradley-Terry loss -log s(r(chosen) - r(rejected)), and write its
    adapter, with the head, to `folder/adapter`; how often the chosen one scored higher in the last third of the steps.
    """
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    if not chosen:
        raise InputError(
            "the judge decided no pair, so there is nothing to learn a reward from: judge more instructions"
        )
    model, tokenizer = load(options.model_type, options, reward=True)
    chat = bool(tokenizer.chat_template)
    rows = [{"chosen": _turns(chat, text, a), "rejected": _turns(chat, text, b)} for text, a, b in chosen]
    made = RewardTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows),
        args=RewardConfig(**arguments(options, seed, folder / "training"), max_length=options.max_length),
        peft_config=lora_config(model, options, "SEQ_CLS", HEADS, modules_to_save=["score"]),
    )
    if not len(cast(Sized, made.train_dataset)):
        raise InputError(f"no pair of answers fits into --max_length {options.max_length} tokens: raise it")
    history = train(made, folder / "training", desc)
    write_log(folder / "log.jsonl", history)
    save_adapter(made.model, options.model_type, folder)
    part = max(1, len(history) // 3)
    return {
        "steps": made.state.global_step,
        "pairs": len(cast(Sized, made.train_dataset)),
        "accuracy": sum(line["accuracy"] for line in history[-part:]) / part,
    }


def load_reward(name: str, adapter: Path, options: Precision) -> tuple[Any, Any]:
    """(reward model with its adapter merged in, tokenizer)."""
    model, tokenizer = load(name, options, reward=True)
    return with_adapter(model, adapter).merge_and_unload().eval(), tokenizer


def policy(
    instructions: Sequence[str],
    options: TrainingOptions,
    learning: PolicyOptions,
    seed: int,
    folder: Path,
    desc: str,
) -> dict[str, Any]:
    """Move the policy towards answers of high reward, and write its adapter to `folder/adapter`; the mean reward in the
    first and in the last third of the steps."""
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    prompts_a_step = options.batch_size // learning.generations
    if options.batch_size % learning.generations:
        raise InputError("--batch_size has to be a multiple of --generations: a step holds whole groups of answers")
    if len(instructions) < prompts_a_step:
        raise InputError(f"a step needs {prompts_a_step} instructions, and there are fewer: lower --batch_size")
    named = read_json(Path(learning.reward) / "adapter_config.json").get("base_model_name_or_path")
    base = learning.reward_model or named or options.model_type
    reward, reward_tokenizer = load_reward(base, Path(learning.reward), options)
    model, tokenizer = load(options.model_type, options)
    new = None
    if learning.adapter:
        model = with_adapter(model, Path(learning.adapter), trainable=True)
    else:
        new = lora_config(model, options, "CAUSAL_LM", HEADS)
    if tokenizer.chat_template:
        prompts: list[Any] = [[{"role": "user", "content": text}] for text in instructions]
    else:
        prompts = list(instructions)
    made = RLOOTrainer(
        model=model,
        reward_funcs=reward,
        reward_processing_classes=reward_tokenizer,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        args=RLOOConfig(
            **arguments(options, seed, folder / "training"),
            num_generations=learning.generations,
            max_completion_length=learning.length,
            temperature=learning.temperature,
            beta=learning.beta,
            disable_dropout=True,  # or an answer is less likely in its own update than when it was drawn
        ),
        peft_config=new,
    )
    history = train(made, folder / "training", desc)
    write_log(folder / "log.jsonl", history)
    save_adapter(made.model, options.model_type, folder)
    part = max(1, len(history) // 3)
    rewards = [line["reward"] for line in history]
    return {
        "steps": made.state.global_step,
        "first_reward": sum(rewards[:part]) / part,
        "last_reward": sum(rewards[-part:]) / part,
    }
