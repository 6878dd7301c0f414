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

Everything is text as it is written (01 and yes, too), but for `length`. Templates use {label.COLUMN},
{attribute.NAME}, {keyword}, {persona}, {tone}, {text}, {masked} and {words}; a brace that is meant is written twice. A
template or list may depend on a label, or on an attribute: `{COLUMN: {value: ..., other value: ...}}`. Of a list of
templates one is drawn for every prompt, as is one keyword, persona and tone. Where texts have rows, the templates that
name attributes are used, if there are any. Where they have none, those that name none are used. Where some templates of
`init` name a keyword or persona and others do not, `use_subcategory` says which ones are used.

Prompts may be in any language. Where words have no spaces between them (Chinese, Japanese, Thai, ...) a word is a
character, for `{words}`, `min_words` and `max_words`, too. `tokens_per_word` is for English: where a word takes more
tokens, raise it, or initial texts are cut off. As a rule of thumb take half as many again as the model's tokenizer
makes of a word. One for English makes about 2 of a Chinese or Japanese character, 2.5 of a Thai one, and about 5 of a
word in Arabic, Hindi or Russian, so take 3, 4 and 9; the UTF-8 bytes of a word (3 in Chinese, 10 in Arabic, 13 in
Hindi) are enough for any byte-level one. A variation may be as long as its source without that, up to `limit` or
`--length`. Phrases and counts that models put around a text (`Sure, here is ...:`) are known in English alone: those of
another language belong in `reject`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from apis.api import VARIATIONS, Prompt, Shots
from dpsda import yaml_files
from dpsda.errors import InputError, did_you_mean
from dpsda.wording import bytes_beyond_ascii, count, normalise, whole_sentences, without_reasoning, words

TOKENS_PER_WORD = 1.5  # of English text, with some room
_LISTS = {"keyword": "keywords", "persona": "personas", "tone": "tones"}
_PREAMBLE = re.compile(
    r"^(?:(?:sure|certainly|of course|here(?:'s| is| are))\b[^:\n]{0,80}:|in other words,)\s*", re.IGNORECASE
)
_WORD_COUNT = re.compile(r"\s*\(\s*\d+ words?\s*\)\s*$", re.IGNORECASE)
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_YES, _NO = ("true", "yes", "on"), ("false", "no", "off")
# what may close a quotation, by what opened it, in any language
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "”": "”", "‘": "’", "„": "“”", "‚": "‘’"}
_QUOTES |= {"«": "»", "»": "«»", "‹": "›", "「": "」", "『": "』", "｢": "｣"}


