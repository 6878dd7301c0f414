"""Attacks on what a run released, a step each; each says whether a claim is refuted."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from apis.engines import ENGINES
from dpsda import release
from dpsda.arg_utils import typed
from dpsda.attributes import marginals
from dpsda.audit import bounds, canaries, mechanisms, scores, votes
from dpsda.audit.bounds import Array
from dpsda.audit.canaries import Planted
from dpsda.audit.mechanisms import Finding
from dpsda.audit.options import MechanismOptions, MembershipOptions, PlantOptions, ScoreOptions
from dpsda.data import DatasetSpec, load
from dpsda.devices import pick_device
from dpsda.embedding import Embeds
from dpsda.errors import InputError
from dpsda.options import DataOptions, EmbeddingOptions
from dpsda.privacy import certificate
from dpsda.privacy.accounting import round_up, shown
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import GradientSum, Histogram
from dpsda.privacy.mixture import Mixture
from dpsda.privacy.reservation import Mechanism
from dpsda.runs import RunFolder, read_table, write_json
from dpsda.start import check_apart

FILE, MEMBERSHIP = "audit.json", "membership.json"
PRIVATE = "keep it private, it was computed from private data without noise"


def mechanism(options: MechanismOptions) -> bool:
    """Attack every mechanism of a run's ledger alone; whether a claim is refuted. Reads no private data."""
    ledger = Ledger(RunFolder.existing(Path(options.result_folder)).root, read_only=True)
    delta = float(ledger.header["delta"])
    found: list[Finding] = []
    for attacked in _attacks(ledger, delta, options.failure):
        found += attacked
    if not found:
        raise InputError(f"{options.result_folder}: its ledger has no release with noise, there is nothing to attack")
    print(f"{'mechanism':<16} {'delta':>9} {'claimed':>9} {'at least':>9}   attack")
    for finding in found:
        claimed, least = round_up(finding.claimed, 2), _least(finding.bound.epsilon)
        how = f"REFUTED, {finding.bound.how}" if finding.caught else finding.bound.how
        print(f"{finding.mechanism:<16} {shown(finding.delta):>9} {claimed:>9.2f} {least:>9.2f}   {how}")
    return any(finding.caught for finding in found)


def _attacks(ledger: Ledger, delta: float, failure: float) -> Iterator[list[Finding]]:
    """One attack a kind of release. Releases that are equal in everything but their name are attacked together."""
    alike: dict[Mechanism, int] = {}  # how many answers, steps or releases each one was for
    whole: Mechanism
    for charge in ledger.charges():
        match charge.mechanism:
            case GradientSum() as sums:  # the intervals of a training are one
                whole, count = dataclasses.replace(sums, steps=1), sums.steps
            case Mixture() as answers:
                whole, count = answers, charge.stop - charge.start
            case counts if isinstance(counts, Histogram):
                whole, count = counts, 1
            case other:
                raise InputError(f"{ledger.path}: no attack is known on {charge.name}, which is of {other}")
        alike[whole] = alike.get(whole, 0) + count
    failure /= max(1, len(alike))
    for mechanism, count in alike.items():
        if isinstance(mechanism, Mixture):
            yield mechanisms.answers(mechanism, min(count, mechanisms.QUERIES), delta)
        elif mechanism.noise_multiplier == 0:
            continue
        elif isinstance(mechanism, GradientSum):
            yield mechanisms.gradients(dataclasses.replace(mechanism, steps=count), delta, failure)
        else:
            yield mechanisms.histogram(mechanism, count, delta, failure)


def plant(data: DataOptions, options: PlantOptions) -> bool:
    """Write a corpus with canaries, for any route to be run on."""
    spec = DatasetSpec.read(data.dataset)
    if options.repeats > 1 and not spec.user:
        raise InputError(f"--repeats is for users, and {spec.folder / 'spec.yaml'} names no user column")
    check_apart(Path(options.output), spec, data.train_data_file)
    path = canaries.plant(Path(options.output), spec, data, options.canaries, options.repeats)
    unit = "user" if options.repeats > 1 else "record"
    print(f"planted: run a route with --train_data_file {path} --privacy_unit {unit}, then `{typed('audit score')}`")
    return False


