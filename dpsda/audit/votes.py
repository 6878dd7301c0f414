"""What the noisy votes of a run tell of each canary, to someone who knows all other records: those of Aug-PE for
candidates, and those for the marginals of attributes.

The candidates and all noisy counts are released; what the other records vote for, and what a canary would vote for,
follow from the records. What is left of the counts is r = A x + noise, x in {0, 1} for the canaries that are
in. The score of a canary is its linear least-squares estimate given all iterations and the fair coins that chose x:
with V = A A' / 4 + scale^2 I, x = 1/2 + A' V^-1 (r - A / 2) / 4, here in the form that inverts a matrix of canaries.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dpsda.attributes.marginals import MARGINALS, Marginals
from dpsda.attributes.read_off import codes_of
from dpsda.audit.bounds import Array
from dpsda.audit.canaries import Planted
from dpsda.augpe.ballot import Ballot
from dpsda.augpe.population import Population
from dpsda.augpe.voting import vote
from dpsda.data import PrivateCorpus
from dpsda.embedding import Embeds
from dpsda.label_counts import LABEL_COUNTS
from dpsda.noisy_histogram import counts
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import Histogram, UserHistogram, Votes
from dpsda.runs import RunFolder, read_json, whole_csv
from dpsda.stages import AUGPE

LEAST = 0.05  # the noise scale that is taken where there is none


def scores(
    folder: RunFolder, ledger: Ledger, config: dict[str, Any], planted: Planted, encoder: Callable[[str | None], Embeds]
) -> Array:
    """(m,) scores of the canaries, the higher the likelier in; `encoder` loads one by its name. A run whose candidates
    voted by a lookahead has votes that do not follow from the texts alone: the caller leaves it out."""
    others = slice(0, planted.others)
    users = None if planted.corpus.users is None else planted.corpus.users[others]
    m = len(planted.there)
    precision, signal = 4 * np.eye(m), np.zeros(m)

    @functools.cache
    def own() -> _Embedded:
        reads, both = encoder(config.get("feature_extractor")), (planted.corpus, planted.canaries)
        return _Embedded(reads, [reads.embed(corpus.texts, private=True, desc="records") for corpus in both])

    for release in ledger.reservations():
        if ledger.result(release.name) is None:
            continue
        if release.kind == MARGINALS:
            records, canaries = _in_marginals(read_json(folder.state / f"{release.stage}.json"), planted, encoder)
        elif release.stage == AUGPE and release.kind != LABEL_COUNTS:
            records, canaries = _for_candidates(folder, release.start, config, planted, own())
        else:
            continue
        histogram, noisy = release.mechanism, counts(ledger.stored(release.name))
        assert isinstance(histogram, Histogram)
        left = noisy - sums(histogram, records[others], users, len(noisy))
        design = np.stack(
            [
                sums(histogram, votes, np.zeros(len(votes), dtype=np.int64), len(noisy))
                for votes in (canaries[planted.number == canary] for canary in range(m))
            ],
            axis=1,
        )
        scale = max(histogram.scale, LEAST)
        precision += design.T @ design / scale**2
        signal += design.T @ (left - design.sum(axis=1) / 2) / scale**2
    estimates: Any = np.linalg.solve(precision, signal)
    return estimates


@dataclass(frozen=True, eq=False)
class _Embedded:
    """The encoder of Aug-PE, and its vectors (n, D) of the records and of the canaries."""

    encoder: Embeds
    vectors: list[Array]


def _for_candidates(
    folder: RunFolder, t: int, config: dict[str, Any], planted: Planted, own: _Embedded
) -> tuple[Votes, ...]:
    """What the records and the canaries vote for in iteration `t` of Aug-PE."""
    spec = planted.corpus.spec
    made = whole_csv(folder.state / f"candidates-{t}.csv", ["id", "parent_id", "text", *spec.label_columns])
    candidates = Population.from_frame(made, spec)
    vectors = own.encoder.embed(candidates.texts, private=not folder.protected, desc="candidates")
    if config.get("labels_from") == "votes":
        candidates = candidates.under_every_label(len(spec.cells))
        vectors = np.tile(vectors, (len(spec.cells), 1))
    ballot = Ballot.of(vectors, candidates.cells, config["nn_mode"], config["hub_correction"], config["hub_strength"])
    k, cells = int(config["num_nearest_neighbor"]), (planted.corpus.cells, planted.canaries.cells)
    return tuple(vote(rows, of, ballot, k) for rows, of in zip(own.vectors, cells, strict=True))


def _in_marginals(
    config: dict[str, Any], planted: Planted, encoder: Callable[[str | None], Embeds]
) -> tuple[Votes, Votes]:
    """What they vote for in the marginals of a stage with this configuration."""
    spec = planted.corpus.spec
    name = config.get("row_encoder") or config["feature_extractor"]  # of fine-tuning, which embeds nothing else
    marginals = Marginals.of(spec, int(config["marginals"]))

    def cast(corpus: PrivateCorpus) -> Votes:
        codes = codes_of(corpus, spec.attributes, lambda: encoder(name))
        return marginals.votes(marginals.variables(corpus.cells, codes))

    return cast(planted.corpus), cast(planted.canaries)


def sums(histogram: Histogram, votes: Votes, users: np.ndarray | None, bins: int) -> Array:
    """(bins,) what some records vote for, without noise, in the unit of the released counts."""
    total = histogram.sums(votes, users if histogram.unit == "user" else None, bins)
    return total / (histogram.grid if isinstance(histogram, UserHistogram) else 1)
