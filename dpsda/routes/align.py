"""What released instructions are for, a step at a time: each reads files, writes one folder, and says in a line what
came out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from apis import engines
from apis.api import TextAPI
from apis.journal import Journal
from dpsda.alignment.options import (
    AnswersOptions,
    JudgeOptions,
    PairsOptions,
    PolicyOptions,
    RewardOptions,
    SFTOptions,
    StepOptions,
    TrainingOptions,
)
from dpsda.alignment.step import Step, check_adapter, refuse_to_send
from dpsda.alignment.tables import draw, read_instructions, read_pairs, read_rows
from dpsda.devices import pick_device
from dpsda.errors import InputError
from dpsda.options import ModelOptions, RemoteOptions
from dpsda.runs import write_csv
from dpsda.start import check_apart

if find_spec("trl") is None or find_spec("peft") is None:
    raise InputError("the steps need trl and peft: install them with pip install 'dpsda[alignment]'")


SAMPLING = ("api", "model_type", "length", *engines.SAMPLING)


def pairs(options: PairsOptions, step: StepOptions) -> None:
    """The pairs of a split as a data set of their own: pairs.csv (instruction, answer, text) and its spec.yaml.

    `text` is the whole conversation in the chat template of `chat_model`, or both turns on lines of their own: what
    finetune.py trains on in the arm of DP-SGD on real pairs. Rows without an answer are left out, each by itself.
    """
    from dpsda.data import DatasetSpec
    from dpsda.data.loading import load_columns
    from dpsda.privacy.files import write_atomic

    spec = DatasetSpec.read(options.dataset)
    check_apart(Path(step.result_folder), spec)
    split = spec.split(options.split)
    texts, answers = load_columns(spec, options.split, [spec.text, options.answer_column])
    # of the split's own rows: the file may hold private ones, too, which a hash of all of it could be searched for
    rows_digest = hashlib.sha256(json.dumps([list(texts), list(answers)]).encode()).hexdigest()
    made = Step(
        "pairs",
        step,
        {
            "answer_column": options.answer_column,
            "chat_model": options.chat_model,
            "range": list(split.hash),
            "rows": rows_digest,
        },
        {},
        public=options.split in spec.public,
    )
    if _done(made):
        return
    rows = [(text, answer) for text, answer in zip(texts, answers, strict=True) if answer.strip()]
    if not rows:
        raise InputError(f"{spec.name}, split {options.split!r}: the column {options.answer_column!r} is empty")
    render = _template(options.chat_model)
    frame = pd.DataFrame(rows, columns=["instruction", "answer"])
    frame["text"] = [render(text, answer) for text, answer in rows]
    made.begin()
    write_csv(made.folder / "pairs.csv", frame)
    write_atomic(made.folder / "spec.yaml", b"text: text\nsplits: {train: pairs.csv}\n")
    _say(made, "pairs.csv", {"pairs": len(rows)} if made.show else {})


def answers(options: AnswersOptions, model: ModelOptions, remote: RemoteOptions, step: StepOptions) -> None:
    """Answers to instructions: answers.csv (instruction, answer). A killed step asks for none of them again."""
    inputs = {"instructions": Path(options.instructions)}
    if options.adapter:
        if not model.loads:
            raise InputError("--adapter goes with a local model (--api HFGPT)")
        inputs["adapter"] = check_adapter(Path(options.adapter))
    made = Step(
        "answers",
        step,
        {**_chosen(model, SAMPLING), "system": options.system, "num_instructions": options.num_instructions},
        inputs,
    )
    if _done(made):
        return
    from dpsda.alignment.answers import ask

    if model.sends:
        refuse_to_send(inputs, options.send_private)
    texts = draw(read_instructions(inputs["instructions"]), options.num_instructions, step.seed)
    made.begin()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=made.folder, prefix=".merged-") as scratch:
        name = model.model_type
        if options.adapter:
            from dpsda.alignment.models import write_merged

            name = str(write_merged(name, inputs["adapter"], Path(scratch), model))
        found = ask(
            _engine(made, model, remote, name=name),
            texts,
            max_new_tokens=model.length,
            seed=step.seed,
            system=options.system,
        )
    if not found:
        raise InputError(f"{options.instructions}: no instruction was answered; take another --model_type")
    write_csv(made.folder / "answers.csv", pd.DataFrame(found, columns=["instruction", "answer"]))
    _say(made, "answers.csv", _timed(start, {"answered": len(found), "refused": len(texts) - len(found)}))


def sft(options: SFTOptions, training: TrainingOptions, step: StepOptions) -> None:
    """An adapter fine-tuned on pairs: adapter/."""
    inputs = {"pairs": Path(options.pairs)}
    made = Step("sft", step, {**_training(training), "num_pairs": options.num_pairs}, inputs)
    if _done(made):
        return
    from dpsda.alignment.sft import finetune

    rows = draw(read_pairs(inputs["pairs"]), options.num_pairs, step.seed)
    made.begin()
    start = time.monotonic()
    facts = finetune(rows, training, step.seed, made.folder, step.name)
    _say(made, "adapter", _timed(start, facts))


def judge(options: JudgeOptions, model: ModelOptions, remote: RemoteOptions, step: StepOptions) -> None:
    """Two models' answers judged in both orders: verdicts.csv, and the win rate of the first model."""
    inputs = {"answers": Path(options.answers), "against": Path(options.against)}
    made = Step("judge", step, {**_chosen(model, SAMPLING[:2]), "num_instructions": options.num_instructions}, inputs)
    names = [path.parent.name if path.stem == "answers" else path.stem for path in inputs.values()]
    if _done(made):
        return
    from dpsda.alignment.judge import AskingJudge, Judge, compare, win_rate

    if model.sends:
        refuse_to_send(inputs, options.send_private)
    one, other = (dict(read_pairs(path)) for path in inputs.values())
    rows = [(text, answer, other[text]) for text, answer in one.items() if text in other]
    if not rows:
        raise InputError(f"{options.answers} and {options.against} have no instruction in common")
    made.begin()
    start = time.monotonic()
    if model.loads:
        from dpsda.alignment.likelihood import LikelihoodJudge
        from dpsda.alignment.models import load

        loaded, tokenizer = load(model.model_type, model)
        judging: Judge = LikelihoodJudge(loaded.to(pick_device(model.device)), tokenizer)
    else:
        judging = AskingJudge(_engine(made, model, remote, greedy=True), step.seed)
    judged = compare(judging, draw(rows, options.num_instructions, step.seed))
    rate = win_rate(judged)
    if not rate.n:
        raise InputError(f"{model.model_type} gave no verdict that can be read; take another judge")
    frame = pd.DataFrame([{**dataclasses.asdict(pair), "outcome": pair.outcome} for pair in judged], dtype=object)
    write_csv(made.folder / "verdicts.csv", frame)
    line = rate.line(*names)
    broken = {}
    if any(pair.margin is not None for pair in judged):
        low, high = win_rate(judged, by_margin=True).interval
        broken = {
            "broken": f"by the mean of both orders: {win_rate(judged, by_margin=True).rate:.2f} [{low:.2f}, {high:.2f}]"
        }
    unread = len(judged) - rate.n
    bias = (
        "no position bias to see: it preferred none of the answers"
        if math.isnan(judging.first_share)
        else f"the judge preferred the answer that stood first in {judging.first_share:.0%} of its raw verdicts"
    )
    facts = (
        {"line": line, "bias": bias}
        | broken
        | {"rate": rate.rate, "interval": list(rate.interval), "no_verdict": unread}
    )
    _say(made, "verdicts.csv", _timed(start, facts | dataclasses.asdict(rate)))