def score(options: ScoreOptions) -> bool:
    """Guess from what a run released which canaries it was made on; whether its epsilon is refuted, if shown."""
    folder = RunFolder.existing(Path(options.result_folder))
    ledger, config = Ledger(folder.root, read_only=True), folder.config()
    if options.certify:
        certificate.verify(folder.root)  # before an hour of scores
    spec = DatasetSpec.read(config["dataset"])
    has_rows = ledger.result(marginals.MARGINALS) is not None
    planted = canaries.read(Path(options.planted), spec, config["split"], config["private_share"], attributes=has_rows)
    if planted.corpus.fingerprint(folder.secret_key()) != ledger.header["facts"]["data"]:
        raise InputError(f"{folder.root}: was not made on the records of {options.planted}; give --train_data_file")
    one = len(planted.number) == len(planted.there)
    if one != (ledger.header["unit"] == "record"):
        unit, here, repeats = ("user", "one record", "2 or more") if one else ("record", "a user's several", "1")
        raise InputError(
            f"{folder.root}: protects a {unit}, and a canary here is {here}; plant with --repeats {repeats}"
        )
    found = _scores(folder, ledger, config, planted, options.device)
    claimed, delta = ledger.epsilon(), float(ledger.header["delta"])
    result: dict[str, Any] = {
        "canaries": len(planted.there),
        "claimed": claimed if math.isfinite(claimed) else "inf",
        "delta": delta,
        "failure": options.failure,
        "scores": {},
    }
    refuted = False
    for name, values in found.items():
        bound = bounds.from_guesses(values, planted.there, delta, options.failure / len(found))
        refuted |= bound.epsilon > claimed
        result["scores"][name] = {**asdict(bound), **asdict(scores.attack(values, planted.there))}
    write_json(folder.private / FILE, result)
    if options.log_private:
        print(f"claimed: epsilon {round_up(claimed)} at delta {shown(delta)}; {len(planted.there)} canaries")
        print(f"{'score':<10} {'at least':>9} {'at most':>9} {'AUC':>6} {'TPR at 1% FPR':>14}")
        for name, row in result["scores"].items():
            print(
                f"{name:<10} {_least(row['epsilon']):>9.2f} {row['most']:>9.2f} {row['auc']:>6.3f} {row['hits']:>14.3f}"
            )
    print(f"{folder.private / FILE}: {PRIVATE}")
    if options.certify:
        release.add_audit(folder, _certified(result))
        print(f"{folder.shared / certificate.FILE}: says what was found")
    return refuted and options.log_private


def _least(bound: float) -> float:
    """A lower bound as it is shown: rounded down."""
    return math.floor(bound * 100) / 100


def _certified(result: dict[str, Any]) -> str:
    """What an audit found, for a certificate. No ledger covers it: the guesses know the other records' votes."""
    name, best = max(result["scores"].items(), key=lambda item: item[1]["epsilon"])
    return (
        f"{result['canaries']:,} made-up records were in the data or not by coin flips, and guessed from what was "
        f"released ({', '.join(result['scores'])}): epsilon is at least {_least(best['epsilon']):g} "
        f"(by {name}, confidence {1 - result['failure']:g}); perfect guesses would have shown {best['most']:.2f}. "
        "This was computed from private data without noise, and is told on the owner's word."
    )


