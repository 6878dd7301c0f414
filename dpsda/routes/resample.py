"""Resampling: from its options to the release of a run whose texts are resampled (Yu et al. 2024, Algorithm 2).

Embeddings and clusters are of synthetic texts alone. Private data enter `_noisy` alone, through a mechanism and the
ledger: one histogram, drawn once. Whatever follows reads noisy counts and synthetic texts, so that other sizes, seeds
and caps cost nothing. The centres are on the disk before the histogram is reserved; it is a histogram over these.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsda import embedding, release, start, summary
from dpsda.budget import multiplier, open_histogram
from dpsda.data import DatasetSpec, load
from dpsda.data.layout import layout
from dpsda.errors import InputError
from dpsda.instruct import candidates, clustering, resampling
from dpsda.instruct.candidates import RESAMPLED, Source
from dpsda.instruct.options import KEPT, ResampleOptions
from dpsda.neighbors import nearest, require_usable, search
from dpsda.noisy_histogram import noisy_histogram
from dpsda.options import ComparedDataOptions, EmbeddingOptions, PrivacyOptions
from dpsda.privacy import certificate
from dpsda.privacy.accounting import round_up, shown
from dpsda.privacy.files import write_atomic
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import Histogram, histogram
from dpsda.privacy.reservation import Reservation
from dpsda.runs import RunFolder, read_csv, read_json, write_csv
from dpsda.stages import CLUSTERS, RESAMPLE
from dpsda.wording import printable

if TYPE_CHECKING:
    import pandas as pd

    from dpsda.data import PrivateCorpus
    from dpsda.data.layout import Layout
    from dpsda.embedding import Embeds

SIGNIFICANT = 3  # standard deviations of noise above which votes are no chance
SHOWN = 5  # clusters that are printed


LABELS = "no private label is read; labels are those of the synthetic texts"


def run(data: ComparedDataOptions, privacy: PrivacyOptions, options: ResampleOptions, embeds: EmbeddingOptions) -> None:
    """One resampling of the run in `options.result_folder`, from its options to its release."""
    root = Path(options.result_folder)
    if options.dry_run:
        budget = f"--noise {privacy.noise:g}" if privacy.epsilon is None else f"--epsilon {privacy.epsilon:g}"
        print(f"would resample {options.synthetic_file or 'the texts'} of {root} by one histogram, within {budget}")
        return
    spec = DatasetSpec.read(data.dataset)
    source = candidates.locate(root, options.synthetic_file, options.synthetic_public, protected=privacy.protected)
    frame = candidates.read(source.path, spec)
    corpus = load(spec, data.split, file=data.train_data_file, share=data.private_share)
    types = layout(spec, corpus.file)
    reference = load(spec, data.reference_split) if data.reference_split else None
    with start.open_run(root, corpus, privacy, LABELS) as (folder, ledger):
        config, free = start.configuration(spec, data, privacy, options, embeds)
        facts = Resampling(
            corpus=corpus,
            source=source,
            frame=frame,
            reference=reference,
            reference_public=data.reference_split in spec.public,
            options=options,
            privacy=privacy,
            config=config,
            may_change=free,
            ledger=ledger,
            folder=folder,
            types=types,
            encoder=lambda: embedding.Encoder(embeds.feature_extractor, device=options.device),
        ).run()
    summary.end(folder, facts)


@dataclass
class Resampling:
    """One run of the stage. Calling `run` again is harmless: what is drawn stays drawn."""

    corpus: PrivateCorpus
    source: Source
    frame: pd.DataFrame  # the candidates, as `candidates.read` gives them
    reference: PrivateCorpus | None  # a split to measure against, and whether its texts are public
    reference_public: bool
    options: ResampleOptions
    privacy: PrivacyOptions
    config: dict[str, Any]
    may_change: set[str]
    ledger: Ledger
    folder: RunFolder
    types: Layout  # of the release
    encoder: Callable[[], Embeds]  # called once, after everything that is quick to check
    say: Callable[[str], None] = print

    def run(self) -> dict[str, Any]:
        """Draw the histogram unless that was done, resample and publish; the certificate."""
        started = time.monotonic()
        frame = self.frame
        clusters, kept = self._sizes(len(frame))
        self._check(clusters)
        noise = self._noise(clusters)
        texts = frame["text"].tolist()
        self.say(f"candidates: {len(texts):,} texts of {self.source.path}")
        rows = self._embed(texts)
        self._agree(clusters, noise, rows)

        mechanism = histogram(self.ledger.header["unit"], noise)
        noisy = self._noisy(mechanism, clusters)
        found, distance = search(rows, self._centres, 1, device=self.options.device)
        cluster = found[:, 0]
        sizes = np.bincount(cluster, minlength=clusters)
        target = resampling.shares(noisy, sizes)
        given = resampling.allocate(target, sizes, kept, self.options.ratio_cap)
        draws = range(self.options.seed, self.options.seed + self.options.draws)
        first, *others = (frame.iloc[resampling.draw(cluster, given, seed)] for seed in draws)
        for seed, other in zip(draws[1:], others, strict=True):
            write_csv(self._place / f"draw-{seed}.csv", other)

        nearby = self._examples(texts, rows, cluster, distance[:, 0], sizes)
        table = self._report(noisy, sizes, target * kept, given, nearby)
        before, after = (resampling.total_variation(target, counts) for counts in (sizes, given))
        self._measure(sizes, given)
        about = self._about(len(frame), kept, clusters)
        if not release.is_published(self.folder, self.ledger, about):
            release.publish(self.folder, self.ledger, first, about, self.types)
        self._tell(table, mechanism)
        if self._shows:
            self.say(f"total variation to the noisy histogram: {before:.4f} before, {after:.4f} after")
        self.say(
            f"resampled: {kept:,} of {len(frame):,} texts asked for, {len(first):,} kept, epsilon "
            f"{round_up(self.ledger.epsilon())} spent, {time.monotonic() - started:.0f} s"
        )
        return dict(read_json(self.folder.shared / certificate.FILE))

    # before anything is drawn

    def _sizes(self, count: int) -> tuple[int, int]:
        """How many clusters, and how many texts are kept; InputError where there are too few candidates for either."""
        clusters = self.options.num_clusters or min(1000, max(2, count // 10))
        kept = self.options.num_samples or max(1, round(KEPT * count))
        if clusters > count:
            raise InputError(f"--num_clusters {clusters}: there are only {count} synthetic texts; ask for fewer")
        if kept > count:
            raise InputError(f"--num_samples {kept}: there are only {count} synthetic texts; ask for fewer")
        return clusters, kept

    def _check(self, clusters: int) -> None:
        """Note what decides the histogram; InputError if one was charged for other settings or texts."""
        stays = self.source.stays
        inside = stays.is_relative_to(self.folder.root)
        self.config |= {
            "num_clusters": clusters,
            "candidates": candidates.digest(self.frame),
            "source": self.folder.relative(stays) if inside else str(stays.absolute()),
            "about": self.source.about,
        }
        if self._charged is None:
            return
        free = {*self.may_change, "prompts.yaml", "label_counts", "about", "source", "candidates"}
        before = self.folder.earlier_config(RESAMPLE, self.config, free)
        if before.get("candidates") != self.config["candidates"]:
            raise InputError(
                f"{self.folder.root}: its histogram was drawn over other texts than those of {self.source.path}; give "
                "these again, or use another --result_folder"
            )

    def _noise(self, clusters: int) -> float:
        """The noise multiplier of the histogram: as it was charged, or as given, or what the budget leaves over.

        A histogram whose noise exceeds its average count would be a waste of the budget, so a budget that asks for it
        is too small: BudgetError.
        """
        if self._charged is not None:
            noise = self._charged.noise_multiplier
            if self.privacy.noise not in (None, noise):
                self.say(f"the histogram was drawn at noise multiplier {noise:g}; it is not drawn again")
            return noise
        if not self.privacy.protected:
            self.say(f"epsilon inf: no noise at all, nothing is protected; everything goes to {self.folder.private}")
            return 0.0
        header = self.ledger.header
        average = header["units"] / clusters
        noise = multiplier(
            self.ledger, self.privacy, lambda noise: open_histogram(self.ledger, CLUSTERS, noise), most=average
        )
        goal = "the epsilon of" if self.privacy.epsilon is None else f"epsilon {self.privacy.epsilon:g} by"
        self.say(
            f"privacy: {goal} noise multiplier {noise:.4f} for one histogram of {clusters:,} clusters, after epsilon "
            f"{round_up(self.ledger.epsilon())} of this run; delta {shown(header['delta'])}"
        )
        self.say(
            f"signal: {header['units']:,} {header['unit']}s vote for {clusters:,} clusters, on average {average:.3g} "
            f"votes each, against noise of standard deviation {noise:.3g}"
        )
        if average < SIGNIFICANT * noise:
            self.say("warning: noise decides much of that histogram; use fewer --num_clusters, or a larger budget")
        return noise

    def _agree(self, clusters: int, noise: float, rows: np.ndarray) -> None:
        """Put on the disk what the histogram will be of; from here on the run is this one."""
        fitted = None
        if self._charged is None:
            fitted = clustering.fit(rows, clusters, self.options.pca_variance, self.options.seed)
        if self.source.stays != self.source.path:
            write_csv(self.source.stays, self.frame)
            self.ledger.note(RESAMPLE, self.source.stays)
        self.ledger.set_budget(self.privacy.epsilon)  # after everything that may refuse the command
        self.folder.keep_config(RESAMPLE, {**self.config, "noise_multiplier": noise})
        if fitted is not None:
            from safetensors.numpy import save

            write_atomic(self._centres_file, save({"centres": fitted}))
            self.ledger.note(RESAMPLE, self._centres_file)

    # what is released

    def _noisy(self, mechanism: Histogram, clusters: int) -> np.ndarray:
        """(K,) noisy counts of the private records by cluster, drawn once."""

        import pandas as pd

        numbers = pd.DataFrame({"cluster": range(clusters)})

        def votes() -> np.ndarray:
            private = clustering.unit(self._encoder.embed(self.corpus.texts, private=True, desc="private records"))
            found = clustering.votes(private, self._centres, self.options.device)
            exact = np.bincount(found[found >= 0], minlength=clusters)
            write_csv(self._exact_file, numbers.assign(records=exact))
            return found

        path, users = self._place / "counts.csv", self.corpus.users
        return noisy_histogram(self.folder, self.ledger, RESAMPLE, CLUSTERS, path, mechanism, votes, users, numbers)

    # what is told of it

    def _report(
        self, noisy: np.ndarray, sizes: np.ndarray, asked: np.ndarray, given: np.ndarray, nearby: list[str]
    ) -> pd.DataFrame:
        """resample/clusters.csv, a cluster a row; `asked` is what its share of the votes would be of the kept texts."""
        import pandas as pd

        columns = {"candidates": sizes, "noisy": noisy, "asked": asked.round(2), "given": given, "nearest": nearby}
        table = pd.DataFrame({"cluster": range(len(noisy)), **columns})
        write_csv(self._place / "clusters.csv", table)
        return table

    def _tell(self, table: pd.DataFrame, mechanism: Histogram) -> None:
        """A few lines on the clusters that ask for more texts than there are, though not by the noise."""
        missed = table[(table.asked > table.candidates) & (table.noisy > SIGNIFICANT * mechanism.scale)]
        if missed.empty or not self._shows:
            return
        lacking = missed.assign(lacks=missed.asked - missed.candidates).sort_values("lacks", ascending=False)
        self.say(
            f"missed by the generator: {len(missed):,} of {len(table):,} clusters ask for more texts than there are; "
            f"all are in {self._place / 'clusters.csv'}"
        )
        for row in lacking.head(SHOWN).itertuples():
            self.say(
                f"  cluster {row.cluster}: {row.noisy:,.0f} noisy votes ask for {row.asked:,.0f} texts, there are "
                f"{row.candidates:,}, like: {printable(row.nearest)[:80]}"
            )

    def _examples(
        self, texts: list[str], rows: np.ndarray, cluster: np.ndarray, distance: np.ndarray, sizes: np.ndarray
    ) -> list[str]:
        """The synthetic text nearest to each centre: its own nearest, or where it has none, anyone's."""
        order = np.lexsort((distance, cluster))
        best = np.full(len(sizes), -1)
        best[sizes > 0] = order[(np.cumsum(sizes) - sizes)[sizes > 0]]
        if (sizes == 0).any():
            best[sizes == 0] = nearest(self._centres[sizes == 0], rows, device=self.options.device)[:, 0]
        return [texts[i] for i in best]

    def _measure(self, before: np.ndarray, after: np.ndarray) -> None:
        """Note the exact total variation of the cluster histograms to those of real texts: to the private ones in
        private/, to a split that is public in resample/."""
        import pandas as pd

        real: list[tuple[str, bool, np.ndarray]] = []
        if self._exact_file.exists():
            real.append(("private", False, read_csv(self._exact_file)["records"].astype(float).to_numpy()))
        if self.reference is not None:
            vectors = self._encoder.embed(self.reference.texts, private=not self.reference_public, desc="reference")
            votes = clustering.votes(clustering.unit(vectors), self._centres, self.options.device)
            counts = np.bincount(votes[votes >= 0], minlength=len(before))
            real.append((str(self.config["reference_split"]), self.reference_public, counts))
        tables: dict[bool, list[dict[str, str]]] = {}
        for name, public, counts in real:
            if counts.sum() == 0:
                continue
            figures = [f"{resampling.total_variation(counts, x):.4f}" for x in (before, after)]
            tables.setdefault(public, []).append({"against": name, "before": figures[0], "after": figures[1]})
            if (public and self.folder.protected) or self.options.log_private:
                self.say(f"total variation to {name} texts: {figures[0]} before, {figures[1]} after")
        for public, lines in tables.items():
            path = self._place / "distances.csv" if public else self.folder.private / "resample_distances.csv"
            write_csv(path, pd.DataFrame(lines))

    def _about(self, count: int, kept: int, clusters: int) -> dict[str, str]:
        cap = "" if self.options.ratio_cap is None else f", no cluster above {self.options.ratio_cap:g} times its share"
        encoder = self.config["feature_extractor"]
        what = f"{kept:,} of {count:,} texts, by {clusters:,} clusters of the embeddings of {encoder}"
        return {
            **self.corpus.spec.told,
            **self.source.about,
            "method": f"{self.source.about.get('method', 'unknown')}, resampled",
            RESAMPLED: f"{what} (Yu et al. 2024, Algorithm 2){cap}; seed {self.options.seed}",
        }

    # small things

    @functools.cached_property
    def _encoder(self) -> Embeds:
        return self.encoder()

    def _embed(self, texts: list[str]) -> np.ndarray:
        """(N, D) the candidates at length one; InputError if one has no direction."""
        rows = self._encoder.embed(texts, private=not self.folder.protected, desc="candidates")
        return clustering.unit(require_usable(rows, f"{self.config['feature_extractor']}, on the synthetic texts"))

    @functools.cached_property
    def _centres(self) -> np.ndarray:
        """(K, D) as they are on the disk."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        self.ledger.holds(self._centres_file)
        try:
            return load(self._centres_file.read_bytes())["centres"]
        except (SafetensorError, KeyError):
            raise InputError(f"{self._centres_file}: damaged; restore it, the histogram is of these clusters") from None

    @property
    def _charged(self) -> Reservation | None:
        """The reservation of the histogram."""
        return self.ledger.reservation(CLUSTERS)

    @property
    def _place(self) -> Path:
        return self.folder.shared / "resample"

    @property
    def _centres_file(self) -> Path:
        return self.folder.state / "centres.safetensors"

    @property
    def _exact_file(self) -> Path:
        return self.folder.private / "cluster_counts.csv"

    @property
    def _shows(self) -> bool:
        """Whether counts may be printed: those of a run without noise are private."""
        return self.folder.protected or self.options.log_private
