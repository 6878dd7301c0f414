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
        path.write_text(text, encoding="utf-8")
        return PromptBook.read(path, **options)

    return read


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_first_prompt_draws_from_its_label(read):
    prompt = read().initial({"kind": "film"}, rng())
    assert prompt.system == "You write." and prompt.shots == ()
    words = int(prompt.text.split()[3])
    assert 5 <= words <= 9 and prompt.max_new_tokens == 2 * words
    assert prompt.text.split(": ")[1] in ("chase, dry, a fan.", "chase, warm, a fan.")
    drawn = {read().initial({"kind": "food"}, rng(seed)).text for seed in range(20)}
    assert drawn == {"One soup", "Two soup"}


def test_a_variation_carries_its_source_unchanged(read):
    source = "a {tone} {0} text with braces and % signs"
    prompt = read().variation("paraphrase", source, {"kind": "film"}, rng())
    assert prompt.text.endswith(f", 9: {source}") and prompt.text.startswith("film, ")
    assert prompt.shots == (("film, dry, 3: a b", "c d e"),)


def test_examples_are_answers_to_initial_prompts(read):
    """Each to a request for a text of its length."""
    shots = read().examples(["A {brace} text.", "Another one."], [{"kind": "film"}] * 2, rng())
    assert [text for _, text in shots] == ["A {brace} text.", "Another one."]
    assert [request.split(": ")[0] for request, _ in shots] == ["A film in 3 words", "A film in 2 words"]


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
        read("paraphrase: x").initial({}, rng())
    with pytest.raises(InputError, match="stands for nothing"):
        read("init: '{nothing}'").initial({}, rng())
    with pytest.raises(InputError, match="nothing is given for kind = 'book'"):
        read().initial({"kind": "book"}, rng())
    with pytest.raises(InputError, match="no label or attribute"):
        read("init: {kind: {film: x}}").initial({"stars": "5"}, rng())


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
        prompts = [book.initial({"kind": "film"}, draw) for _ in range(200)]
        assert {p.max_new_tokens for p in prompts} == {30}
        targets = {int(p.text.split()[3]) for p in prompts}
        assert min(targets) == 5 and max(targets) == 20  # 1.5 tokens a word
        varied = book.variation("paraphrase", "word " * 900, {"kind": "film"}, draw)
        assert ", 600: " in varied.text and varied.max_new_tokens == (30 if "dynamic" in length else 1200)


def test_keywords_and_personas_on_demand(read):
    book = BOOK.replace('food: ["One {keyword}", "Two {keyword}"]', 'food: ["One {keyword}", "By {persona}", "Food."]')
    for use, expected in ((True, {"One soup", "By a fan"}), (False, {"Food."})):
        drawn = {read(book, use_subcategory=use).initial({"kind": "food"}, rng(seed)).text for seed in range(30)}
        assert drawn == expected
    assert "chase" in read(book, use_subcategory=False).initial({"kind": "film"}, rng()).text  # there is no other


def test_worked_examples_may_have_labels_of_their_own(read):
    shot = "- {tone: dry, text: a b, answer: c d e}"
    for own, shown in ((shot, "film"), (shot.replace("{tone", "{label.kind: food, tone"), "food")):
        prompt = read(BOOK.replace(shot, own)).variation("paraphrase", "x", {"kind": "film"}, rng())
        assert prompt.shots[0][0].startswith(f"{shown}, ") and prompt.text.startswith("film, ")


# languages


def test_targets_and_cuts_are_those_of_the_source_in_any_script(read):
    """The number asked for is the source's; the cut leaves room for its bytes. In English nothing changes."""
    book = read("paraphrase: '{words}: {text}'\nlength: {max_words: 900}", max_tokens=5000)
    for source, words in [
        ("面条很好吃，我喜欢。" * 20, 160),
        ("यह खाना अच्छा है। " * 20, 80),
        ("هل الطعام جيد؟ " * 20, 60),
        ("我用 Python 写。" * 20, 80),
    ]:
        prompt = book.variation("paraphrase", source, {}, rng())
        assert prompt.text.startswith(f"{words}: ") and prompt.max_new_tokens >= len(source.encode())
    prompt = book.variation("paraphrase", "It is fine. " * 20, {}, rng())
    assert prompt.text.startswith("60: ") and prompt.max_new_tokens == 120


def test_cuts_of_scripts_with_many_tokens_a_word(read):
    """A variation that is to be longer than its source may have as much more; `limit` and a fixed cut hold as ever."""
    text = "paraphrase: '{words}: {text}'\nlength: {min_words: 20, max_words: 900"
    assert read(text + "}", max_tokens=999).variation("paraphrase", "面条很好吃" * 2, {}, rng()).max_new_tokens == 100
    for length, cut in ((", limit: 30}", 30), (", dynamic: no}", 999)):
        assert read(text + length, max_tokens=999).variation("paraphrase", "面条" * 50, {}, rng()).max_new_tokens == cut


