"""What the noisy votes of an Aug-PE run tell of each canary, to someone who knows all other records.

The candidates and their noisy counts are released; what the other records vote for, and which candidates a canary would
vote for, follow from the texts. What is left of the counts is r = A x + noise, x in {0, 1} for the canaries that are
in. The score of a canary is its linear least-squares estimate given all iterations and the fair coins that chose x:
with V = A A' / 4 + scale^2 I, x = 1/2 + A' V^-1 (r - A / 2) / 4, here in the form that inverts a matrix of canaries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dpsda.attributes.marginals import MARGINALS
from dpsda.audit.bounds import Array
from dpsda.audit.canaries import Planted
from dpsda.augpe.ballot import Ballot
from dpsda.augpe.population import Population
from dpsda.augpe.voting import vote
from dpsda.embedding import Embeds
from dpsda.label_counts import LABEL_COUNTS
from dpsda.noisy_histogram import counts
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import Histogram, UserHistogram, Votes
from dpsda.runs import RunFolder, whole_csv
from dpsda.stages import AUGPE

LEAST = 0.05  # the noise scale that is taken where there is none


def scores(folder: RunFolder, ledger: Ledger, config: dict[str, Any], planted: Planted, encoder: Embeds) -> Array:
    """(m,) scores of the canaries, the higher the likelier in. A run whose candidates voted by a lookahead has votes
    that do not follow from the texts alone: the caller leaves it out."""
    spec, k = planted.corpus.spec, int(config["num_nearest_neighbor"])
    own = [encoder.embed(corpus.texts, private=True, desc="records") for corpus in (planted.corpus, planted.canaries)]
    others = slice(0, planted.others)
    users = None if planted.corpus.users is None else planted.corpus.users[others]
    m = len(planted.there)
    precision, signal = 4 * np.eye(m), np.zeros(m)
    for release in ledger.reservations(AUGPE):
        if release.kind in (LABEL_COUNTS, MARGINALS) or ledger.result(release.name) is None:
            continue
        histogram = release.mechanism
        assert isinstance(histogram, Histogram)
        path = folder.state / f"candidates-{release.start}.csv"
        made = whole_csv(path, ["id", "parent_id", "text", *spec.label_columns])
        candidates = Population.from_frame(made, spec)
        vectors = encoder.embed(candidates.texts, private=not folder.protected, desc="candidates")
        if config.get("labels_from") == "votes":
            candidates = candidates.under_every_label(len(spec.cells))
            vectors = np.tile(vectors, (len(spec.cells), 1))
        ballot = Ballot.of(
            vectors, candidates.cells, config["nn_mode"], config["hub_correction"], config["hub_strength"]
        )
        cast = [
            vote(v, cells, ballot, k)
            for v, cells in ((own[0][others], planted.corpus.cells[others]), (own[1], planted.canaries.cells))
        ]
        left = counts(ledger.stored(release.name)) - sums(histogram, cast[0], users, len(candidates))
        design = np.stack(
            [
                sums(histogram, votes, np.zeros(len(votes), dtype=np.int64), len(candidates))
                for votes in (cast[1][planted.number == canary] for canary in range(m))
            ],
            axis=1,
        )
        scale = max(histogram.scale, LEAST)
        precision += design.T @ design / scale**2
        signal += design.T @ (left - design.sum(axis=1) / 2) / scale**2
    estimates: Any = np.linalg.solve(precision, signal)
    return estimates


def sums(histogram: Histogram, votes: Votes, users: np.ndarray | None, bins: int) -> Array:
    """(bins,) what some records vote for, without noise, in the unit of the released counts."""
    total = histogram.sums(votes, users if histogram.unit == "user" else None, bins)
    return total / (histogram.grid if isinstance(histogram, UserHistogram) else 1)
