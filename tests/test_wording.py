"""Values, words, sentences, answers and printed lines in the texts of any script."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import regex

from apis.api import TextAPI
from dpsda import tracking
from dpsda.alignment.answers import ask
from dpsda.alignment.judge import read_verdict
from dpsda.audit import canaries, scores
from dpsda.data import DatasetSpec, load
from dpsda.evaluation import copies, diversity
from dpsda.options import DataOptions, TrackedRunOptions
from dpsda.report.finished import words as lengths
from dpsda.wording import (
    about,
    bytes_beyond_ascii,
    count,
    normalise,
    printable,
    spaced,
    terms,
    whole_sentences,
    without_reasoning,
    words,
)

CHINESE = "这家餐厅的面条非常好吃，服务员也很热情。"


def test_one_label_in_several_spellings():
    assert {normalise(value) for value in (5, 5.0, "5", "5.0", " 5 ", "5.000")} == {"5"}
    assert normalise("-1.0") == "-1" and normalise("+1.0") == "+1" and normalise(4.5) == "4.5"
    for kept in ("v1.0", "50", "01", "02134", "3.10", "Review Stars: 5.0"):
        assert normalise(kept) == kept
    assert normalise("cafe\u0301") == normalise("caf\u00e9 ") == "caf\u00e9"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("你好，世界。", ["你", "好，", "世", "界。"]),
        ("他说「你好」。", ["他", "说", "「你", "好」。"]),
        ("价格5.5元，iPhone15很好！", ["价", "格", "5.5", "元，", "iPhone15", "很", "好！"]),
        ("Hello 世界 and more", ["Hello", " 世", "界", " and", " more"]),
        ("コーヒーを飲む", ["コ", "ー", "ヒ", "ー", "を", "飲", "む"]),
        ("น้ำดี ๒๕ บาท", ["น้", "ำ", "ดี", " ๒๕", " บ", "า", "ท"]),  # a mark belongs to its letter
        ("안녕 하세요", ["안녕", " 하세요"]),  # Korean has spaces
        ("यह हिन्दी है।", ["यह", " हिन्दी", " है।"]),
        ("مرحبا بك؟", ["مرحبا", " بك؟"]),
        (" x  y\n\nz ", [" x", "  y", "\n\nz"]),
        ("好_坏", ["好", "_", "坏"]),
        ("💯 ok", ["💯", " ok"]),
        ("", []),
    ],
)
def test_words_of_all_scripts(text, parts):
    assert words(text) == parts and count(text) == len(parts)
    assert "".join(parts) == text.rstrip()


def test_words_between_white_space_are_as_ever():
    """Of a text without letters of a script without spaces: what str.split makes of it, whatever stands there."""
    rng = np.random.default_rng(0)
    letters = list("ab1.,'’“”é\u00a0 \n\t\x1c\u2003-_अि؟가😀\u200d")
    for _ in range(300):
        text = "".join(rng.choice(letters, 30))
        assert [word.strip() for word in words(text)] == text.split() and count(text) == len(text.split())


def test_terms_are_words_without_punctuation():
    assert terms("It's fine, fine_1!") == ["It", "s", "fine", "fine_1"]
    assert terms("यह हिन्दी है।") == ["यह", "हिन्दी", "है"]  # vowel signs are no letters, but parts of words
    assert terms("می‌خواهم cafe\u0301") == ["می‌خواهم", "cafe\u0301"]
    assert terms("你好，iPhone15！") == ["你", "好", "iPhone15"]


def test_words_are_put_together_as_their_script_does():
    assert spaced(["A", " b.", " c", "A"]) == "A b. c A"
    assert spaced(words("你好，世界。")) == "你好，世界。"
    assert spaced(["iPhone", "好，", " 你", "x"]) == "iPhone好， 你 x"


def test_bytes_beyond_ascii():
    assert [bytes_beyond_ascii(text) for text in ("abc d", "é1", "好 好", "\ud800", "")] == [0, 2, 6, 3, 0]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One is whole. The other", "One is whole."),
        ('He said "yes." And', 'He said "yes."'),
        ("only a piece, 3.5 or v1.2", ""),
        ("你好。再见", "你好。"),
        ("你好!再见", "你好!"),
        ("他说：“好。”然后", "他说：“好。”"),
        ("「行きます。」と言っ", "「行きます。」"),
        ("价格3.5元吗", ""),
        ("It works.很好", "It works."),
        ("３．５です", ""),
        ("هل هذا جيد؟ نعم", "هل هذا جيد؟"),
        ("«هل هذا جيد؟» نعم", "«هل هذا جيد؟»"),
        ("کیا حال ہے۔ میں", "کیا حال ہے۔"),
        ("यह अच्छा है।वह", "यह अच्छा है।"),
        ("Πού είναι; Εκεί", "Πού είναι;"),
        ("a; b", ""),
        ("Բարեւ։ Ինչ", "Բարեւ։"),
        ("ይህ ጥሩ ነው። እና", "ይህ ጥሩ ነው።"),
        ("អរគុណ។ ខ្ញុំ", "អរគុណ។"),
        ("ကောင်းတယ်။ သူ", "ကောင်းတယ်။"),
        ("„Das ist gut.“ Und", "„Das ist gut.“"),
        ("»Det er godt.« Og", "»Det er godt.«"),
        ("อาหารอร่อยมาก", "อาหารอร่อยมาก"),  # Thai has no mark for the end of a sentence
        ("ดีมาก! ขอบคุณครับ", "ดีมาก! ขอบคุณครับ"),
        ("ອາຫານແຊບ", "ອາຫານແຊບ"),
        ("", ""),
    ],
)
def test_sentences_end_in_all_scripts(text, kept):
    assert whole_sentences(text) == kept


def test_the_sentence_marks_are_those_of_unicode():
    """Against a library that has the property: what it calls a mark ends a sentence; the two may be of other years."""
    marks = [chr(code) for code in range(0x11FFF) if regex.match(r"\p{Sentence_Terminal}", chr(code))]
    missing = [mark for mark in marks if whole_sentences(f"a{mark} b") != f"a{mark}"]
    assert len(marks) > 150 and len(missing) < 10, missing


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("<think>a or b</think>\nText.", "Text."),
        ("<Thinking>\na\n</Thinking> Text. <thought>b</thought>", "Text."),
        ("<reasoning effort='low'>a</reasoning>Text.", "Text."),
        ("The template opened it.</think>Text.", "Text."),
        ("<think>a<think>b</think>c</think>Text.", "Text."),
        ("<think>It never came to", ""),
        ("Text? <THINK>No", ""),
        ("<think></think>", ""),
        ("[THINK]a[/THINK]Text.", "Text."),
        ("◁think▷a◁/think▷Text.", "Text."),
        (
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>Text.<|return|>",
            "Text.",
        ),
        ("<|channel|>analysis<|message|>a user who", ""),
        ("analysisWe need a text.assistantfinalText.", "Text."),  # as decoded without its special tokens
        ("analysisWe need a text, so", ""),
        ("I think, and I have thought.", "I think, and I have thought."),
        ("Finally fine; <b>bold</b> reasoning.", "Finally fine; <b>bold</b> reasoning."),
        ("finalScore = analysis(2)", "finalScore = analysis(2)"),
        ("", ""),
    ],
)
def test_reasoning_is_no_answer(answer, text):
    assert without_reasoning(answer) == text


def test_a_verdict_is_read_after_the_reasoning():
    assert read_verdict("<think>B is short, A is better. Or C?</think>B") == -1
    assert read_verdict("<think>A is better, because") is None and read_verdict("A</think>C") == 0


def test_answers_to_instructions_come_without_reasoning():
    class Thinking(TextAPI):
        def generate(self, prompts, seed, on_answer=None):
            return ["<think>hm</think> Yes.", "<think>hm", None, "No."]

    assert ask(Thinking(), ["a", "b", "c", "d"], max_new_tokens=5, seed=0) == [("a", "Yes."), ("d", "No.")]


def test_what_is_printed_stays_on_its_line():
    assert printable("a\n b\tc\x1c\u2028d") == "a b c d"
    assert printable("\x1b[31mred\x1b[0m \x1b]0;title\x07x \x9b1my") == "�red� �x �y"
    assert printable("\u202eevil\u2066\u061c \x00\x7f\ud800 \ufeff\U000e0041") == "�evil�� ��� ��"
    for kept in ("क्\u200dष", "می\u200cخواهم", "👩\u200d👩\u200d👧", "“é” 你好", "🫩 a\u00adb"):
        assert printable(kept) == kept
    assert not set(printable("".join(map(chr, range(0x110000)))).encode("utf-8")) & set(range(32))


def test_long_texts_take_no_time():
    """A hundred thousand characters of Chinese, of blanks, of marks, of brackets: seconds where the time is linear."""
    start = time.monotonic()
    for text in (CHINESE * 5_000, *(part * 10**5 for part in (" ", ".", "。", "「", "<think>", "\x1b[", "\u0301"))):
        count(text), words(text), terms(text), whole_sentences(text), without_reasoning(text), printable(text)
    assert time.monotonic() - start < 20


# where words are counted


def test_lengths_are_counted_in_words_of_the_script():
    assert lengths([CHINESE, "Two words.", "दो शब्द।"]).tolist() == [18, 2, 2]


def test_the_mean_length_that_is_logged(monkeypatch, tmp_path):
    logged = []
    monkeypatch.setattr(tracking, "_start", lambda *options: contextlib.nullcontext(logged.append))
    monkeypatch.setattr(tracking, "spent", lambda ledger, t: 0.0)
    folder = SimpleNamespace(protected=True, shared=tmp_path, private=tmp_path)
    distances = SimpleNamespace(public=False, note=lambda t, texts: None, row=lambda t: {"fid": 0.5})
    run = TrackedRunOptions(result_folder=str(tmp_path), log_online=True, project="p")
    with tracking.tracker(folder, None, run, distances) as observe:
        assert observe(0, [CHINESE, "Two words."]) == {}  # of a private reference
    assert logged[0]["mean_words"] == 10 and "fid" not in logged[0]


def test_bigrams_and_copies_in_chinese():
    """A text that is a part of one without spaces, with other marks: its characters are found, and in order."""
    near, far = scores.bigrams(["餐厅的面条，好吃", "吃好条面的厅餐"], [CHINESE])
    assert near > far
    assert diversity.distinct([CHINESE, CHINESE], 2) == pytest.approx(17 / 34)
    finder = copies.Finder(["餐厅的面条非常好", "面条餐厅好吃非常"])
    finder.read([CHINESE])
    assert finder.overlapping(["餐厅的面条非常好", "面条餐厅好吃非常"]) == 0.5


def test_canaries_in_chinese(tmp_path):
    """They begin as a record does and go on with its characters, without spaces that it does not have."""
    numbers = "零一二三四五六七八九"
    texts = [f"{numbers[i // 10]}{numbers[i % 10]}号的面条好吃，很好。" for i in range(100)]
    (tmp_path / "spec.yaml").write_text("text: text\nsplits: {train: {file: train.csv}}\n", encoding="utf-8")
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "train.csv", index=False)
    spec = DatasetSpec.read(tmp_path)
    canaries.plant(tmp_path, spec, DataOptions(str(tmp_path)), 40, 1)
    made = canaries.read(tmp_path, spec, "train", 1.0)
    for text in made.canaries.texts:
        own = next(words(real) for real in texts if real.startswith(text[:2]))
        assert words(text)[: canaries.PREFIX] == own[: canaries.PREFIX] and " " not in text
        assert len(words(text)) == canaries.PREFIX + canaries.SUFFIX and {*words(text)} <= {*own}
    assert load(spec, "train", file=tmp_path / "private" / "corpus.parquet").num_records == len(made.corpus.texts)


def test_a_time_is_told_as_one_says_it():
    assert [about(x) for x in (0.4, 89, 91, 5399, 5400, 90000)] == ["0 s", "89 s", "2 min", "90 min", "1.5 h", "25.0 h"]
