"""Whole runs of main.py in other scripts than Latin, by a model that answers with what it was asked to rewrite."""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path

import pandas as pd
import pytest

from apis.api import TextAPI
from dpsda.options import ComparedDataOptions, ModelOptions
from dpsda.routes import augpe
from dpsda.wording import count, whole_sentences
from tests.conftest import options, use

LANGUAGES = {
    "chinese": {
        "column": "评价",
        "labels": ["好", "不好"],
        "init": "写一条关于{keyword}的{label.评价}评，约{words}字。",
        "paraphrase": "用别的话重写这条{label.评价}评，约{words}字：\n{text}",
        "keywords": ["面馆", "书店"],
        "tokens_per_word": 4,
        "sentences": ["这家店的面条很好吃。", "服务员也很热情！", "你觉得很好吗？", "我们等了很久，但是值得。"],
        "letters": "\u4e00-\u9fff",
        "end": "。！？",
    },
    "arabic": {
        "column": "التقييم",
        "labels": ["جيد", "سيئ"],
        "init": "اكتب تقييما عن {keyword}، {label.التقييم}، في {words} كلمة.",
        "paraphrase": "أعد صياغة هذا التقييم ({label.التقييم}) في {words} كلمة:\n{text}",
        "keywords": ["مطعم", "مكتبة"],
        "tokens_per_word": 6,
        "sentences": [
            "كان الطعام لذيذا جدا!",
            "هل أنت سعيد جدا؟",
            "انتظرنا طويلا جدا، والأمر يستحق ذلك.",
            "النادل لطيف جدا.",
        ],
        "letters": "\u0628-\u063a",
        "end": ".!؟",
    },
    "hindi": {
        "column": "राय",
        "labels": ["अच्छी", "बुरी"],
        "init": "{keyword} के बारे में {label.राय} समीक्षा {words} शब्दों में लिखिए।",
        "paraphrase": "इस {label.राय} समीक्षा को {words} शब्दों में फिर से लिखिए:\n{text}",
        "keywords": ["ढाबा", "दुकान"],
        "tokens_per_word": 8,
        "sentences": [
            "खाना बहुत स्वादिष्ट था।",
            "मैं बहुत खुश हूँ।",
            "हमने बहुत इंतज़ार किया, पर ठीक था।",
            "वेटर बहुत दयालु था।",
        ],
        "letters": "\u0915-\u0939",
        "end": "।",
    },
    "english and chinese": {
        "column": "stars 星",
        "labels": ["好", "bad"],
        "init": "Write a review of {keyword} ({label.stars 星}), in {words} 字。",
        "paraphrase": "Rewrite this review ({label.stars 星}), in {words} 字:\n{text}",
        "keywords": ["a noodle bar 面馆", "a shop"],
        "tokens_per_word": 6,
        "sentences": [
            "这家 noodle bar 的面条很好吃。",
            "服务员很 nice！",
            "I like 他们的 beef noodle，很香。",
            "你觉得很 OK 吗？",
        ],
        "letters": "\u4e00-\u9fff",
        "end": "。！？",
    },
}


class Echo(TextAPI):
    """Tells sentences of the language where it is to begin, and goes on after a text until it is cut; asked to rewrite
    one, it answers with that, but for a letter. A token of it is a byte, as in the worst case it is to a model."""

    def __init__(self, language: dict) -> None:
        self.language, self.changes = language, itertools.count(1)

    def generate(self, prompts, seed, on_answer=lambda number, answer: None):
        answers = []
        for i, prompt in enumerate(prompts):
            _, _, source = prompt.text.partition("\n")
            text = self.changed(source) if source else self.begun(random.Random(f"{seed} {i}"))
            answers.append(text.encode()[: prompt.max_new_tokens].decode(errors="ignore"))
            on_answer(i, answers[-1])
        return answers

    def changed(self, source: str) -> str:
        """With another letter of the script in the place of the first one, a new one each time."""
        letters = self.language["letters"]
        first, last = ord(letters[0]), ord(letters[-1])
        return re.sub(f"[{letters}]", lambda old: chr(first + next(self.changes) % (last - first + 1)), source, count=1)

    def begun(self, choice: random.Random) -> str:
        return self.between.join(choice.choices(self.language["sentences"], k=30))

    @property
    def between(self) -> str:
        return " " if "." in self.language["end"] or "।" in self.language["end"] else ""


def data_set(folder: Path, language: dict) -> Path:
    folder.mkdir()
    column, labels = language["column"], language["labels"]
    spec = {
        "text": "text",
        "labels": [{"column": column, "domain": labels}],
        "splits": {"train": "train.csv"},
    }
    prompts = {key: language[key] for key in ("init", "paraphrase", "keywords")}
    length = {
        "min_words": 8,
        "max_words": 90,
        "longest": 150,
        "tokens_per_word": language["tokens_per_word"],
        "whole_sentences": True,
    }
    for name, content in (("spec", spec), ("prompts", {**prompts, "length": length})):  # YAML is more than JSON
        (folder / f"{name}.yaml").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    rows = [(f"{language['sentences'][i % 4]} {i}", labels[i % 2]) for i in range(100)]
    pd.DataFrame(rows, columns=["text", column]).to_csv(folder / "train.csv", index=False, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", LANGUAGES)
def test_texts_keep_their_length_and_their_sentences(tmp_path, monkeypatch, name):
    language = LANGUAGES[name]
    use(monkeypatch, lambda: Echo(language))
    folder = data_set(tmp_path / "data", language)
    chosen = list(options(folder, privacy={"noise": 5.0}, evolution={"epochs": 3, "num_seed_samples": 16}))
    chosen[0], chosen[4] = ComparedDataOptions(str(folder)), ModelOptions(length=2_000)
    root = tmp_path / "run"
    augpe.generate(root, *chosen)

    start = pd.read_csv(root / "0" / "samples.csv", keep_default_na=False)
    targets = [json.loads(line) for line in (root / "0" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(start) == 16 and start["text"].str.endswith(tuple(language["end"])).all()
    assert start["text"].map(count).mean() > 15  # of up to 90, less what is cut off
    assert all(language["tokens_per_word"] * 8 <= target["max_new_tokens"] for target in targets)
    before = start
    for t in range(2, 4):
        samples = pd.read_csv(root / str(t - 1) / "samples.csv", keep_default_na=False)
        made = pd.read_csv(root / "state" / f"candidates-{t}.csv", keep_default_na=False)
        made = made[made["id"].str.startswith(f"{t}-")]
        prompts = [json.loads(line) for line in (root / str(t) / "prompts.jsonl").read_text("utf-8").splitlines()]
        assert len(made) == len(prompts) == 32
        for prompt, text in zip(prompts, made["text"], strict=True):
            asked, _, source = prompt["text"].partition("\n")
            words = max(8, count(source))
            assert f"{words} " in asked or f"{words}字" in asked  # what is asked for is what the source has
            assert count(text) == count(source) and len(text) == len(source) and text != source
            assert whole_sentences(text) == text and text.endswith(tuple(language["end"]))
        assert {*samples["text"].map(count)} <= {*before["text"].map(count)}  # no round makes them shorter
        before = samples
    released = pd.read_csv(root / "release" / "synthetic.csv", keep_default_na=False)
    assert {*released["text"].map(count)} <= {*start["text"].map(count)} and len(released) == 16