@dataclass(frozen=True)
class Length:
    """Targets in words. An initial text aims anywhere from `min_words` to `max_words`; a variation at the length of its
    source, plus a normal deviate of standard deviation `spread` times the variation degree, from `min_words` to
    `longest` (None: `max_words`). A `dynamic` answer is cut at `tokens_per_word` times its target and at `limit` tokens
    (Xie et al. 2024, adaptive length); with `dynamic_init`, an initial one, too. Otherwise it is cut at a fixed length,
    and an initial target is one that fits. With `whole_sentences`, a last sentence that is cut off is dropped, and an
    answer without a whole one counts as refused; one in a script without marks for that (Thai, Lao) is kept."""

    min_words: int = 10
    max_words: int = 60
    longest: int | None = None
    spread: float = 0.0
    dynamic: bool = True
    dynamic_init: bool = True
    tokens_per_word: float = 2.0
    limit: int | None = None
    whole_sentences: bool = False

    def tokens(self, kind: str, words: int, fixed: int, source: str = "") -> int:
        """Where an answer that aims at `words` is cut; `fixed` is the cut, or the limit, where none is set here.

        A variation of `source` may have as many tokens more as a byte-level tokenizer could make of all that is not
        ASCII in it, and more again where it is to be longer.
        """
        if not self.dynamic or (kind == "init" and not self.dynamic_init):
            return fixed
        longer = max(1, words / max(1, count(source)))
        more = math.ceil(bytes_beyond_ascii(source) * longer)
        return min(math.ceil(words * self.tokens_per_word) + more, self.limit or fixed)

    def most(self, fixed: int) -> int:
        """The longest initial target."""
        if self.dynamic and self.dynamic_init:
            return self.max_words
        tight = max(TOKENS_PER_WORD, TOKENS_PER_WORD / Length.tokens_per_word * self.tokens_per_word)
        return max(self.min_words, min(self.max_words, int(fixed / tight)))

    @classmethod
    def read(cls, path: Path, given: Mapping[str, Any], over: Mapping[str, Any]) -> Length:
        """Of what a file says, and of `over`, which goes before it. Raises InputError for what is no length."""
        _check_keys(path, given, {f.name for f in fields(cls)})
        own = {name: _number(path, text, type(getattr(cls, name))) for name, text in given.items() if text is not None}
        target = cls(**{**own, **over})
        if not 1 <= target.min_words <= min(target.max_words, target.longest or target.max_words):
            least = "--min_target_word" if "min_words" in over else "min_words"
            raise InputError(f"{path}: length needs 1 <= {least} <= max_words and longest")
        if target.spread < 0 or target.tokens_per_word <= 0 or (target.limit is not None and target.limit < 1):
            raise InputError(f"{path}: length needs spread >= 0, tokens_per_word > 0 and limit >= 1")
        return target


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
        data = yaml_files.read(Path(path), "a data set has a prompts.yaml beside its spec.yaml")
        data = {} if data is None else data
        _check_keys(path, data, {f.name for f in fields(cls)} - {"max_tokens", "use_subcategory", "pieces"})
        data = {key: value for key, value in data.items() if value is not None}  # an empty key means the default
        target = Length.read(path, data.pop("length", {}), length or {})
        _check_keys(path, data.get("few_shot", {}), {"init", *VARIATIONS})
        reject = data.get("reject", [])
        if not isinstance(reject, list) or not all(isinstance(phrase, str) for phrase in reject):
            raise InputError(f"{path}: reject is a list of phrases")
        return cls(**data, length=target, max_tokens=max_tokens, use_subcategory=use_subcategory)

    def check(self, kind: str, labels: Sequence[Mapping[str, str]], attributes: Sequence[str] = ()) -> None:
        """Render every template for every label, so that a mistake shows before anything is spent; InputError. No other
        `attributes` may be named than these, whether texts have rows or not."""
        rng, named = np.random.default_rng(0), [f"attribute.{name}" for name in attributes]
        for label in labels:
            for column in label:
                if "{" in column or "}" in column:
                    raise InputError(f"the label column {column!r} has a brace, so no template can name it; rename it")
            for name in ("init", kind):
                templates = _all(getattr(self, name), label)
                for field_name in (n for template in templates for n in _names(template)):
                    if field_name.startswith("attribute.") and field_name not in named:
                        wrong = f"{{{field_name}}} is no attribute{did_you_mean(field_name, named)}"
                        raise InputError(f"prompts.yaml: {wrong}")
                for template in _fitting(templates, label) or [""]:
                    self._prompt(name, label, rng, 1, template, text="", masked="")

    def names(self, attribute: str) -> bool:
        """Whether a template, or what a list depends on, names an attribute."""

        def within(value: Any) -> bool:
            if isinstance(value, Mapping):
                return attribute in value or any(map(within, value.values()))
            if isinstance(value, list | tuple):
                return any(map(within, value))
            return isinstance(value, str) and f"{{attribute.{attribute}}}" in value

        return any(map(within, (self.system, self.init, self.keywords, self.personas, self.tones)))

    def _templates(self, kind: str, label: Mapping[str, str]) -> list[str]:
        """The templates in use for this label."""
        templates = _fitting(_all(getattr(self, kind), label), label)
        if kind != "init":
            return templates
        drawn = [t for t in templates if bool({"keyword", "persona"} & {*_names(t)}) == self.use_subcategory]
        return drawn or templates

    def initial(self, label: Mapping[str, str], rng: np.random.Generator) -> Prompt:
        """A prompt for a new text with this label ({column: value})."""
        target = int(rng.integers(self.length.min_words, self.length.most(self.max_tokens) + 1))
        return self._prompt("init", label, rng, target)

    def variation(
        self, kind: str, text: str, label: Mapping[str, str], rng: np.random.Generator, degree: float = 0.5
    ) -> Prompt:
        """A prompt for a variation of `text`; `degree` is the share of its pieces that `blank_fill` blanks out."""
        target = round(count(text) + rng.normal(0, degree * self.length.spread))
        target = min(max(target, self.length.min_words), self.length.longest or self.length.max_words)
        masked = ""
        if kind == "blank_fill":
            masked = "".join(_blank(piece) if rng.random() < degree else piece for piece in self.pieces(text))
        return self._prompt(kind, label, rng, target, text=text, masked=masked)

    def examples(self, texts: Sequence[str], labels: Sequence[Mapping[str, str]], rng: np.random.Generator) -> Shots:
        """`texts`, each with its label, as answers to initial prompts: the shots of another one."""
        asked = [self._prompt("init", label, rng, count(text)) for text, label in zip(texts, labels, strict=True)]
        return tuple((prompt.text, text) for prompt, text in zip(asked, texts, strict=True))

    def clean(self, answer: str | None) -> str:
        """The text of an answer: no reasoning, no preamble, no enclosing quotes, no word count, white space collapsed;
        "" if nothing is left or the answer is to be rejected."""
        return self.text_of(answer)[0]

    def text_of(self, answer: str | None) -> tuple[str, str]:
        """The text of an answer and "", or "" and why it has none."""
        if answer is None:
            return "", "refused or filtered"
        if not answer.strip():
            return "", "empty"
        text = without_reasoning(answer)
        if not text:
            return "", "reasoning without an answer"
        text = _WORD_COUNT.sub("", " ".join(_PREAMBLE.sub("", text).split()))
        if self.length.whole_sentences and text and not (text := whole_sentences(text)):
            return "", "no whole sentence"
        text = _unquoted(text)
        if any(phrase.lower() in text.lower() for phrase in self.reject):
            return "", "a phrase of `reject`"
        if not any(ch.isalnum() for ch in text):
            return "", "no letter or digit" if text else "empty"
        return text, ""

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
            if name in _names(template):
                values[name] = _one(getattr(self, plural), label, rng)
                if not values[name]:
                    raise InputError(f"prompts.yaml: a template uses {{{name}}}, and `{plural}` has none")
        shots = []
        examples = _of_label(self.few_shot.get(kind), label) or []
        for shot in examples if isinstance(examples, list) else [examples]:
            if not isinstance(shot, Mapping) or not isinstance(shot.get("answer"), str):
                raise InputError(f"prompts.yaml: a {kind} shot is a mapping of the template's fields and `answer`")
            fields_of = {"words": count(shot["answer"]), **shot}
            own = {c: shot.get(f"label.{c}", shot.get(f"attribute.{c}", value)) for c, value in label.items()}
            asked = _pick(_fitting(_all(getattr(self, kind), label), own), rng)
            shots.append((_fill(asked, fields_of, own), shot["answer"]))
        return Prompt(
            text=_fill(template, {**values, "words": target}, label),
            system=_one(self.system, label, rng),
            shots=tuple(shots),
            max_new_tokens=self.length.tokens(kind, target, self.max_tokens, values.get("text", "")),
        )


