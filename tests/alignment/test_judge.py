"""Win rates: the arithmetic, both orders, and judges behind a server that fails or in this process."""

import json
import subprocess
import sys

import numpy as np
import pytest

from apis import azure_api
from apis.azure_api import AzureAPI
from apis.endpoints import Endpoint
from dpsda.alignment.judge import (
    AskingJudge,
    Comparison,
    Judged,
    Verdict,
    WinRate,
    Z,
    compare,
    read_verdict,
    win_rate,
)
from dpsda.alignment.likelihood import LikelihoodJudge
from dpsda.alignment.models import load
from tests.alignment.conftest import ROOT


class Scripted:
    """Prefers by a rule; notes what it was shown."""

    first_share = 0.5

    def __init__(self, rule):
        self.rule, self.shown = rule, []

    def verdicts(self, comparisons):
        self.shown += comparisons
        return [Verdict(self.rule(c)) for c in comparisons]


def longer(c: Comparison) -> int:
    return (len(c.first) > len(c.second)) - (len(c.first) < len(c.second))


ROWS = [("q1", "long answer", "short"), ("q2", "x", "yyy"), ("q3", "ab", "cd"), ("q4", "same", "same")]


def test_both_orders_are_shown_and_equal_answers_are_a_tie_unasked():
    judge = Scripted(longer)
    judged = compare(judge, ROWS)
    assert [pair.outcome for pair in judged] == [1, -1, 0, 0]
    assert sorted((c.instruction, c.first) for c in judge.shown) == sorted(
        (q, answer) for q, a, b in ROWS[:3] for answer in (a, b)
    )
    assert all({c.first, c.second} == {a, b} for c in judge.shown for q, a, b in ROWS if q == c.instruction)
    assert win_rate(judged) == WinRate(wins=1, ties=2, losses=1) and win_rate(judged).rate == 0.5


def test_a_judge_that_looks_at_the_place_only_makes_ties():
    assert win_rate(compare(Scripted(lambda c: 1), ROWS)) == WinRate(0, 4, 0)


def test_disagreement_a_tie_of_one_order_and_a_missing_verdict():
    def pair(one, other):
        return Judged("q", "a", "b", one, other)

    outcomes = {(1, 1): 1, (-1, -1): -1, (1, -1): 0, (1, 0): 0, (0, -1): 0, (0, 0): 0, (None, 1): None, (1, None): None}
    for verdicts, outcome in outcomes.items():
        assert pair(*verdicts).outcome == outcome
    assert win_rate([pair(1, 1), pair(None, 1), pair(1, -1)]) == WinRate(1, 1, 0)


@pytest.mark.parametrize(("wins", "ties", "losses"), [(30, 0, 34), (29, 10, 25), (0, 0, 12), (12, 0, 0), (0, 7, 0)])
def test_the_interval_is_where_the_score_test_turns(wins, ties, losses):
    """Wilson: its ends are the p with |rate - p| = z sqrt(p (1 - p) / n), which is not how it is computed."""
    found = WinRate(wins, ties, losses)
    n = wins + ties + losses
    assert found.rate == pytest.approx((wins + ties / 2) / n)
    low, high = found.interval
    assert -1e-12 <= low <= found.rate + 1e-12 and found.rate - 1e-12 <= high <= 1
    for end in (low, high):
        assert (found.rate - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / n, abs=1e-12)
    assert low < high


def test_the_interval_covers():
    """4,000 draws at p = .4, n = 64: the share that is covered is .95 within .02; a false alarm in 10^7."""
    wins = np.random.default_rng(0).binomial(64, 0.4, 4000)
    covered = [low <= 0.4 <= high for low, high in (WinRate(int(w), 0, 64 - int(w)).interval for w in wins)]
    assert 0.93 < np.mean(covered) < 0.97


def test_the_line():
    assert WinRate(29, 10, 25).line("resampled", "unfiltered") == (
        "win rate resampled vs unfiltered: 0.53 [0.41, 0.65], 64 prompts, 10 ties"
    )


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("A", 1),
        (" B.", -1),
        ("C", 0),
        ("**A**", 1),
        ("[[B]]", -1),
        ("Answer B is better", -1),
        ("The verdict: A", 1),
        ("I compared A and B, and choose B", -1),
        ("Both are fine", None),
        ("Absolutely", None),
        ("", None),
        (None, None),
    ],
)
def test_verdicts_in_words(answer, verdict):
    assert read_verdict(answer) == verdict


