"""The files of a new data set, as text: what the owner says of it, and nothing that stands in its records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

MODEL = "embedded:smollm2-135m-instruct"
TEMPERATURE = 0.8  # for a small model
TONES = ("plain", "polite", "casual", "impatient", "worried", "formal", "friendly", "matter-of-fact")
# phrases of a model that talks about its answer, leaves blanks in it, or speaks as an assistant
REJECT = (
    *("happy to help", "happy to assist", "assist you", "feel free to", "glad to hear", "i'm sorry, but"),
    *("as an ai", "here is", "here's", "in other words", "rewrite", "rewritten", "this version", "this text", "["),
)
_PLAIN = re.compile(r"\w[\w ./+-]*\w|\w")


def spec(
    file: str,
    text: str,
    describe: str,
    labels: Mapping[str, Sequence[str]],
    attributes: Mapping[str, Sequence[str]],
    user: str | None,
) -> str:
    """spec.yaml"""
    lines = [
        "# What the records look like. All of this is public: write it from what you know of the product, and not from",
        "# the records, as a value that one person has shows that person. Every key is explained in docs/own_data.md.",
        f"text: {scalar(text)}",
        f"describe: {scalar(describe.strip().rstrip('.'))}",
    ]
    about = "# values that anybody may know; records with others are left out"
    lines += _domains("labels", about, labels)
    about = (
        "# what else stands in a row; a value that is none of these is `other`, if that is one, or else missing.\n"
        "# Numbers and dates have `edges: [0, 10, 100]` in the place of a domain, see docs/own_data.md"
    )
    lines += _domains("attributes", about, attributes)
    if user:
        lines += ["", "# who wrote a record, for --privacy_unit user", f"user: {scalar(user)}"]
    return "\n".join([*lines, "", "splits:", f"  train: {{file: {scalar(file)}}}", ""])


def _domains(key: str, about: str, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of columns with their domains; none where there is none."""
    lines = ["", about, f"{key}:"] if columns else []
    for column, domain in columns.items():
        lines += [f"  - column: {scalar(column)}", f"    domain: [{', '.join(map(scalar, domain))}]"]
    return lines


def prompts(
    describe: str, labels: Sequence[str], attributes: Sequence[str], subjects: Sequence[str], words: tuple[int, int]
) -> str:
    """prompts.yaml, for texts each of which is `describe`, such as `a message from a customer`."""
    what = describe.strip().rstrip(".").replace("{", "{{").replace("}", "}}")
    fields = {**{column: f"label.{column}" for column in labels}, **{name: f"attribute.{name}" for name in attributes}}
    named = "".join(f" Its {column}: {{{field}}}." for column, field in fields.items())
    about = ", about {keyword}" if subjects else ""
    templates = [
        f"Write {what}{about}.{named} Write it in a {{tone}} tone, in at most {{words}} words.",
        f"What could {what}{about} say?{named} Write just its text, {{tone}}, in at most {{words}} words.",
    ]
    listed = [f"  - {scalar(subject)}" for subject in subjects] or [
        "#  - the subjects, one a line; then write `about {keyword}` into the templates of `init`"
    ]
    return "\n".join(
        [
            "# What the model is asked. Write it without looking at the records: prompts are published, without noise.",
            "# Every key is explained in docs/own_data.md. Try it on texts that you make up, by --train_data_file.",
            "system: You write what people would write themselves.",
            "",
            "# texts from nothing: the votes choose among what these make, so that all variety begins here",
            "init:",
            *(f"  - {json.dumps(template, ensure_ascii=False)}" for template in templates),
            "",
            "# texts that won, in other words",
            "paraphrase:",
            "  - 'Say this in other words: \"{text}\"'",
            "  - 'Say this in other words, in a {tone} tone: \"{text}\"'",
            "",
            "# what texts may be about, as anybody may know",
            "keywords:" if subjects else "# keywords:",
            *listed,
            "",
            f"tones: [{', '.join(TONES)}]",
            "",
            "# an answer with one of these is asked for again",
            f"reject: [{', '.join(map(scalar, REJECT))}]",
            "",
            f"length: {{min_words: {words[0]}, max_words: {words[1]}, whole_sentences: true}}",
            "",
        ]
    )


def settings(dataset: str, folder: str, unit: str, words: tuple[int, int], shown: str) -> str:
    """augpe.yaml"""
    return "\n".join(
        [
            f"# dpsda augpe --config {shown}/augpe.yaml --epsilon 4",
            *_run(dataset, folder, unit),
            "# more texts where the line `signal:` of a run says that there are votes enough",
            "num_seed_samples: 60",
            "epochs: 2",
            "init_L: 3",
            "L: 3",
            "",
            "# any model of a hub, a folder, or of a server; a larger one writes better",
            f"model_type: {MODEL}",
            f"length: {2 * words[1]}",
            f"temperature: {TEMPERATURE}",
            "",
        ]
    )


def training(dataset: str, folder: str, unit: str, words: tuple[int, int], shown: str) -> str:
    """finetune.yaml"""
    return "\n".join(
        [
            f"# dpsda finetune --config {shown}/finetune.yaml --epsilon 4",
            "# DP-SGD on the texts themselves, sized for two cores. It needs thousands of records.",
            *_run(dataset, folder, unit),
            "# a larger batch and more steps learn more; one step takes about half a minute on two cores",
            "batch_size: 128",
            "steps: 40",
            "warmup_steps: 10",
            "checkpoint_steps: 10",
            "learning_rate: 1e-3",
            "clip_norm: 0.5",
            "",
            "# any causal language model of a hub, or a folder; tokens of a text, with its labels before it",
            f"model_type: {MODEL}",
            f"max_length: {3 * words[1]}",
            "",
            "num_samples: 300",
            f"length: {2 * words[1]}",
            "top_p: 0.95",
            "",
        ]
    )


def _run(dataset: str, folder: str, unit: str) -> list[str]:
    """The lines that the settings of every route begin with."""
    return [f"dataset: {scalar(dataset)}", f"result_folder: {scalar(folder)}", f"privacy_unit: {unit}", ""]


def scalar(value: str) -> str:
    """A YAML scalar, in quotes where it could be something else."""
    plain = _PLAIN.fullmatch(value) and value.lower() not in ("null", "~") and value.isascii()
    return value if plain else json.dumps(value, ensure_ascii=False)
