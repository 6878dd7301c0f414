"""The loop of Aug-PE (Xie et al. 2024, Algorithm 1): vote, select, vary.

Every step leaves a file, and a step whose file is there is not done again: a killed run continues where it was, and a
finished run goes on where `epochs` was raised. Private data enter `noisy_histogram` alone, through a mechanism and the
ledger.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from apis.api import Prompt, Shots, TextAPI
from dpsda.attributes.marginals import MARGINALS, Tables
from dpsda.attributes.read_off import agreeing, codes_of, read_off
from dpsda.attributes.release import Rows
from dpsda.augpe import planning
from dpsda.augpe.ballot import Ballot
from dpsda.augpe.labels import labels_of
from dpsda.augpe.options import EXAMPLES, SHOWN_IN, AugPEOptions
from dpsda.augpe.pace import Pace
from dpsda.augpe.population import Fits, Made, Population, Varies, initial, lookahead, prompt_lines, variations
from dpsda.augpe.selection import RULES, select
from dpsda.augpe.voting import Voters
from dpsda.data.attributes import write_columns
from dpsda.errors import InputError
from dpsda.label_counts import LABEL_COUNTS, label_counts
from dpsda.neighbors import require_usable
from dpsda.noisy_histogram import noisy_histogram
from dpsda.privacy.accounting import round_up
from dpsda.privacy.files import write_atomic
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.mechanism import Histogram
from dpsda.runs import RunFolder, read_csv, write_csv
from dpsda.shares import allocate
from dpsda.stages import AUGPE
from dpsda.wording import about

if TYPE_CHECKING:
    import pandas as pd

    from dpsda.data import PrivateCorpus
    from dpsda.data.attributes import Attribute
    from dpsda.embedding import Embeds

# the streams of randomness of one iteration; none of them touches privacy noise
_PROMPTS, _ANSWERS, _SELECTION, _LOOKAHEAD, _ROWS = range(5)


class Prompts(Protocol):
    """What the loop needs of a prompt book; a label is {column: value}, of its row, too, where texts have rows."""

    @property
    def max_tokens(self) -> int: ...

    def initial(self, label: dict[str, str], rng: np.random.Generator) -> Prompt: ...
    def variation(
        self, kind: str, text: str, label: dict[str, str], rng: np.random.Generator, degree: float
    ) -> Prompt: ...
    def examples(self, texts: list[str], labels: list[dict[str, str]], rng: np.random.Generator) -> Shots: ...
    def text_of(self, answer: str | None) -> tuple[str, str]: ...


@dataclass
class Evolution:
    """One Aug-PE run over `corpus`, whose records vote as `voters`. Calling `run` twice is harmless: the second time
    everything is there."""

    corpus: PrivateCorpus
    voters: Voters
    options: AugPEOptions
    public_label_counts: bool
    noise_multiplier: float
    ledger: Ledger
    folder: RunFolder
    api: TextAPI
    book: Prompts
    encoder: Embeds
    seed: int
    rows: Rows | None = None  # that the texts are written to
    samples: Population | None = None  # that it begins with, where prompts alone do not make its first texts
    observe: Callable[[int, list[str]], dict[str, float]] = lambda t, texts: {}  # figures that may be shown
    say: Callable[[str], None] = print
    pace: Pace = field(default_factory=Pace)

    def run(self) -> pd.DataFrame:
        """Evolve up to T = `options.epochs`; what is released: id, parent_id, text, then the label columns, and the
        columns of the attributes."""
        # before anything is spent: does the model answer?
        if self._asks and not self.ledger.charges(AUGPE) and not self.folder.begun():
            first = np.zeros(len(self._attributes), np.int32)
            self.api.check(self.book.initial(self._label(0, first), self._rng(0, _PROMPTS)))
        counts = self._label_counts()
        sizes = [allocate(counts, total) for total in self.options.sizes]
        if self._last_kept() < self.options.epochs:
            self._expectation(counts, sizes)
        kept = self._start(sizes[0])
        begun = self.observe(0, kept.texts)
        for t in range(1, self.options.epochs + 1):
            samples = self.folder.step(t) / "samples.csv"
            if self.ledger.holds(samples):
                kept = self._read(samples)
                self.observe(t, kept.texts)
            else:
                started, asked, before = time.monotonic(), self._asks_at(t), replace(self.pace)
                candidates = self._candidates(t, kept)
                rng = self._rng(t, _SELECTION)
                mode = self.options.select_syn_mode
                noisy = np.zeros(len(candidates))
                if self.options.takes_votes:
                    candidates, noisy = self._noisy_votes(t, candidates, sizes[t])
                    self._tell_hubs(t, noisy)
                kept = candidates.take(
                    select(noisy, candidates.cells, sizes[t], mode, self.options.count_threshold, rng)
                )
                self._store(samples, kept, t)
                took = time.monotonic() - started
                now = self.observe(t, kept.texts)
                shown = [f", {name} {now[name]:.3f} ({begun[name]:.3f} at the start)" for name in now if name in begun]
                self.say(
                    f"iteration {t}/{self.options.epochs}: {len(candidates):,} candidates, {len(kept):,} kept, epsilon "
                    f"{round_up(self.ledger.epsilon())} spent{''.join(shown)}, {took:.0f} s{self._speed(before)}"
                    f"{self._left(t, took, asked)}"
                )
        return self._written(self._saved(kept))

    def _label_counts(self) -> np.ndarray:
        """(cells,) noisy or public counts of the labels; with rows, they are one of the marginals."""
        labelled = bool(self.corpus.spec.labels)
        if self.rows and not (labelled and self.public_label_counts):
            tables = self._tables
            return tables[0,] if labelled else np.ones(1)
        return label_counts(
            self.folder,
            self.ledger,
            AUGPE,
            self.corpus,
            self.noise_multiplier,
            public=self.public_label_counts,
        )

    @functools.cached_property
    def _tables(self) -> Tables:
        assert self.rows is not None

        def codes() -> np.ndarray:
            return codes_of(self.corpus, self._attributes, lambda: self.encoder)

        return self.rows.tables(self.corpus, codes, self._mechanism(MARGINALS))

    def _noisy_votes(self, t: int, candidates: Population, sizes: np.ndarray) -> tuple[Population, np.ndarray]:
        """The candidates of iteration `t` with the labels that they have after its votes, and (M,) their noisy counts;
        of label c, `sizes[c]` are wanted."""
        name, k, labels = planning.votes_name(t), self.options.num_nearest_neighbor, len(self.corpus.spec.cells)
        by_votes = self.options.labels_by_votes
        standing = candidates.under_every_label(labels) if by_votes else candidates
        vectors = functools.cache(lambda: self._lookahead(t, candidates))
        votes = np.empty((0, k), dtype=np.int64)
        if self.ledger.result(name) is None:  # cast before they are reserved: a model or a worker may fail here
            rows = np.tile(vectors(), (labels, 1)) if by_votes else vectors()
            votes = self.voters.vote(self._ballot(rows, standing.cells), k)
        shown = self._frame(standing).drop(columns=["parent_id", "text"]).rename(columns={"id": "candidate_id"})
        noisy = noisy_histogram(
            self.folder,
            self.ledger,
            AUGPE,
            name,
            self.folder.step(t) / "counts.csv",
            self._mechanism(name),
            lambda: votes,
            self.corpus.users,
            shown,
        )
        if not by_votes:
            return candidates, noisy
        noisy = noisy.reshape(labels, len(candidates))
        return replace(candidates, cells=labels_of(vectors(), noisy, sizes)), noisy.sum(axis=0)

    # what is generated

    def _start(self, sizes: np.ndarray) -> Population:
        path = self.folder.step(0) / "samples.csv"
        if self.ledger.holds(path):
            return self._read(path)
        kept, made_of = Population([], [], [], np.empty(0, dtype=np.int64)), list[str]()
        if self.samples is not None:
            kept = self._from_samples(self.samples, sizes)
            made_of = [x.name for x in self.ledger.reservations() if self.ledger.result(x.name)]
        wanted = sizes - np.bincount(kept.cells, minlength=len(sizes))
        if self.options.first_texts != "samples" and wanted.any():
            kept = kept.plus(self._from_prompts(wanted))
        self._store(path, kept, 0, made_of)
        return kept

    def _from_prompts(self, sizes: np.ndarray) -> Population:
        """What the model writes from nothing, a text for each place of each label."""
        rng = self._rng(0, _PROMPTS)
        cells = np.repeat(np.arange(len(sizes)), sizes)
        rows = self.rows.drawn(self._tables, cells, self._rng(0, _ROWS), self.say) if self.rows else None
        started, before = time.monotonic(), replace(self.pace)
        self._begin("start", 0)
        made = initial(
            self._model,
            lambda cell, row: self.book.initial(self._label(cell, row), rng),
            self.book.text_of,
            cells,
            self._seed(0, _ANSWERS),
            rows,
            fits=self._fits,
        )
        if not len(made.texts):
            raise InputError(
                f"the model answered no initial prompt with a text ({made.why()}); check prompts.yaml, --length and "
                "--model_type"
            )
        write_atomic(self.folder.step(0) / "prompts.jsonl", prompt_lines(made.prompts))
        took = time.monotonic() - started
        self.say(
            f"start: {len(made.texts):,} texts from prompts alone, {took:.0f} s{self._speed(before)}"
            f"{self._left(0, took, len(cells))}"
        )
        self._tell_lost(made)
        return made.texts

    def _from_samples(self, samples: Population, sizes: np.ndarray) -> Population:
        """The first samples of each label, as many as there are to be, or all where prompts fill the rest."""
        there = samples.distinct(by_label=not self.options.labels_by_votes)
        kept = there.take(np.concatenate([np.flatnonzero(there.cells == c)[:n] for c, n in enumerate(sizes)]))
        # repeats and empty ones are not among the samples
        if self.options.first_texts == "samples" and len(kept) < 0.9 * sizes.sum():
            raise InputError(
                f"{self.folder.root}: of the {sizes.sum():,} first texts that are wanted, label by label, only "
                f"{len(kept):,} are among the samples; draw more (`dpsda finetune --num_samples`), ask for fewer, or "
                "let prompts fill the rest (--first_texts both)"
            )
        self.say(f"start: {len(kept):,} samples of the generator that was trained here")
        return kept

    def _candidates(self, t: int, kept: Population) -> Population:
        """The population that is voted on at iteration `t`, made from what was kept at t - 1."""
        path = self._candidates_path(t)
        if self.ledger.holds(path):
            return self._read(path)
        keep, times = self.options.keeps(t), self.options.times(t)
        self._begin(f"iteration {t}/{self.options.epochs}" if t <= self.options.epochs else "release", t)
        varying, seed = self._varying(t, _PROMPTS, kept), self._seed(t, _ANSWERS)
        made = variations(self._model, varying, self.book.text_of, kept, times, str(t), seed, self._fits)
        if times and not len(made.texts):
            raise InputError(
                f"the model made no new text of those kept at iteration {t - 1} ({made.why()}), and no vote is spent "
                "on them again; check prompts.yaml, --length and --model_type"
            )
        candidates = kept.plus(made.texts) if keep else made.texts
        candidates = candidates.distinct(by_label=not self.options.labels_by_votes)
        if made.prompts:
            write_atomic(self.folder.step(t) / "prompts.jsonl", prompt_lines(made.prompts))
        self._tell_lost(made)
        self._store(path, candidates, t - 1)
        return candidates

    def _candidates_path(self, t: int) -> Path:
        return self.folder.state / f"candidates-{t}.csv"

    def _saved(self, kept: Population) -> Population:
        """What is released of the texts kept at T: these, or their variations, which a run with more iterations takes
        for its next candidates."""
        mode = self.options.save_syn_mode
        if mode == "selected":
            return kept
        everything = self._candidates(self.options.epochs + 1, kept)
        if mode == "all":
            return everything
        parents = set(kept.ids)
        first = {p: i for i, p in reversed(list(enumerate(everything.parents))) if everything.ids[i] not in parents}
        own = range(len(everything), len(everything) + len(kept))  # for a text that the model did not vary
        return everything.plus(kept).take([first.get(name, i) for name, i in zip(kept.ids, own, strict=True)])

    def _ballot(self, vectors: np.ndarray, cells: np.ndarray) -> Ballot:
        options = self.options
        correction, strength = str(options.hub_correction), float(options.hub_strength or 0)
        return Ballot.of(vectors, cells, options.nn_mode, correction, strength)

    def _lookahead(self, t: int, candidates: Population) -> np.ndarray:
        """(M, D) embeddings of the candidates, or of the mean of K variations of each."""
        degree = self.options.lookahead_degree
        own = self._embed(candidates.texts) if degree == 0 or self.options.lookahead_self else None
        if degree == 0:
            assert own is not None
            return own
        varying, seed = self._varying(t, _LOOKAHEAD), self._seed(t, _LOOKAHEAD)
        ahead = lookahead(self._model, varying, self.book.text_of, candidates, degree, seed)
        total = self._embed(ahead).reshape(len(candidates), degree, -1).sum(axis=1)
        return total / degree if own is None else (total + own) / (degree + 1)

    def _varying(self, t: int, stream: int, kept: Population | None = None) -> Varies:
        """What draws a prompt that varies a text of a label and row; or a prompt for a new text in its place, which
        shows some that were `kept`."""
        rng, kind, degree = self._rng(t, stream), self.options.variation_type, self.options.degree(t)
        shown = {} if kept is None or not self.options.in_context_share else self._examples(t, kept, rng)

        def prompt(text: str, cell: int, row: np.ndarray) -> Prompt:
            label = self._label(cell, row)
            if shown and rng.random() < self.options.in_context_share:
                return replace(self.book.initial(label, rng), shots=shown[cell, text])
            return self.book.variation(kind, text, label, rng, degree)

        return prompt

    def _examples(self, t: int, kept: Population, rng: np.random.Generator) -> dict[tuple[int, str], Shots]:
        """The shots that are shown in the place of each kept text: random ones of its label. Some SHOWN_IN prompts show
        the same, as an engine reads what prompts begin with once for all that begin alike."""
        shown: dict[tuple[int, str], Shots] = {}
        expected = self.options.times(t) * self.options.in_context_share  # prompts by example for each kept text
        size = max(EXAMPLES, round(SHOWN_IN / expected)) if expected else len(kept)
        for cell in np.unique(kept.cells).tolist():
            own = rng.permutation(np.flatnonzero(kept.cells == cell))
            for group in np.array_split(own, math.ceil(len(own) / size)):
                first = group[:EXAMPLES]
                texts, labels = [kept.texts[i] for i in first], [self._label(cell, kept.rows[i]) for i in first]
                shots = self.book.examples(texts, labels, rng)
                shown |= {(cell, kept.texts[i]): shots for i in group}
        return shown

    def _asks_at(self, t: int) -> int:
        """How many answers iteration `t` asks the model for: none where its candidates are there."""
        return 0 if self.ledger.holds(self._candidates_path(t)) else self.options.asks(t)

    def _asks_after(self, t: int) -> int:
        return sum(map(self._asks_at, range(t + 1, self.options.epochs + 2)))

    def _begin(self, step: str, t: int) -> None:
        self.pace.step, self.pace.later = step, self._asks_after(t)

    @functools.cached_property
    def _model(self) -> TextAPI:
        return self.pace.over(self.api)

    def _speed(self, before: Pace) -> str:
        """How fast the model wrote since then, if it was long enough to tell, and somebody counts its tokens."""
        seconds, tokens = self.pace.seconds - before.seconds, self.pace.tokens - before.tokens
        return f" ({tokens / seconds:,.0f} tokens/s)" if seconds > 1 and tokens else ""

    def _left(self, t: int, took: float, asked: int) -> str:
        """About how long the iterations after `t` take, by what each of the `asked` texts took; what private records
        take at first, to be embedded, is not in the start, and is in the first iteration."""
        rest = self._asks_after(t)
        return f", about {about(took * rest / asked)} left" if rest and asked else ""

    def _tell_lost(self, made: Made) -> None:
        if made.lost:
            self.say(f"answers that were no new text, and were asked for again: {made.why()}")

    def _tell_hubs(self, t: int, noisy: np.ndarray) -> None:
        share = planning.top_share(noisy)
        if self.folder.protected and share > planning.HUBS:  # exact votes are private
            self.say(
                f"warning: {share:.0%} of the votes of iteration {t} went to one in a hundred candidates; if the kept "
                "texts are much alike, see --hub_correction (docs/hubs.md), or vary them more"
            )

    # small things

    @property
    def _asks(self) -> bool:
        """Whether the model is asked for anything at all."""
        more = self.options.init_L > 1 or self.options.epochs > 1 or self.options.lookahead_degree > 0
        return self.options.first_texts != "samples" or more or self.options.save_syn_mode != "selected"

    def _embed(self, texts: list[str]) -> np.ndarray:
        rows = self.encoder.embed(texts, private=not self.folder.protected, desc="candidates")
        return require_usable(rows, "the encoder, on the candidates")

    def _expectation(self, counts: np.ndarray, sizes: list[np.ndarray]) -> None:
        if not self.options.takes_votes:
            self.say(f"signal: none is taken ({RULES[self.options.select_syn_mode].about})")
            return
        unit, k = self.ledger.header["unit"], self.options.num_nearest_neighbor
        positive = np.maximum(counts, 0)
        shares = positive / positive.sum() if positive.sum() else np.full(len(counts), 1 / len(counts))
        mechanism = self._mechanism(planning.votes_name(1))
        before = self.options.epochs - 1
        candidates = sizes[before] * (self.options.L if before else self.options.init_L)
        scale = mechanism.scale
        if self.options.labels_by_votes:  # a candidate is ranked by the sum of its counts under all labels
            shares, candidates, scale = np.ones(1), candidates.sum(keepdims=True), scale * math.sqrt(len(counts))
        units, new = self.ledger.header["units"], self.ledger.budget is not None and self._last_kept() < 1
        epochs = self.options.epochs if new else 0
        for line in planning.signal(unit, units, k, shares, candidates, scale, epochs):
            self.say(line)

    def _store(self, path: Path, population: Population, t: int, of: Sequence[str] = ()) -> None:
        """Write texts that were made of the noisy counts up to iteration `t`, or of the releases `of`, and note it."""
        names = (LABEL_COUNTS, MARGINALS, planning.votes_name(t))
        known = list(of) or [name for name in names if self.ledger.result(name)]
        write_csv(path, self._frame(population))
        self.ledger.note(AUGPE, path, of=known)

    def _last_kept(self) -> int:
        return max(
            (t for t in range(self.options.epochs + 1) if (self.folder.step(t) / "samples.csv").exists()), default=-1
        )

    @property
    def _attributes(self) -> tuple[Attribute, ...]:
        """Those of the rows that texts are written to; none where there are no rows."""
        return self.rows.attributes if self.rows else ()

    @property
    def _fits(self) -> Fits | None:
        """Whether texts say enough of what their rows say; None where that is not asked."""
        least, attributes = self.options.agreement, self._attributes
        if not (least and any(attribute.readable for attribute in attributes)):
            return None

        def fits(texts: list[str], codes: np.ndarray) -> np.ndarray:
            said = read_off(attributes, texts, self.encoder, private=not self.folder.protected)
            can, does = agreeing(codes, said, attributes)
            enough: np.ndarray = does.sum(axis=1) >= least * can.sum(axis=1)
            return enough

        return fits

    def _mechanism(self, name: str) -> Histogram:
        marginals = self.rows.marginals if self.rows else None
        return planning.mechanism(name, self.ledger.header["unit"], self.noise_multiplier, self.options, marginals)

    def _label(self, cell: int, row: np.ndarray) -> dict[str, str]:
        """What a prompt may say of a text: its label, and the values of its row."""
        spec = self.corpus.spec
        label = dict(zip(spec.label_columns, spec.cells[cell], strict=True))
        return label | {a.name: a.shown(int(code)) for a, code in zip(self._attributes, row, strict=True)}

    def _frame(self, population: Population) -> pd.DataFrame:
        return population.frame(self.corpus.spec, self._attributes)

    def _written(self, population: Population) -> pd.DataFrame:
        """The same as it is released: numbers and dates in the places of bins."""
        rng = self._rng(self.options.epochs, _ROWS)
        return write_columns(self._frame(population), population.rows, self._attributes, rng)

    def _read(self, path: Path) -> Population:
        return Population.from_frame(read_csv(path), self.corpus.spec, self._attributes)

    def _rng(self, t: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, t, stream])

    def _seed(self, t: int, stream: int) -> int:
        return int(np.random.SeedSequence([self.seed, t, stream]).generate_state(1)[0])
