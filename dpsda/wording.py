"""What counts as a value, a word, a sentence and an answer, in the texts of any script.

A word is what stands between white space. In scripts that are written without spaces (Chinese, Japanese, Thai, Lao,
Khmer, Burmese, Tibetan, ...; Korean has spaces) each character is a word, with the marks and the punctuation at it. So
`{words}` in a Chinese template is a number of characters, and a text of both counts its English words and its Chinese
characters.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable

_WHOLE = re.compile(r"([+-]?\d+)\.0+")

# the letters of scripts without spaces, of Unicode 18.0
_UNSPACED = (
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46"  # Thai
    "\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf"  # Lao
    "\u0f00\u0f40-\u0f6c\u0f88-\u0f8c"  # Tibetan
    "\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065\u1066\u106e-\u1070\u1075-\u1081\u108e"  # Myanmar
    "\ua9e0-\ua9e4\ua9e6-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a\uaa7e\uaa7f"
    "\u1780-\u17b3\u17d7\u17dc"  # Khmer
    "\u1950-\u1974\u1980-\u19c9\u1a20-\u1a54\u1aa7"  # Tai Le, New Tai Lue, Tai Tham
    "\uaa80-\uaaaf\uaab1\uaab5\uaab6\uaab9-\uaabd\uaac0\uaac2-\uaadd"  # Tai Viet
    "\U00011700-\U0001171a\U00011740-\U00011746"  # Ahom
    "\u1b05-\u1b33\u1b45-\u1b4c\ua984-\ua9b2"  # Balinese, Javanese
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d\U0001aff0-\U0001b168"  # kana
    "\u3105-\u312f\u31a0-\u31bf"  # Bopomofo
    "\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufad9\U00020000-\U00033479"  # Han
    "\ua000-\ua48c\U00016fe0-\U00018cff\U00018d00-\U00018df2\U0001b170-\U0001b2fb"  # Yi, Tangut, Khitan, Nushu
)
# of these, the letters of scripts without a mark for the end of a sentence: Thai, Lao, Tai Le, New Tai Lue, Tai Viet
_UNMARKED = "\u0e01-\u0edf\u1950-\u19c9\uaa80-\uaadd"
# Sentence_Terminal of Unicode 18.0 but for the full stops below, with the Tibetan shads and the Greek question mark
_MARKS = (
    "\u037e\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u0f0d-\u0f12\u104a\u104b"
    "\u1362\u1367\u1368\u166e\u1735\u1736\u17d4\u17d5\u1803\u1809\u1944\u1945\u1aa8-\u1aab\u1b4e\u1b4f\u1b5a\u1b5b"
    "\u1b5e\u1b5f\u1b7d-\u1b7f\u1c3b\u1c3c\u1c7e\u1c7f\u203c\u203d\u2047-\u2049\u2cf9-\u2cfb\u2e2e\u2e3c\u2e53\u2e54"
    "\u2e60\u2e61\u3002\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f\ua9c8\ua9c9\uaa5d-\uaa5f\uaaf0"
    "\uaaf1\uabeb\ufe12\ufe15\ufe16\ufe56\ufe57\uff01\uff1f\uff61\U00010a56\U00010a57\U00010f55-\U00010f59"
    "\U00010f86-\U00010f89\U00011047\U00011048\U000110be-\U000110c1\U00011141-\U00011143\U000111c5\U000111c6"
    "\U000111cd\U000111de\U000111df\U00011238\U00011239\U0001123b\U0001123c\U000112a9\U000113d4\U000113d5\U0001144b"
    "\U0001144c\U000115c2\U000115c3\U000115c9-\U000115d7\U00011641\U00011642\U0001173c-\U0001173e\U00011944\U00011946"
    "\U00011a42\U00011a43\U00011a9b\U00011a9c\U00011c41\U00011c42\U00011ef7\U00011ef8\U00011f43\U00011f44\U00016a6e"
    "\U00016a6f\U00016af5\U00016b37\U00016b38\U00016b44\U00016d6e\U00016d6f\U00016e98\U0001bc9f\U0001da88"
)
_STOPS = ".!?\u2024\u2026\ufe52\uff0e"  # these stand within numbers and names, too
_CLOSE = "\"')\\]}’”»›」』】〉》〕〗〙〛）］｝｠｣〞〟﹂﹄"
_OPEN = "(\\[{‘“‚„«‹「『【〈《〔〖〘〚（［｛｟｢〝﹁﹃"
_EITHER = "‘“‟«‹"  # which closes in German, Danish, ...

_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")
_UNMARKED_LETTER = re.compile(f"[{_UNMARKED}]")
_ASCII_TERM = re.compile(r"\w+")
_SPACED_WORD = re.compile(r"\s*\S+")
_WORD = re.compile(rf"\s*(?:[^\w\s{_UNSPACED}]*[{_UNSPACED}][^\w\s{_UNSPACED}{_OPEN}]*|[^\s{_UNSPACED}]+)")
_SENTENCE_END = re.compile(
    rf"[{_MARKS}]+[{_CLOSE}]*"
    rf"|(?:[{_STOPS}]|(?<=[\u0370-\u03ff\u1f00-\u1fff]);)[{_CLOSE}{_EITHER}]*(?=\s|$)"
    rf"|(?<![{_STOPS}])[{_STOPS}]+[{_CLOSE}]*(?=[{_UNSPACED}])|(?<=[{_UNSPACED}])[{_STOPS}]+[{_CLOSE}]*"
)

_TAG = r"(?:\w+:)?(?i:think|thinking|thoughts?|reasoning)"
_OPENING = re.compile(rf"<{_TAG}(?:\s[^<>]*)?>|◁think▷|\[THINK\]")
_CLOSING = re.compile(rf"</{_TAG}\s*>|◁/think▷|\[/THINK\]")
# the channels of gpt-oss, with its special tokens, or run together as a decoder leaves it that drops them
_RUN_ON = "(?=[A-Z][a-z']* [a-z])"
_FINAL = re.compile(
    r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>"
    rf"|\A(?:analysis|commentary)(?=\S).*assistantfinal|\Afinal{_RUN_ON}",
    re.DOTALL,
)
_NOT_FINAL = re.compile(rf"<\|channel\|>|\A(?:analysis|commentary){_RUN_ON}")
_ENDED = re.compile(r"<\|(?:return|end|call)\|>.*", re.DOTALL)

_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
)
# controls, marks that turn the direction of writing, tags and other invisible characters, half surrogate pairs; not the
# joiners and hyphens within words, which Persian, Hindi, Khmer and emoji are written with
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\ufffb"
    "\U000e0000-\U000e00ff\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)


def normalise(value: object) -> str:
    """A label value in the one form that its spellings share: 5, "5", 5.0 and " 5 " are the same, and so are a composed
    and a decomposed é. Spaces around it and a decimal part of zeros are dropped."""
    text = unicodedata.normalize("NFC", str(value).strip())
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def words(text: str) -> list[str]:
    """The words of a text, each with the white space before it."""
    return (_WORD if _UNSPACED_LETTER.search(text) else _SPACED_WORD).findall(text.rstrip())


def count(text: str) -> int:
    """The number of words of a text."""
    return len(text.split()) if text.isascii() else len(words(text))


def terms(text: str) -> list[str]:
    """The words of a text without punctuation; underscores count as letters, and marks as a part of theirs."""
    return (_ASCII_TERM if text.isascii() else _term()).findall(text)


def spaced(words: Iterable[str]) -> str:
    """A text of these words, which may come from different places, in their order. A space stands between two of them
    unless the second is of a script without spaces and had none before it."""
    return "".join(
        word.strip() if _UNSPACED_LETTER.search(word) and not word[0].isspace() else f" {word.strip()}"
        for word in words
    ).strip()


def bytes_beyond_ascii(text: str) -> int:
    """The UTF-8 bytes of the characters that are not ASCII: a byte-level tokenizer makes at most as many tokens of
    them."""
    return len(text.encode("utf-8", "surrogatepass")) - len(text.encode("ascii", "ignore"))


def about(seconds: float) -> str:
    """A time as one says it: 40 s, 5 min, 2.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def whole_sentences(text: str) -> str:
    """A text up to the end of its last sentence, "" if it has none. Where a script without a mark for that (Thai, Lao,
    ...) follows, nobody can tell, and the text is kept as it is."""
    end = 0
    for match in _SENTENCE_END.finditer(text):
        end = match.end()
    return text if _UNMARKED_LETTER.search(text, end) else text[:end]


