import numpy as np
import pytest

from apis.prompting import PromptBook
from dpsda.errors import InputError

BOOK = """
system: You write.
init: {kind: {film: "A film in {words} words: {keyword}, {tone}, {persona}.", food: ["One {keyword}", "Two {keyword}"]}}
paraphrase: "{label.kind}, {tone}, {words}: {text}"
blank_fill: "Fill: {masked}"
keywords: {kind: {film: [chase], food: [soup]}}
personas: [a fan]
tones: [dry, warm]
few_shot:
  paraphrase:
    - {tone: dry, text: a b, answer: c d e}
length: {min_words: 5, max_words: 9, tokens_per_word: 2}
"""


@pytest.fixture
def read(tmp_path):
    def read(text=BOOK, **options):
        path = tmp_path / "prompts.yaml"
        path.write_text(text)
        return PromptBook.read(path, **options)

    return read


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_first_prompt_draws_from_its_label(read):
    prompt = read().first({"kind": "film"}, rng())
    assert prompt.system == "You write." and prompt.shots == ()
    words = int(prompt.text.split()[3])
    assert 5 <= words <= 9 and prompt.max_new_tokens == 2 * words
    assert prompt.text.split(": ")[1] in ("chase, dry, a fan.", "chase, warm, a fan.")
    drawn = {read().first({"kind": "food"}, rng(seed)).text for seed in range(20)}
    assert drawn == {"One soup", "Two soup"}


def test_a_variation_carries_its_source_unchanged(read):
    source = "a {tone} {0} text with braces and % signs"
    prompt = read().variation("paraphrase", source, {"kind": "film"}, rng())
    assert prompt.text.endswith(f", 9: {source}") and prompt.text.startswith("film, ")
    assert prompt.shots == (("film, dry, 3: a b", "c d e"),)


def test_targets_stay_within_limits(read):
    book = read(BOOK + "\n", max_tokens=12)
    prompt = book.variation("paraphrase", "word " * 50, {"kind": "film"}, rng())
    assert ", 9: " in prompt.text and prompt.max_new_tokens == 12


def test_blank_fill_blanks_a_share_of_the_words(read):
    """1,000 words at 0.3: within 0.075 of it, five standard errors; one false alarm in a million."""
    text = read().variation("blank_fill", "word " * 1000, {"kind": "film"}, rng(), 0.3).text
    assert text.count("_") / 1000 == pytest.approx(0.3, abs=0.075)
    assert read().variation("blank_fill", "x y", {"kind": "film"}, rng(), 0.0).text == "Fill: x y"


@pytest.mark.parametrize(
    "answer, text",
    [
        ("  A fine\n film. ", "A fine film."),
        ('"A fine film."', "A fine film."),
        ("Sure, here is a review: A fine film.", "A fine film."),
        ("Here's a rewritten version:\n\n“A fine film.”", "A fine film."),
        ("In other words, a fine film.", "a fine film."),
        ("A fine film. (3 words)", "A fine film."),
        ('"Fine" and "odd"', '"Fine" and "odd"'),
        ("...", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_answers_are_cleaned(read, answer, text):
    assert read().clean(answer) == text


def test_a_sentence_that_is_cut_off_goes(read):
    book = read("length: {whole_sentences: true}")
    assert book.clean("One is whole. The other is cut") == "One is whole."
    assert book.clean("only a piece") == ""
    assert book.clean('"A quote that lost its end. And') == "A quote that lost its end."


def test_answers_with_a_rejected_phrase_are_refused(read):
    book = read("reject: [this sentence]")
    assert book.clean("This sentence is fine.") == "" and book.clean("A fine sentence.") == "A fine sentence."


def test_bad_books_are_refused(read, tmp_path):
    with pytest.raises(InputError, match="did you mean paraphrase"):
        read("paraphrases: x")
    with pytest.raises(InputError, match="did you mean max_words"):
        read("length: {max_word: 3}")
    with pytest.raises(InputError, match="not YAML"):
        read("init: [")
    with pytest.raises(InputError, match=r"prompts\.yaml beside its spec"):
        PromptBook.read(tmp_path / "nothing.yaml")
    with pytest.raises(InputError, match="no 'init' template"):
        read("paraphrase: x").first({}, rng())
    with pytest.raises(InputError, match="stands for nothing"):
        read("init: '{nothing}'").first({}, rng())
    with pytest.raises(InputError, match="nothing is given for kind = 'book'"):
        read().first({"kind": "book"}, rng())
    with pytest.raises(InputError, match="not a label column"):
        read("init: {kind: {film: x}}").first({"stars": "5"}, rng())


def test_length_of_the_paper(read):
    """target = words + N(0, (p * scale)^2), floored; the cut is target * tokens a word, at most the limit."""
    length = {"min_words": 25, "spread": 40.0, "tokens_per_word": 1.2, "limit": 200, "dynamic": True}
    book = read(BOOK.replace("max_words: 9", "max_words: 5000"), max_tokens=128, length=length)
    draw = rng()
    prompts = [book.variation("paraphrase", "word " * 100, {"kind": "film"}, draw, 0.5) for _ in range(2000)]
    targets = np.array([int(prompt.text.split(": ")[0].split(", ")[2]) for prompt in prompts])
    assert abs(targets.mean() - 100) < 2.3 and abs(targets.std() - 20) < 1.6  # five standard errors
    assert targets.min() >= 25
    assert [p.max_new_tokens for p in prompts] == [min(int(np.ceil(1.2 * t)), 200) for t in targets]
    few = book.variation("paraphrase", "word", {"kind": "film"}, draw, 0.0)
    assert ", 25: " in few.text


def test_lengths_that_are_not_dynamic(read):
    """A fixed cut, and initial targets that it has room for; with the paper's setting only variations are dynamic."""
    long = BOOK.replace("max_words: 9", "max_words: 500, longest: 600")
    for length in ({"dynamic": False}, {"dynamic_init": False}):
        book, draw = read(long, max_tokens=30, length={**length, "limit": 1200}), rng()
        prompts = [book.first({"kind": "film"}, draw) for _ in range(200)]
        assert {p.max_new_tokens for p in prompts} == {30}
        targets = {int(p.text.split()[3]) for p in prompts}
        assert min(targets) == 5 and max(targets) == 20  # 1.5 tokens a word
        varied = book.variation("paraphrase", "word " * 900, {"kind": "film"}, draw)
        assert ", 600: " in varied.text and varied.max_new_tokens == (30 if "dynamic" in length else 1200)


def test_keywords_and_personas_on_demand(read):
    book = BOOK.replace('food: ["One {keyword}", "Two {keyword}"]', 'food: ["One {keyword}", "By {persona}", "Food."]')
    for use, expected in ((True, {"One soup", "By a fan"}), (False, {"Food."})):
        drawn = {read(book, use_subcategory=use).first({"kind": "food"}, rng(seed)).text for seed in range(30)}
        assert drawn == expected
    assert "chase" in read(book, use_subcategory=False).first({"kind": "film"}, rng()).text  # there is no other


def test_worked_examples_may_have_labels_of_their_own(read):
    shot = "- {tone: dry, text: a b, answer: c d e}"
    for own, shown in ((shot, "film"), (shot.replace("{tone", "{label.kind: food, tone"), "food")):
        prompt = read(BOOK.replace(shot, own)).variation("paraphrase", "x", {"kind": "film"}, rng())
        assert prompt.shots[0][0].startswith(f"{shown}, ") and prompt.text.startswith("film, ")