def test_initial_targets_fit_a_fixed_cut_in_any_script(read):
    book = read("init: '{words}'\nlength: {min_words: 1, max_words: 99, dynamic: false, tokens_per_word: 4}")
    targets = {int(book.initial({}, rng(seed)).text) for seed in range(200)}
    assert max(targets) == 64 // 3  # three quarters of them, as of the two of English


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("“面条很好。”", "面条很好。"),
        ("「行きます。」", "行きます。"),
        ("«هذا جيد.»", "هذا جيد."),
        ("„Das ist gut.“", "Das ist gut."),
        ("»Det er godt.«", "Det er godt."),
        ("「行きます。「いい", "行きます。"),
        ("面条很好。服务员", "面条很好。"),
        ("यह अच्छा है। वह", "यह अच्छा है।"),
        ("هل هذا جيد؟ نعم", "هل هذا جيد؟"),
        ("อาหารอร่อย", "อาหารอร่อย"),
        ("服务员", ""),
    ],
)
def test_answers_in_other_scripts_are_cleaned(read, answer, text):
    assert read("length: {whole_sentences: yes}").clean(answer) == text


# answers that are no text


@pytest.mark.parametrize(
    ("answer", "text", "why"),
    [
        ("A fine film.", "A fine film.", ""),
        ("<think>Sure: a film.</think>\n\nSure, here is one: A fine film.", "A fine film.", ""),
        ("Template opened it.</THINK> A fine film.", "A fine film.", ""),
        (None, "", "refused or filtered"),
        ("", "", "empty"),
        (" \n", "", "empty"),
        ("Sure, here is a review:", "", "empty"),
        ("<think>A fine film.", "", "reasoning without an answer"),
        ("<think>A fine film.</think> ", "", "reasoning without an answer"),
        ("I cannot write a review.", "", "a phrase of `reject`"),
        ("only a piece", "", "no whole sentence"),
        ("... !", "", "no letter or digit"),
        ('"."', "", "no letter or digit"),
        ('"“', "", "no whole sentence"),
    ],
)
def test_why_an_answer_is_no_text(read, answer, text, why):
    book = read("reject: [I cannot]\nlength: {whole_sentences: true}")
    assert book.text_of(answer) == (text, why) and book.clean(answer) == text


def test_nothing_is_left_of_quotes_alone(read):
    assert read("").text_of('""') == ("", "empty") and read("").text_of("“") == ("", "empty")


# templates


def test_a_column_may_have_any_punctuation_but_braces(read):
    for column in ("a:b", "what?", "a!r", "x[0]", "first name", "a.b", "größe", "!s:>10", "100%"):
        book = read(f"init: 'Of {{label.{column}}}, {{{{text}}}}'\nparaphrase: '{{text}}'")
        book.check("paraphrase", [{column: "{v}"}])
        assert book.initial({column: "{v}"}, rng()).text == "Of {v}, {text}"
    for column in ("a{b", "a}b", "{0}"):
        with pytest.raises(InputError, match="has a brace, so no template can name it; rename it"):
            read("init: x\nparaphrase: y").check("paraphrase", [{column: "v"}])


@pytest.mark.parametrize("template", ["{", "}", "a {text", "a text}", "{a{b}}", "{text}}", "{{text}", "{}}"])
def test_a_stray_brace_is_refused(read, template):
    with pytest.raises(InputError, match=r"prompts\.yaml: the template .* has a stray brace"):
        read(f"init: '{template}'").initial({}, rng())
    with pytest.raises(InputError, match=r"uses \{text!r\}, which stands for nothing"):
        read("init: '{text!r}'").initial({}, rng())


def test_a_field_that_is_escaped_draws_nothing(read):
    """{{keyword}} is no keyword, for `use_subcategory` neither."""
    book = read("init: ['{{keyword}} plain', '{keyword}']\nkeywords: [k]")
    assert {book.initial({}, rng(seed)).text for seed in range(9)} == {"k"}


def test_a_list_that_a_template_needs_and_that_has_none_is_refused(read):
    for book in ("init: 'On {keyword}'", "init: 'On {keyword}'\nkeywords: {kind: {film: , food: [soup]}}"):
        with pytest.raises(InputError, match=r"a template uses \{keyword\}, and `keywords` has none"):
            read(f"{book}\nparaphrase: x").check("paraphrase", [{"kind": "film"}])


# prompts.yaml as it is written