def without_reasoning(text: str) -> str:
    """What a model answers, without what it thinks before that: in tags (<think>, <reasoning>, ..., in any case), or in
    another channel of gpt-oss. "" where it did not get to the end of its thoughts.

    Where the prompt opened the tag, the answer has its end alone: what stands before that is thought, too.
    """
    *thoughts, last = _CLOSING.split(_FINAL.split(text)[-1])
    before = ""
    for thought in thoughts:
        opening = _OPENING.search(thought)
        before = before + thought[: opening.start()] if opening else ""
    answer = before + last
    if _OPENING.search(answer) or _NOT_FINAL.search(answer):
        return ""
    return _ENDED.sub("", answer).strip()


def printable(text: str) -> str:
    """A text for a terminal: on one line, with � for what does not show or would act on what does."""
    return " ".join(_UNSEEN.sub("\ufffd", " ".join(_ESCAPE.sub("\ufffd", text).split())).split())


@functools.cache
def _term() -> re.Pattern[str]:
    codes = [code for code in range(0x300, 0x1F000) if unicodedata.category(chr(code))[0] == "M"]
    runs = [[code for _, code in run] for _, run in itertools.groupby(enumerate(codes), lambda x: x[1] - x[0])]
    marks = "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)
    marks += "\u200c\u200d\U000e0100-\U000e01ef"  # joiners within words, and variants of Han
    return re.compile(rf"[{_UNSPACED}][{marks}]*|[^\W{_UNSPACED}]+(?:[{marks}]+[^\W{_UNSPACED}]*)*")
