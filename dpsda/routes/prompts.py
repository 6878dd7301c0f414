"""A trial of a data set's prompts on a model, without any private record: what comes back, and what the model itself
would write about."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apis import engines
from apis.api import Prompt, TextAPI
from apis.prompting import PromptBook
from dpsda import embedding
from dpsda.augpe.population import Made, initial, variations
from dpsda.data import DatasetSpec
from dpsda.data.new import scalar
from dpsda.errors import InputError
from dpsda.evaluation import copies
from dpsda.options import EmbeddingOptions, ModelOptions, RemoteOptions, TrialOptions
from dpsda.start import PROMPTS
from dpsda.wording import count, words

SHOWN = 6  # texts
BEGINNING = 3  # words by which texts are said to begin alike
ASKED = {  # lists of prompts.yaml, and what a model is asked for
    "keywords": "List twenty different subjects that {what} may be about",
    "personas": "List twelve different kinds of people who would write {what}",
    "tones": "List twelve different tones in which somebody may write {what}",
}
LISTS, LIST_TOKENS = 3, 200  # answers for each list, and their length
LONGEST = 8  # words of a list's line
_BULLET = re.compile(r"^\s*(?:[-*•·]+\s+|\(?\d+[.)]\s*)?")


def run(trial: TrialOptions, model: ModelOptions, remote: RemoteOptions, embeds: EmbeddingOptions) -> None:
    """Print how many answers are texts, why others are none, how long and how much alike they are, some of them, and
    lists for prompts.yaml that the model made from the description alone."""
    spec = DatasetSpec.read(trial.dataset)
    labels = spec.rows()
    book = PromptBook.read(
        spec.folder / PROMPTS,
        max_tokens=model.length,
        use_subcategory=model.use_subcategory,
        length=model.target(),
    )
    book.check("paraphrase", labels, spec.attribute_names)
    encoder = embedding.Encoder(embeds.feature_extractor, device=model.device)
    with tempfile.TemporaryDirectory() as scratch:
        api = engines.engine(model, remote, Path(scratch))
        rng = np.random.default_rng(trial.seed)
        cells = np.resize(rng.permutation(len(labels)), trial.texts)
        started = time.monotonic()
        first = initial(api, lambda cell, row: book.initial(labels[cell], rng), book.text_of, cells, trial.seed)
        if not len(first.texts):
            raise InputError(f"the model answered no initial prompt with a text ({first.why()}); check {PROMPTS}")
        _tell("from nothing", first, trial.texts, time.monotonic() - started, encoder)
        lengths = book.length
        print(f"    asked for: {lengths.min_words} to {lengths.most(model.length)} words")
        for text, cell in [*zip(first.texts.texts, first.texts.cells.tolist(), strict=True)][:SHOWN]:
            print(f"    [{', '.join(labels[cell].values())}] {text}" if labels[cell] else f"    {text}")
        started = time.monotonic()
        varied = variations(
            api,
            lambda text, cell, row: book.variation("paraphrase", text, labels[cell], rng),
            book.text_of,
            first.texts,
            1,
            "1",
            trial.seed,
        )
        _tell("varied", varied, len(first.texts), time.monotonic() - started, encoder)
        for text, parent in [*zip(varied.texts.texts, varied.texts.parents, strict=True)][: SHOWN // 2]:
            print(f"    {first.texts.texts[first.texts.ids.index(parent)]}\n      -> {text}")
        what = trial.describe or spec.describe
        if what:
            _suggest(api, what, trial.seed)
        else:
            print(f"no lists are asked for: say what a text is, by `describe:` in {spec.folder / 'spec.yaml'}")


def _tell(how: str, made: Made, wanted: int, seconds: float, encoder: embedding.Encoder) -> None:
    texts, lost = made.texts.texts, sum(made.lost.values())
    print(f"{how}: {len(texts):,} of {wanted:,} texts in {seconds:.0f} s")
    print(f"    answers that were no text: {lost / (lost + len(texts)):.0%}" + (f" ({made.why()})" if lost else ""))
    if len(texts) < 2:
        return
    low, middle, high = np.quantile([count(text) for text in texts], [0.1, 0.5, 0.9])
    print(f"    words: {low:.0f} at the first tenth, {middle:.0f} in the middle, {high:.0f} at the last tenth")
    rows = encoder.embed(texts, private=False, desc=how)
    begun = len({" ".join(words(text.lower())[:BEGINNING]) for text in texts})
    close = copies.near(rows, rows, np.arange(len(rows)))
    print(f"    alike: {close:.0%} are near another one (cosine above {copies.NEAR:g}); {begun:,} different beginnings")


def _suggest(api: TextAPI, what: str, seed: int) -> None:
    """Lists for prompts.yaml, of what the model says most often first."""
    print(f"lists for {PROMPTS}, as the model sees it from the description alone; take what is right:")
    prompts = [
        Prompt(f"{asked.format(what=what)}, one a line, in a few words each.", max_new_tokens=LIST_TOKENS)
        for asked in ASKED.values()
        for _ in range(LISTS)
    ]
    answers = api.generate(prompts, seed)
    for number, name in enumerate(ASKED):
        lines = listed(answers[number * LISTS : (number + 1) * LISTS])
        print(f"{name}:" + "".join(f"\n  - {scalar(line)}" for line in lines) + ("" if lines else " []"))


def listed(answers: Sequence[str | None]) -> list[str]:
    """The lines of lists, without numbers or bullets, each once, the most frequent first; not a preamble, and none of
    more than LONGEST words."""
    found: Counter[str] = Counter()
    spelled: dict[str, str] = {}
    for answer in answers:
        for raw in (answer or "").splitlines():
            line = _BULLET.sub("", raw).replace("**", "").partition(":")[0].strip().rstrip(".;,")
            if any(map(str.isalpha, line)) and count(line) <= LONGEST and not raw.rstrip().endswith(":"):
                found[line.casefold()] += 1
                spelled.setdefault(line.casefold(), line)
    return [spelled[key] for key, _ in found.most_common()]