SERVER = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
import fault_server
def reply(prompt):
    first, second = prompt.split("[Answer A]\\n")[1].split("\\n\\n[Verdict]")[0].split("\\n\\n[Answer B]\\n")
    return "A" if len(first) > len(second) else "B" if len(second) > len(first) else "I cannot say"
fault_server.reply = reply
asyncio.run(fault_server.main(json.loads(sys.argv[2])))
"""


def test_a_judge_behind_a_server_with_faults(tmp_path, monkeypatch):
    """Every pair gets the verdicts that it would get without faults; what the server refuses counts for nothing."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(azure_api, "BACKOFF", lambda state: 0.001)
    monkeypatch.setattr(azure_api, "PAUSE", 0.01)
    log = tmp_path / "log.jsonl"
    settings = {"rates": {"429": 0.1, "500": 0.1, "truncated": 0.1}, "log": str(log)}
    command = [sys.executable, "-c", SERVER, str(ROOT / "tests/apis"), json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            end = Endpoint(f"http://127.0.0.1:{int(server.stdout.readline())}/v1", "")
            api = AzureAPI("judge", endpoints=[end], temperature=0.0, progress=False, timeout=5)
            rows = [(f"q{i}", "a" * (1 + i % 7), "b" * (1 + i % 5)) for i in range(30)]
            judge = AskingJudge(api, seed=0)
            judged = compare(judge, rows)
        finally:
            server.kill()
    faults = [json.loads(line)["fault"] for line in log.read_text().splitlines()]
    assert any(faults) and api.retries > 0
    for i, pair in enumerate(judged):
        size = (1 + i % 7) - (1 + i % 5)
        assert pair.outcome == ((size > 0) - (size < 0) if size else None)
    assert judge.first_share == 0.5 and win_rate(judged).ties == 0


@pytest.fixture
def likelihood(tiny, training):
    model, tokenizer = load(tiny, training())
    return LikelihoodJudge(model, tokenizer, max_length=256)


def test_the_likelihood_of_a_verdict_is_the_models(likelihood):
    """Against the full model, one text at a time, without padding."""
    import torch

    rows = [Comparison(f"w{i}", "w1 " * (i + 1), "w2 w3") for i in range(9)]
    odds = likelihood.log_odds(rows)
    for row, value in zip(rows, odds, strict=True):
        ids = torch.tensor([likelihood._tokens(row)])
        with torch.inference_mode():
            logp = likelihood.model(input_ids=ids).logits[0, -1].log_softmax(-1)
        a, b = (likelihood.tokenizer.convert_tokens_to_ids(letter) for letter in "AB")
        assert value == pytest.approx(float(logp[a] - logp[b]), abs=1e-4)


def test_a_preference_for_a_place_is_taken_off(likelihood, monkeypatch):
    """+3 for whatever stands first hides every answer in the raw verdicts, and none in the calibrated ones."""
    good = {"w1": 1.0, "w2": -1.0, "w3": 0.5}
    monkeypatch.setattr(
        likelihood, "log_odds", lambda rows: np.array([3 + good[c.first] - good[c.second] for c in rows])
    )
    judged = compare(likelihood, [("q", "w1", "w2"), ("q", "w2", "w3"), ("q", "w3", "w1")])
    assert likelihood.first_share == 1.0
    assert [pair.outcome for pair in judged] == [1, -1, -1]
    assert [pair.margin for pair in judged] == pytest.approx([2.0, -1.5, -0.5])


def test_a_long_answer_is_cut_and_the_question_kept(likelihood):
    ids = likelihood._tokens(Comparison("w7", "w1 " * 400, "w2"))
    text = likelihood.tokenizer.decode(ids)
    assert len(ids) <= 256 and "w7" in text and "w2" in text
    model = likelihood.model  # which has no positions for more
    long = LikelihoodJudge(model, likelihood.tokenizer, max_length=10**6)._tokens(Comparison("w7", "w1 " * 9000, "w2"))
    assert len(long) <= model.config.max_position_embeddings