def reward(options: RewardOptions, training: TrainingOptions, step: StepOptions) -> None:
    """A reward model from a judge's verdicts: adapter/, with its head."""
    inputs = {"verdicts": Path(options.verdicts)}
    made = Step("reward", step, _training(training), inputs)
    if _done(made):
        return
    from dpsda.alignment.rlhf import preferences, reward_model

    frame = read_rows(inputs["verdicts"])
    missing = [name for name in ("instruction", "answer", "against", "margin", "outcome") if name not in frame]
    if missing:
        raise InputError(f"{options.verdicts}: has no column {missing[0]!r}; give the verdicts.csv of a judge step")
    chosen = preferences(frame.to_dict("records"))
    made.begin()
    start = time.monotonic()
    facts = reward_model(chosen, training, step.seed, made.folder, step.name)
    _say(made, "adapter", _timed(start, facts))


def rlhf(options: PolicyOptions, training: TrainingOptions, step: StepOptions) -> None:
    """A policy moved towards what the reward model prefers: adapter/."""
    inputs = {"instructions": Path(options.instructions), "reward": check_adapter(Path(options.reward))}
    if options.adapter:
        inputs["adapter"] = check_adapter(Path(options.adapter))
    settings = _chosen(options, ("reward_model", "generations", "length", "temperature", "beta"))
    made = Step("rlhf", step, {**_training(training), **settings}, inputs)
    if _done(made):
        return
    from dpsda.alignment.rlhf import policy

    texts = read_instructions(inputs["instructions"])
    made.begin()
    start = time.monotonic()
    facts = policy(texts, training, options, step.seed, made.folder, step.name)
    _say(made, "adapter", _timed(start, facts))