def test_values_keep_their_spelling(read):
    book = read(
        "init: {stars: {01: one, 02: two}}\nparaphrase: '{keyword}, {tone}: {text}'\n"
        "keywords: {stars: {01: [02134], 02: [1e3]}}\ntones: [yes, ~, 2024-05-01]\nreject: [off, 0x10]"
    )
    assert book.initial({"stars": "01"}, rng()).text == "one" and book.initial({"stars": "02"}, rng()).text == "two"
    drawn = {book.variation("paraphrase", "x", {"stars": "01"}, rng(seed)).text for seed in range(20)}
    assert drawn == {"02134, yes: x", "02134, 2024-05-01: x"}
    assert "1e3" in book.variation("paraphrase", "x", {"stars": "02"}, rng()).text
    assert book.text_of("It is OFF.")[1] == "a phrase of `reject`"


def test_label_values_match_by_spelling_and_then_by_what_they_mean(read):
    book = read("init: {stars: {5: five, 4.0: four, 01: one, 1: uno, cafe\u0301: c}}")
    for value, text in (
        ("5.0", "five"),
        ("5", "five"),
        ("4", "four"),
        ("01", "one"),
        ("1.0", "uno"),
        ("caf\u00e9", "c"),
    ):
        assert book.initial({"stars": value}, rng()).text == text
    with pytest.raises(InputError, match="stars = '4' is given in several spellings; give it once"):
        read("init: {stars: {4.0: x, 4.00: y}}").initial({"stars": "4"}, rng())
    with pytest.raises(InputError, match="the key '5' is given twice"):
        read("init: {stars: {5: x, 5: y}}")


def test_lengths_are_converted(read):
    text = "length: {min_words: 5, max_words: 1_0, longest: '12', spread: 6, dynamic: No, limit: , whole_sentences: ON}"
    length = read(text).length
    assert (length.min_words, length.max_words, length.longest, length.limit) == (5, 10, 12, None)
    assert length.spread == 6 and length.dynamic is False and length.whole_sentences is True
    assert all(type(n) is int for n in (length.min_words, length.max_words, length.longest))


@pytest.mark.parametrize(
    ("length", "said"),
    [
        ("{min_words: x}", "length holds numbers, and dynamic"),
        ("{min_words: 5.5}", "length holds numbers, and dynamic"),
        ("{min_words: yes}", "length holds numbers, and dynamic"),
        ("{spread: .inf}", "length holds numbers, and dynamic"),
        ("{spread: nan}", "length holds numbers, and dynamic"),
        ("{spread: [1]}", "length holds numbers, and dynamic"),
        ("{dynamic: perhaps}", "length holds numbers, and dynamic"),
        ("{dynamic: 2}", "length holds numbers, and dynamic"),
        ("{min_words: 0}", "length needs 1 <= min_words <= max_words and longest"),
        ("{spread: -1}", "length needs spread >= 0, tokens_per_word > 0 and limit >= 1"),
        ("{limit: 0}", "length needs spread >= 0, tokens_per_word > 0 and limit >= 1"),
        ("5", "expected `key: value` lines"),
    ],
)
def test_a_length_that_is_none_is_refused(read, length, said):
    with pytest.raises(InputError, match=said):
        read(f"length: {length}")


def test_what_is_no_prompt_is_refused(read):
    for text, said in [
        ("init:\n  - Rewrite: {text}", "what begins with 'Rewrite' is no text; put it in quotes"),
        ("init: {kind: [a, b]}", "what depends on 'kind' is a mapping of its values"),
        ("init: {}", "'None' is no label or attribute"),
        ("reject: [I cannot: do]", "reject is a list of phrases"),
        ("init: a\ninit: b", "the key 'init' is given twice"),
        ("[a]", "expected `key: value` lines"),
    ]:
        with pytest.raises(InputError, match=said):
            read(text).initial({"kind": "film"}, rng())


def test_an_empty_key_means_the_default(read):
    book = read("init: x\nsystem:\nkeywords:\nfew_shot:\nreject:\nlength:\ntones: ~")
    assert book == read("init: x") and book.initial({}, rng()).text == "x"
    assert read("init: x\nfew_shot: {init: {kind: {film: }}}").initial({"kind": "film"}, rng()).shots == ()


def test_examples_fit_the_row_that_they_stand_beside(read):
    """Whatever template is drawn for a shot, it names attributes only where the request has them."""
    text = "init: ['of {attribute.p}', plain]\nfew_shot: {init: [{attribute.p: x, answer: a}]}"
    for label, asked, shown in (({}, "plain", "plain"), ({"p": "y"}, "of y", "of x")):
        prompts = [read(text).initial(label, rng(seed)) for seed in range(20)]
        assert {prompt.text for prompt in prompts} == {asked} and {prompt.shots[0][0] for prompt in prompts} == {shown}
