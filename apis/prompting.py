"""From a data set's `prompts.yaml` to prompts, and from a model's answer to a text.

    system: who the model is
    init: template(s) for a text from nothing
    paraphrase: template(s) that rewrite {text}
    blank_fill: template(s) that fill the blanks of {masked}
    keywords, personas, tones: lists to draw from
    few_shot: {init: [...], paraphrase: [...], blank_fill: [...]}, each a mapping of the template's fields and `answer`;
        `label.COLUMN` there is the example's own label, where it is not that of the request
    length: {min_words, max_words, longest, spread, dynamic, dynamic_init, tokens_per_word, limit, whole_sentences}
    reject: phrases that only a failed answer has; such an answer counts as refused

Templates use {label.COLUMN}, {keyword}, {persona}, {tone}, {text}, {masked} and {words}. A template or list may depend
on a label: `{COLUMN: {value: ..., other value: ...}}`. Of a list of templates one is drawn for every prompt, as is one
keyword, persona and tone. Where some templates of `init` name a keyword or persona and others do not, `use_subcategory`
says which ones are used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Formatter
from typing import Any

import numpy as np

from apis.api import VARIATIONS, Prompt
from dpsda.errors import InputError, did_you_mean, not_yaml

TOKENS_PER_WORD = 1.5  # of English text, with some room
_LISTS = {"keyword": "keywords", "persona": "personas", "tone": "tones"}
_PREAMBLE = re.compile(
    r"^(?:(?:sure|certainly|of course|here(?:'s| is| are))\b[^:\n]{0,80}:|in other words,)\s*", re.IGNORECASE
)
_WORD_COUNT = re.compile(r"\s*\(\s*\d+ words?\s*\)\s*$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s|$)")
_WORDS = re.compile(r"\s*\S+")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`"}


@dataclass(frozen=True)
class Length:
    """Targets in words. An initial text aims anywhere from `min_words` to `max_words`; a variation at the length of its
    source, plus a normal deviate of standard deviation `spread` times the variation degree, from `min_words` to
    `longest` (None: `max_words`). A `dynamic` answer is cut at `tokens_per_word` times its target and at `limit` tokens
    (Xie et al. 2024, adaptive length); with `dynamic_init`, an initial one, too. Otherwise it is cut at a fixed length,
    and an initial target is one that fits. With `whole_sentences`, a last sentence that is cut off is dropped, and an
    answer without a whole one counts as refused."""

    min_words: int = 10
    max_words: int = 60
    longest: int | None = None
    spread: float = 0.0
    dynamic: bool = True
    dynamic_init: bool = True
    tokens_per_word: float = 2.0
    limit: int | None = None
    whole_sentences: bool = False

    def tokens(self, kind: str, words: int, fixed: int) -> int:
        """Where an answer that aims at `words` is cut; `fixed` is the cut, or the limit, where none is set here."""
        dynamic = self.dynamic and (self.dynamic_init or kind != "init")
        return min(math.ceil(words * self.tokens_per_word), self.limit or fixed) if dynamic else fixed

    def most(self, fixed: int) -> int:
        """The longest initial target."""
        if self.dynamic and self.dynamic_init:
            return self.max_words
        return max(self.min_words, min(self.max_words, int(fixed / TOKENS_PER_WORD)))


def words(text: str) -> list[str]:
    """The words of a text, each with the white space before it."""
    return _WORDS.findall(text)


@dataclass(frozen=True)
class PromptBook:
    """The prompts of one data set. `max_tokens` is where an answer is cut, and `pieces` what `blank_fill` blanks out:
    a text's parts, each with the white space before it."""

    system: Any = ""
    init: Any = ""
    paraphrase: Any = ""
    blank_fill: Any = ""
    keywords: Any = ()
    personas: Any = ()
    tones: Any = ()
    few_shot: Mapping[str, Any] = field(default_factory=dict)
    reject: Sequence[str] = ()
    length: Length = Length()
    max_tokens: int = 64
    use_subcategory: bool = True
    pieces: Callable[[str], list[str]] = words

    @classmethod
    def read(
        cls, path: Path, *, max_tokens: int = 64, use_subcategory: bool = True, length: Mapping[str, Any] | None = None
    ) -> PromptBook:
        """The prompts of a file; what `length` holds goes before the file's own.

        Raises InputError for a file that is missing or has an unknown key.
        """
        import yaml

        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; a data set has a prompts.yaml beside its spec.yaml") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise not_yaml(path, error) from None
        _check_keys(path, data, {f.name for f in fields(cls)} - {"max_tokens", "use_subcategory", "pieces"})
        data = {key: value for key, value in data.items() if value is not None}  # an empty key means the default
        _check_keys(path, data.get("length", {}), {f.name for f in fields(Length)})
        _check_keys(path, data.get("few_shot", {}), {"init", *VARIATIONS})
        if not isinstance(data.get("reject", []), list):
            raise InputError(f"{path}: reject is a list of phrases")
        own = data.pop("length", {})
        if not all(type(value) in (int, float, bool) and math.isfinite(value) for value in own.values()):
            raise InputError(f"{path}: length holds numbers, and dynamic, dynamic_init, whole_sentences true or false")
        target = Length(**{**own, **(length or {})})
        book = cls(**data, length=target, max_tokens=max_tokens, use_subcategory=use_subcategory)
        if not 1 <= target.min_words <= min(target.max_words, target.longest or target.max_words):
            least = "--min_target_word" if "min_words" in (length or {}) else "min_words"
            raise InputError(f"{path}: length needs 1 <= {least} <= max_words and longest")
        return book

    def check(self, kind: str, labels: Sequence[Mapping[str, str]]) -> None:
        """Render every template for every label, so that a mistake shows before anything is spent; InputError."""
        rng = np.random.default_rng(0)
        for label in labels:
            for name in ("init", kind):
                for template in _all(getattr(self, name), label) or [""]:
                    self._prompt(name, label, rng, 1, template, text="", masked="")

    def _templates(self, kind: str, label: Mapping[str, str]) -> list[str]:
        """The templates in use for this label."""
        templates = _all(getattr(self, kind), label)
        if kind != "init":
            return templates
        drawn = [t for t in templates if ("{keyword}" in t or "{persona}" in t) == self.use_subcategory]
        return drawn or templates

    def first(self, label: Mapping[str, str], rng: np.random.Generator) -> Prompt:
        """A prompt for a new text with this label ({column: value})."""
        target = int(rng.integers(self.length.min_words, self.length.most(self.max_tokens) + 1))
        return self._prompt("init", label, rng, target)

    def variation(
        self, kind: str, text: str, label: Mapping[str, str], rng: np.random.Generator, degree: float = 0.5
    ) -> Prompt:
        """A prompt for a variation of `text`; `degree` is the share of its pieces that `blank_fill` blanks out."""
        target = round(len(text.split()) + rng.normal(0, degree * self.length.spread))
        target = min(max(target, self.length.min_words), self.length.longest or self.length.max_words)
        masked = ""
        if kind == "blank_fill":
            masked = "".join(_blank(piece) if rng.random() < degree else piece for piece in self.pieces(text))
        return self._prompt(kind, label, rng, target, text=text, masked=masked)

    def clean(self, answer: str | None) -> str:
        """The text of an answer: no preamble, no enclosing quotes, no word count, white space collapsed; "" if nothing
        is left or the answer is to be rejected."""
        text = _PREAMBLE.sub("", (answer or "").strip())
        text = _WORD_COUNT.sub("", " ".join(text.split()))
        if self.length.whole_sentences:
            ends = [match.end() for match in _SENTENCE_END.finditer(text)]
            text = text[: ends[-1]] if ends else ""
        while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
            text = text[1:-1].strip()
        if text.count('"') == 1:  # its partner was cut off
            text = text.replace('"', "")
        refused = any(phrase.lower() in text.lower() for phrase in self.reject)
        return text if any(ch.isalnum() for ch in text) and not refused else ""

    def _prompt(
        self,
        kind: str,
        label: Mapping[str, str],
        rng: np.random.Generator,
        target: int,
        template: str | None = None,
        **values: str,
    ) -> Prompt:
        if template is None:
            template = _pick(self._templates(kind, label), rng)
        if not template:
            raise InputError(f"prompts.yaml has no {kind!r} template; add one or choose another --variation_type")
        for name, plural in _LISTS.items():
            if "{" + name + "}" in template:
                values[name] = _one(getattr(self, plural), label, rng)
        shots = []
        examples = _of_label(self.few_shot.get(kind) or [], label)
        for shot in examples if isinstance(examples, list) else [examples]:
            if not isinstance(shot, Mapping) or not isinstance(shot.get("answer"), str):
                raise InputError(f"prompts.yaml: a {kind} shot is a mapping of the template's fields and `answer`")
            fields_of = {"words": len(shot["answer"].split()), **shot}
            own = {column: shot.get(f"label.{column}", value) for column, value in label.items()}
            shots.append((_fill(_one(getattr(self, kind), label, rng), fields_of, own), shot["answer"]))
        return Prompt(
            text=_fill(template, {**values, "words": target}, label),
            system=_one(self.system, label, rng),
            shots=tuple(shots),
            max_new_tokens=self.length.tokens(kind, target, self.max_tokens),
        )


