"""The published data sets: their exact file format with made-up rows, and their prompts."""

import re
import string

import numpy as np
import pytest

from apis.api import VARIATIONS
from apis.prompting import PromptBook
from dpsda.assets import DATA
from dpsda.data import DatasetSpec, load

CELLS = {"yelp": 50, "openreview": 60, "pubmed": 1}
SHOTS = {"yelp": 3, "openreview": 1, "pubmed": 0}
DEV = DATA.parents[1] / "shared" / "data" / "yelp" / "dev.csv"

SCIENCES = (
    "Area: Machine Learning for Sciences "
    "(eg biology, physics, health sciences, social sciences, climate/sustainability )"
)
# the file as published, and its good rows: text and label cell
FILES = {
    "yelp": (
        "text,label1,label2\n"
        "Plain words without a comma.,Business Category: Bars,Review Stars: 5.0\n"
        '"One line, with a comma.\n\nSaid ""hello"" twice.",Business Category: Arts & Entertainment,Review Stars: 1.0\n'
        "No such category.,Business Category: Pets,Review Stars: 3.0\n"
        "No such rating.,Business Category: Grocery,Review Stars: 0.0\n"
        "Without the prefix.,Grocery,3.0\n",
        [
            ("Plain words without a comma.", ("Business Category: Bars", "Review Stars: 5.0")),
            (
                'One line, with a comma.\n\nSaid "hello" twice.',
                ("Business Category: Arts & Entertainment", "Review Stars: 1.0"),
            ),
        ],
    ),
    "openreview": (  # label2 stands before label1, and both hold commas
        "text,label2,label1\n"
        f'"Summary: ""fine"", but\nslow.","Recommendation: 3: reject, not good enough","{SCIENCES}"\n'
        "Clear.,Recommendation: 1: strong reject,Area: Unsupervised and Self-supervised learning\n"
        'No such score.,Recommendation: 10: strong accept,"Area: Generative models"\n'
        f'Another blank.,Recommendation: 1: strong reject,"{SCIENCES.replace(" )", ")")}"\n'
        "Swapped.,Area: Generative models,Recommendation: 1: strong reject\n",
        [
            ('Summary: "fine", but\nslow.', (SCIENCES, "Recommendation: 3: reject, not good enough")),
            ("Clear.", ("Area: Unsupervised and Self-supervised learning", "Recommendation: 1: strong reject")),
        ],
    ),
    "pubmed": (
        'text\n"BACKGROUND: One, two.\nRESULTS: A ""large"" effect (p < 0.05)."\nWe did nothing.\n""\n',
        [('BACKGROUND: One, two.\nRESULTS: A "large" effect (p < 0.05).', ()), ("We did nothing.", ())],
    ),
}


def parts(name: str) -> tuple[PromptBook, list[dict[str, str]]]:
    """The prompts of a data set, and its label cells as {column: value}."""
    spec = DatasetSpec.read(name)
    labels = [dict(zip(spec.label_columns, cell, strict=True)) for cell in spec.cells]
    return PromptBook.read(DATA / name / "prompts.yaml", max_tokens=1000), labels


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", FILES)
def test_the_published_format(name, tmp_path):
    """What is good is read as it stands; a row with a label outside its domain, or without a text, is dropped."""
    content, good = FILES[name]
    (tmp_path / "train.csv").write_text(content, encoding="utf-8", newline="")
    spec = DatasetSpec.read(name)
    corpus = load(spec, "train", file=tmp_path / "train.csv")
    assert list(corpus.texts) == [text for text, _ in good]
    assert [spec.cells[cell] for cell in corpus.cells] == [labels for _, labels in good]
    assert corpus.dropped["row"].tolist() == ([2, 3, 4] if spec.labels else [2])
    assert (
        len(spec.cells) == CELLS[name]
        and spec.public == {"dev", "test"}
        and set(spec.splits) == {"train"} | spec.public
    )


@pytest.mark.skipif(not DEV.exists(), reason="the published file is not here")
def test_the_published_yelp_file():
    corpus = load(DatasetSpec.read("yelp"), "dev", file=DEV)
    assert corpus.num_records == 5_000 and len(corpus.dropped) == 0


@pytest.mark.parametrize("name", FILES)
def test_every_template_renders_for_every_label(name):
    book, labels = parts(name)
    for kind in VARIATIONS:
        book.check(kind, labels)
    for label in labels:
        prompts = [
            book.initial(label, rng()),
            *(book.variation(kind, "one two three", label, rng()) for kind in VARIATIONS),
        ]
        for prompt in prompts:
            assert prompt.text and "{" not in prompt.text + prompt.system
            assert all(value in prompt.text for value in label.values())
        assert "one two three" in prompts[1].text and "_" in prompts[2].text


@pytest.mark.parametrize("name", FILES)
def test_worked_examples_keep_half_of_the_answer(name):
    """A blank stands for something in the answer, the rest is the answer's own, and the count of words is exact."""
    book, labels = parts(name)
    shots = book.few_shot.get("blank_fill", [])
    rendered = book.variation("blank_fill", "one two three", labels[0], rng()).shots
    assert len(shots) == len(rendered) == SHOTS[name]
    for shot, (request, answer) in zip(shots, rendered, strict=True):
        masked = shot["masked"]
        assert re.fullmatch(re.escape(masked).replace("_", r"\S+"), answer) and book.clean(answer) == answer
        assert 0.35 < len(re.sub(r"[_\s]", "", masked)) / len(re.sub(r"\s", "", answer)) < 0.65
        assert masked in request and "{" not in request and shot["tone"] in book.tones
        assert f"exactly {len(answer.split())} words" in request


@pytest.mark.parametrize("name", ["yelp", "openreview"])
def test_worked_examples_show_their_own_labels(name):
    book, labels = parts(name)
    shots = book.few_shot["blank_fill"]
    for label in labels:
        for shot, (request, _) in zip(shots, book.variation("blank_fill", "a b", label, rng()).shots, strict=True):
            own = {column: shot[f"label.{column}"] for column in label}
            assert own in labels and all(value in request for value in own.values())


def test_yelp_has_100_keywords_for_each_category():
    book, labels = parts("yelp")
    keywords = book.keywords["label1"]
    assert set(keywords) == {label["label1"] for label in labels} and len(keywords) == 10
    for words in keywords.values():
        assert len({word.strip().lower() for word in words}) == len(words) == 100
        assert all(1 <= len(word.split()) <= 4 for word in words)


@pytest.mark.parametrize("name, personas, tones", [("yelp", 0, 28), ("openreview", 50, 6), ("pubmed", 50, 9)])
def test_sizes_of_the_lists(name, personas, tones):
    book, _ = parts(name)
    assert len(set(book.personas)) == len(book.personas) == personas
    assert len(set(book.tones)) == len(book.tones) == tones


@pytest.mark.parametrize(
    "name, field, using, without",
    [("yelp", "keyword", 2, 1), ("openreview", "persona", 1, 1), ("pubmed", "persona", 8, 1)],
)
def test_initial_templates_with_and_without_a_list(name, field, using, without):
    book, _ = parts(name)
    used = [field in fields(template) for template in book.init]
    assert (used.count(True), used.count(False)) == (using, without) and len(set(book.init)) == using + without