def _engine(made: Step, model: ModelOptions, remote: RemoteOptions, **changes: Any) -> TextAPI:
    """What writes the texts of a step, which asks for none of them twice."""
    api = engines.engine(model, remote, made.folder, progress=made.show, **changes)
    return Journal(api, made.folder / "journal")


def _chosen(options: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


def _training(options: TrainingOptions) -> dict[str, Any]:
    """What decides a training's result; a restart may change the rest."""
    free = ("device", "save_steps", "micro_batch_size")
    return {name: value for name, value in dataclasses.asdict(options).items() if name not in free}


def _template(chat_model: str | None) -> Callable[[str, str], str]:
    """How a pair becomes one text."""
    if chat_model is None:
        return lambda text, answer: f"{text}\n{answer}"
    from dpsda.models import load_tokenizer

    tokenizer = load_tokenizer(chat_model)
    if not tokenizer.chat_template:
        raise InputError(f"{chat_model} has no chat template; leave out --chat_model")

    def render(text: str, answer: str) -> str:
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
        return tokenizer.apply_chat_template(turns, tokenize=False)

    return render


def _timed(start: float, facts: dict[str, Any]) -> dict[str, Any]:
    return {**facts, "seconds": round(time.monotonic() - start, 1)}


def _done(step: Step) -> bool:
    """Whether the step is complete; then its figures are said again."""
    facts = step.finished()
    if facts is None:
        return False
    print(f"{step.folder}: complete, nothing is done again")
    _print(step, facts)
    return True


def _say(step: Step, result: str, facts: dict[str, Any]) -> None:
    """Mark the step as complete, and say what came out."""
    step.finish(facts)
    took = f" in {facts['seconds']:.0f} s" if "seconds" in facts else ""
    print(f"{step.folder / result}: written{took}")
    _print(step, facts)


def _print(step: Step, facts: dict[str, Any]) -> None:
    if not step.show:
        print("nothing protects this result: its figures stay in private/ (--log_private shows them)")
        return
    for name in ("line", "broken", "bias"):
        if name in facts:
            print(facts[name])
    if "line" not in facts:
        numbers = {name: value for name, value in facts.items() if name not in ("seconds", "files")}
        words = [
            f"{k.replace('_', ' ')} {v:,}" if isinstance(v, int) else f"{k.replace('_', ' ')} {v:.3f}"
            for k, v in numbers.items()
        ]
        print(", ".join(words))