def _of_label(value: Any, label: Mapping[str, str]) -> Any:
    """`value` itself, or the part of {column: {label value: part}} that belongs to `label`."""
    while isinstance(value, Mapping):
        column = next(iter(value))
        if len(value) != 1 or column not in label:
            raise InputError(
                f"prompts.yaml: {str(column)!r} is not a label column; there are {', '.join(label) or 'none'}"
            )
        parts = {str(key): part for key, part in value[column].items()}  # YAML reads 5 as a number
        if label[column] not in parts:
            raise InputError(f"prompts.yaml: nothing is given for {column} = {label[column]!r}")
        value = parts[label[column]]
    return value


def _all(value: Any, label: Mapping[str, str]) -> list[str]:
    """The choices for this label: of a list all that are in it, of a text itself."""
    value = _of_label(value, label)
    return [str(item).strip() for item in (value if isinstance(value, list | tuple) else [value])]


def _one(value: Any, label: Mapping[str, str], rng: np.random.Generator) -> str:
    return _pick(_all(value, label), rng)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))] if choices else ""


def _blank(piece: str) -> str:
    """A blank in the place of a piece; the white space before it stays."""
    text = piece.lstrip()
    return piece[: len(piece) - len(text)] + "_" if text else piece


def _fill(template: str, values: Mapping[str, Any], label: Mapping[str, str]) -> str:
    """The template with its fields filled in; a text is inserted as it is, braces included."""
    parts = []
    try:
        fields_of = list(Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"prompts.yaml: the template {template!r} has a stray brace ({error})") from None
    for literal, name, _, _ in fields_of:
        parts.append(literal)
        if name is None:
            continue
        known = label.get(name.removeprefix("label.")) if name.startswith("label.") else values.get(name)
        if known is None:
            raise InputError(f"prompts.yaml: a template uses {{{name}}}, which stands for nothing here")
        parts.append(str(known))
    return "".join(parts)


def _check_keys(path: Path, data: Any, known: set[str]) -> None:
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected `key: value` lines")
    for key in data:
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}{did_you_mean(str(key), known)}")