def _of_label(value: Any, label: Mapping[str, str]) -> Any:
    """`value` itself, or the part of {column: {label value: part}} that belongs to `label`."""
    while isinstance(value, Mapping):
        column = next(iter(value), None)
        if len(value) != 1 or column is None or column not in label:
            raise InputError(
                f"prompts.yaml: {str(column)!r} is no label or attribute; there are {', '.join(label) or 'none'}"
            )
        if not isinstance(value[column], Mapping):
            raise InputError(f"prompts.yaml: what depends on {column!r} is a mapping of its values")
        value = _part(column, value[column], label[column])
    return value


def _part(column: str, parts: Mapping[Any, Any], wanted: str) -> Any:
    """The part of a label value: by its own spelling, or else by one that means the same."""
    if wanted in parts:
        return parts[wanted]
    found = [part for value, part in parts.items() if normalise(value) == normalise(wanted)]
    if len(found) > 1:
        raise InputError(f"prompts.yaml: {column} = {wanted!r} is given in several spellings; give it once")
    if not found:
        raise InputError(f"prompts.yaml: nothing is given for {column} = {wanted!r}")
    return found[0]


def _all(value: Any, label: Mapping[str, str]) -> list[str]:
    """The choices for this label: of a list all that are in it, of a text itself."""
    value = _of_label(value, label)
    choices = [item for item in (value if isinstance(value, list | tuple) else [value]) if item is not None]
    odd = next((item for item in choices if not isinstance(item, str)), None)
    if odd is not None:
        start = next(iter(odd), "") if isinstance(odd, Mapping) else odd
        raise InputError(f"prompts.yaml: what begins with {str(start)!r} is no text; put it in quotes")
    return [item.strip() for item in choices]