def membership(options: MembershipOptions) -> bool:
    """How well the records that a run was made on are told from others: from its synthetic texts; and by its generator
    as it was before, which says whether that had seen them."""
    folder = RunFolder.existing(Path(options.result_folder))
    ledger, config = Ledger(folder.root, read_only=True), folder.config()
    spec, rng = DatasetSpec.read(config["dataset"]), np.random.default_rng(options.seed)
    if options.reference_split == config["split"] and not config["train_data_file"]:
        raise InputError(f"--reference_split {config['split']}: is what the run was made on; name another split")
    private = load(spec, config["split"], file=config["train_data_file"], share=config["private_share"])
    if private.fingerprint(folder.secret_key()) != ledger.header["facts"]["data"]:
        raise InputError(f"{folder.root}: the private records are not those that it was made on; restore their file")
    sides = [_some(corpus.texts, options.texts, rng) for corpus in (private, load(spec, options.reference_split))]
    texts, there = [*sides[0], *sides[1]], np.repeat([True, False], [len(side) for side in sides])
    found = _from_texts(folder, config, texts, options.device)
    name = config.get("model_type")  # none where only texts of others were resampled
    if name and ENGINES[config.get("api", "HFGPT")].loads and config.get("task") != "classifier":
        from dpsda.audit import likelihood

        found["before"] = likelihood.knows(name, texts, pick_device(options.device))
    result = {name: asdict(scores.attack(values, there)) for name, values in found.items()}
    write_json(folder.private / MEMBERSHIP, {"members": len(sides[0]), "others": len(sides[1]), "scores": result})
    if options.log_private:
        print(f"{len(sides[0])} private records against {len(sides[1])} of {options.reference_split}")
        print(f"{'score':<10} {'AUC':>6} {'TPR at 1% FPR':>14}")
        for name, row in result.items():
            print(f"{name:<10} {row['auc']:>6.3f} {row['hits']:>14.3f}")
    print(f"{folder.private / MEMBERSHIP}: {PRIVATE}")
    return False


def _some(texts: Sequence[str], number: int, rng: np.random.Generator) -> list[str]:
    rows = rng.choice(len(texts), min(number, len(texts)), replace=False)
    return [texts[int(row)] for row in rows]


def _scores(
    folder: RunFolder,
    ledger: Ledger,
    config: dict[str, Any],
    planted: Planted,
    device: str,
) -> dict[str, Array]:
    """(m,) scores of the canaries by what they are read from."""
    found = {}
    voted = any(path.is_file() for path in (folder.step(1) / "counts.csv", folder.shared / marginals.FILE))
    if voted and config.get("lookahead_degree", 0) == 0:
        found["votes"] = votes.scores(folder, ledger, config, planted, lambda name: _encoder(name, device))
    if config.get("task") == "generator" and any((folder.state / name).is_dir() for name in ("adapter", "model")):
        from dpsda.audit import likelihood

        gains = likelihood.scores(folder, config, planted, pick_device(device))
        found["weights"] = scores.by_canary(gains, planted.number)
    if (folder.release / "synthetic.parquet").is_file():
        for name, values in _from_texts(folder, config, planted.canaries.texts, device).items():
            found[name] = scores.by_canary(values, planted.number)
    if not found:
        raise InputError(f"{folder.root}: nothing was released that a canary could be seen in; has the run finished?")
    return found


def _from_texts(folder: RunFolder, config: dict[str, Any], texts: Sequence[str], device: str) -> dict[str, Array]:
    """Scores of private texts from the synthetic ones that a run released."""
    path = folder.release / "synthetic.parquet"
    if not path.is_file():
        raise InputError(f"{folder.root}: no synthetic text is released here; has the run finished?")
    synthetic = read_table(path, lambda names: [name for name in names if name == "text"])["text"].tolist()
    encoder = _encoder(config.get("feature_extractor"), device)
    mine = encoder.embed(texts, private=True, desc="private texts")
    theirs = encoder.embed(synthetic, private=not folder.protected, desc="synthetic texts")
    return {"words": scores.bigrams(texts, synthetic), "embedding": scores.similarity(mine, theirs)}


@functools.cache
def _encoder(name: str | None, device: str) -> Embeds:
    from dpsda.embedding import Encoder

    return Encoder(name or EmbeddingOptions().feature_extractor, device=device)
