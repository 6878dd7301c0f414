"""What NIST SP 800-226 (2025, "Guidelines for Evaluating Differential Privacy Guarantees") has an evaluator ask, and
what a certificate answers.

The questions are put in our words. An answer follows from the other keys of the certificate, and names those that hold
its numbers, so that none stands there twice. Codes mean the same for ever; the wording may change. docs/certificate.md
has the same as a table.
"""

from __future__ import annotations

from typing import Any

GUIDE = "NIST SP 800-226"

# how the part of one unit is bounded, by the mechanism
_BOUNDS = {
    "RecordHistogram": "A record raises a limited number of counts by one each, which is checked before the noise is "
    "drawn.",
    "UserHistogram": "All votes of a user together are a vector that is scaled to length one.",
    "GradientSum": "What a unit adds to the gradient of a step is clipped to a fixed norm.",
    "MaxDivergence": "The model of a shard may only go so far from a public model as the settings say.",
    "Renyi": "The model of a shard may only go so far from a public model as the settings say.",
    "ClippedLogits": "What the model of a shard adds to a public model is clipped to a fixed size.",
    "Published": "The model of a shard is drawn towards a public model as published, which does not bound it.",
}
_HISTOGRAMS = ("RecordHistogram", "UserHistogram")
_TRAINING = ("GradientSum",)
_ANSWERS = ("MaxDivergence", "Renyi", "ClippedLogits", "Published")


def answers(facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The questions by their codes, from the guarantee down to the records, as a certificate answers them."""
    unit, kinds = facts["unit"], list(dict.fromkeys(row["mechanism"] for row in facts["mechanisms"]))
    asked = {
        "privacy_parameters": (
            "How strong is the guarantee?",
            _strength(facts),
            ["statement", "epsilon", "delta", "budget"],
        ),
        "unit_of_privacy": ("Whom does it protect?", _unit(unit), ["unit", "units"]),
        "definition": (
            "Which definition of differential privacy is meant?",
            f"Approximate differential privacy, for data sets that differ by one {unit} added or removed.",
            ["relation", "delta"],
        ),
        "sensitivity": (
            "What was computed from the records, and how far can one unit move it?",
            " ".join(dict.fromkeys(_BOUNDS[kind] for kind in kinds)) or "Nothing was.",
            ["mechanisms"],
        ),
        "composition": (
            "Do the releases add up to it?",
            f"All of this run do, as {facts['accountant']} composes them. Other runs on the same data add to it.",
            ["accountant", "cross_check", "mechanisms", "ledger"],
        ),
        "noise": ("Is the noise that of the proof?", _noise(facts, kinds), ["mechanisms", "limits", "versions"]),
        "utility_and_bias": (
            "What does it cost the data?",
            "That is not told here. What few units have in common is the first to be lost, so small groups may be "
            "missing or drawn wrongly.",
            [],
        ),
        "trust_model": (
            "Who is trusted?",
            "The owner of the run, who holds the records in the clear and draws the noise (the central model), and the "
            "code that ran. Whoever reads the release is not.",
            [],
        ),
        "queries": (
            "Who may ask the data what?",
            "Readers get the answers to a plan of queries, all of which are charged."
            if set(kinds) & set(_ANSWERS)
            else "Nobody may ask: readers get this release, and what they do with it costs nothing more.",
            ["mechanisms"],
        ),
        "side_channels": ("Could something else than the output tell of a record?", "That is not covered.", ["limits"]),
        "security": (
            "Who could reach the records, or what was computed from them without noise?",
            "That is not covered: the owner guards the data, and the run's folder private/.",
            ["limits"],
        ),
        "data_collection": (
            "How were the records collected, and who has seen them since?",
            "That is not covered, and not told: the guarantee is about what is released.",
            [],
        ),
    }
    return {
        code: {"question": question, "answer": answer, "keys": keys} for code, (question, answer, keys) in asked.items()
    }


def _strength(facts: dict[str, Any]) -> str:
    if facts["epsilon"] != "inf":
        return "As epsilon and delta say, for the plan that was charged beforehand, whatever came out of it."
    if "claimed" in facts:
        return "There is none: what a publication claims for the mechanism does not hold."
    return "There is none: the run was made without noise."


def _unit(unit: str) -> str:
    if unit == "user":
        return "A user, with all records of that user. How many records there are is private."
    return "A record. A person with several records is protected less."


def _noise(facts: dict[str, Any], kinds: list[str]) -> str:
    if facts["epsilon"] == "inf" and "claimed" not in facts:
        return "There is no noise."
    said = {
        _HISTOGRAMS: "That of histograms is: integers by an exact sampler.",
        _TRAINING: "That of training is drawn in floating point, which stands in for real numbers.",
        _ANSWERS: "Answers are drawn from laws that are computed in floating point.",
    }
    found = [text for names, text in said.items() if set(names) & set(kinds)]
    return " ".join([*found, "All of it comes from the operating system's entropy; no seed replays it."])
