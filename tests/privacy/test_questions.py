"""What a certificate answers to the questions of NIST SP 800-226."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dpsda.privacy import certificate, questions
from dpsda.privacy.ledger import Ledger
from tests.privacy.test_golden import GOLDEN

PAGE = Path(__file__).parents[2] / "docs" / "certificate.md"


@pytest.fixture(params=GOLDEN, ids=lambda path: f"{path.parent.name}-{path.name}")
def facts(request) -> dict[str, Any]:
    """What a certificate says today of a run of every mechanism."""
    return certificate.build(Ledger(request.param, read_only=True))


def test_every_question_has_an_answer_and_its_numbers_stand_elsewhere(facts):
    told = facts["evaluation"]
    assert told["guide"] == "NIST SP 800-226" and "privacy_parameters" in told["answers"]
    for answer in told["answers"].values():
        assert answer["question"].endswith("?") and answer["answer"].endswith(".")
        assert not re.search(r"\d", answer["answer"])
        assert set(answer["keys"]) <= set(facts) - {"evaluation"}


def test_no_answer_promises_what_does_not_hold(facts):
    answers = {code: answer["answer"] for code, answer in facts["evaluation"]["answers"].items()}
    held = facts["epsilon"] != "inf"
    assert answers["privacy_parameters"].startswith("As epsilon and delta say" if held else "There is none")
    assert ("There is no noise" in answers["noise"]) == (not held and "claimed" not in facts)
    trained = any(row["mechanism"] == "GradientSum" for row in facts["mechanisms"])
    assert ("training is drawn in floating point" in answers["noise"]) == (trained and held)
    assert "person with several records" in answers["unit_of_privacy"] or facts["unit"] == "user"


def test_the_page_explains_every_question_and_every_key(facts):
    page = PAGE.read_text(encoding="utf-8")
    rows = {match[1]: match[2] for match in re.finditer(r"^\| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE)}
    for code, answer in questions.answers(facts).items():
        assert rows[code] == answer["question"]
    assert set(facts) | {"about", "files"} <= set(rows)