def _fitting(templates: list[str], label: Mapping[str, str]) -> list[str]:
    """Those that name attributes, where these have values here, or else those that name none."""
    named = {t: [n for n in _names(t) if n.startswith("attribute.")] for t in templates}
    known = [t for t, names in named.items() if names and all(n.removeprefix("attribute.") in label for n in names)]
    return known or [t for t, names in named.items() if not names] or templates


def _one(value: Any, label: Mapping[str, str], rng: np.random.Generator) -> str:
    return _pick(_all(value, label), rng)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))] if choices else ""


def _blank(piece: str) -> str:
    """A blank in the place of a piece; the white space before it stays."""
    text = piece.lstrip()
    return piece[: len(piece) - len(text)] + "_" if text else piece


def _unquoted(text: str) -> str:
    """A text without the quotes around it, or one whose partner was cut off."""
    while len(text) > 1 and text[-1] in _QUOTES.get(text[0], "") and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    if text.count('"') == 1:
        text = text.replace('"', "")
    if text.startswith(("“", "„", "«", "「", "『")) and not set(_QUOTES[text[0]]) & set(text):
        text = text[1:].strip()
    return text


@functools.lru_cache(maxsize=1024)  # a run fills few templates, many times
def _names(template: str) -> tuple[str, ...]:
    """The fields of a template; InputError for a stray brace."""
    found = list(_FIELD.finditer(template))
    stray = next((match[0] for match in found if len(match[0]) == 1), None)
    if stray:
        raise InputError(
            f"prompts.yaml: the template {template!r} has a stray brace (a single {stray!r}); one that is meant is "
            "written twice"
        )
    return tuple(match[1] for match in found if match[1] is not None)


def _fill(template: str, values: Mapping[str, Any], label: Mapping[str, str]) -> str:
    """The template with its fields filled in; a text is inserted as it is, braces included."""
    known = {}
    for name in _names(template):
        kind, _, column = name.partition(".")
        value = label.get(column) if kind in ("label", "attribute") and column else values.get(name)
        if value is None:
            raise InputError(f"prompts.yaml: a template uses {{{name}}}, which stands for nothing here")
        known[name] = str(value)
    return _FIELD.sub(lambda match: match[0][0] if match[1] is None else known[match[1]], template)


def _number(path: Path, text: Any, kind: type) -> float | int | bool:
    """A value of `length`: true or false, a number, or a whole one."""
    try:
        if kind is bool:
            return (*_NO, *_YES).index(text.lower()) >= len(_NO)
        number = float(text)
        whole = math.isfinite(number) and number.is_integer()
        if whole or (kind is float and math.isfinite(number)):
            return number if kind is float else int(number)
    except (AttributeError, TypeError, ValueError):
        pass
    raise InputError(f"{path}: length holds numbers, and dynamic, dynamic_init, whole_sentences true or false")


def _check_keys(path: Path, data: Any, known: set[str]) -> None:
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected `key: value` lines")
    for key in data:
        if key not in known:
            raise InputError(f"{path}: unknown key {key!r}{did_you_mean(str(key), known)}")
