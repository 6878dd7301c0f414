"""The page for the owner of the data: real texts beside synthetic ones. It never leaves `private/`.

It holds figures and charts of the private records, and some of their texts as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dpsda.attributes.read_off import codes_of, read_off
from dpsda.data.attributes import MISSING, Attribute, row_codes
from dpsda.errors import InputError
from dpsda.options import EmbeddingOptions
from dpsda.report import charts, measurements, neighbourhoods, page, rows
from dpsda.report.finished import FinishedRun, words
from dpsda.report.neighbourhoods import Placed
from dpsda.report.page import esc, power

if TYPE_CHECKING:
    from dpsda.data import DatasetSpec
    from dpsda.embedding import Embeds

REAL = 5000  # records that are embedded and counted


@dataclass(frozen=True)
class _Real:
    """A fixed draw of the private texts, or why there is none."""

    texts: Sequence[str]
    total: int
    why_not: str = ""
    spec: DatasetSpec | None = None
    labels: Sequence[Attribute] = ()  # as attributes, whose values they are
    columns: dict[str, np.ndarray] = field(default_factory=dict)  # of each attribute and label of these, (N,) codes


def build(run: FinishedRun) -> str:
    folder = run.folder
    found = measurements.metrics(folder.shared, public=folder.protected)
    scores = {s.reference: s for s in measurements.downstream(folder.shared, public=folder.protected)}
    if folder.protected:
        found += measurements.metrics(folder.private, public=False)
        scores |= {s.reference: s for s in measurements.downstream(folder.private, public=False)}  # those have all rows
    real = _real(run)
    body = [
        page.header("For the owner of the data", f"{run.data_set}: real against synthetic", _lede(run)),
        page.banner(
            "Computed from private data without noise: do not share.",
            "It shows private texts as they are, and no guarantee covers it. For whoever receives the data there is "
            "release/report.html.",
        ),
        _distances(run, found),
        _copies(found),
        _downstream(run, list(scores.values())),
        *([_lengths(run, real), _rows(run, real), _neighbourhoods(run, real)] if not run.frame.empty else []),
        _tables(found),
    ]
    return page.document(f"Private: {run.data_set}, real against synthetic", body)


def _lede(run: FinishedRun) -> str:
    guarantee = f"epsilon {run.certificate['epsilon']}, delta {power(float(run.certificate['delta']))}"
    made = f"{len(run.frame):,} texts" if len(run.frame) else "a model"
    return f"{esc(run.method)}, {guarantee}; {made}, run {esc(run.name)}."


def _distances(run: FinishedRun, found: list[measurements.Measured]) -> str:
    parts = measurements.distances(found, run.folder.steps())
    return page.section("Distances by iteration", *(parts or [page.paragraph(_nothing("dpsda metric"))]))


def _nothing(command: str) -> str:
    return f"Nothing was measured yet: <code>{command} --result_folder RUN</code> does it."


def _copies(found: list[measurements.Measured]) -> str:
    parts = [f"<h3>{esc(m.title)}</h3>\n{sentences}" for m in found if (sentences := measurements.copies(m))]
    caption = (
        "The shares are those of the last set that was measured. Real texts repeat each other, too: the share among "
        "real texts is what to compare with. Copies can come from the model's own training; the guarantee "
        "does not speak of those."
    )
    return page.section("Copied texts", *parts, page.paragraph(caption, "note") if parts else "")


def _downstream(run: FinishedRun, scores: list[measurements.Measured]) -> str:
    parts = measurements.scores(scores, run.folder.steps())
    caption = page.paragraph(
        "Models are trained on each set and tested on real texts. Rows in the second colour are there to compare with."
    )
    return page.section(
        "What models learn from the texts",
        *([caption, *parts] if parts else [page.paragraph(_nothing("dpsda downstream"))]),
    )


def _tables(found: list[measurements.Measured]) -> str:
    parts = [f"<h3>{esc(measured.title)}</h3>\n{measurements.metric_table(measured)}" for measured in found]
    return page.section("All measurements", *parts)


def _real(run: FinishedRun) -> _Real:
    """The private texts that the run was made from, at most `REAL` of them."""
    from dpsda.data import DatasetSpec, load

    config = run.config
    try:
        spec = DatasetSpec.read(config["dataset"])
        own = {"file": config["train_data_file"], "share": config["private_share"]}
        corpus = load(spec, config["split"], **own, attributes=bool(run.attribute_columns))
    except KeyError as key:
        return _Real([], 0, f"the run's configuration does not say {key}")
    except InputError as error:
        return _Real([], 0, str(error))
    if corpus.fingerprint(run.folder.secret_key()) != run.ledger.header["facts"].get("data"):
        return _Real([], 0, "the private records are not those that the run was made from")
    total = len(corpus.texts)
    drawn = np.sort(np.random.default_rng(0).permutation(total)[:REAL])
    columns = {name: codes[drawn] for name, codes in corpus.columns.items()}
    if spec.labels:
        cells = np.unravel_index(corpus.cells[drawn], [len(label.domain) for label in spec.labels])
        columns |= dict(zip(spec.label_columns, cells, strict=True))
    labels = [Attribute(label.column, "domain", (*label.domain, MISSING)) for label in spec.labels]
    return _Real([corpus.texts[int(i)] for i in drawn], total, "", spec, labels, columns)


def _lengths(run: FinishedRun, real: _Real) -> str:
    title = "How long the texts are"
    if not real.texts:
        return page.section(title, page.paragraph(_left_out(real)))
    lengths = words(real.texts)
    chart = charts.histogram(
        "Words of a text, real and synthetic",
        [("synthetic texts", run.words, "line0"), ("real texts", lengths, "line1")],
        x_name="words",
    )
    return page.section(
        title,
        page.paragraph(
            f"Half of the real texts have {np.median(lengths):.0f} words or fewer, half of the synthetic ones "
            f"{np.median(run.words):.0f}. {_drawn(real)}"
        ),
        charts.legend(("synthetic texts", "line0"), ("real texts", "outline line1")),
        f'<div class="wide">{charts.figure(chart, "Words of a text", "share of the texts of each set")}</div>',
    )


def _left_out(real: _Real) -> str:
    return f"This part is left out, for want of the real texts: {esc(real.why_not)}."


def _drawn(real: _Real) -> str:
    return (
        f"Of the {real.total:,} real texts, a fixed draw of {len(real.texts):,}."
        if len(real.texts) < real.total
        else ""
    )


def _rows(run: FinishedRun, real: _Real) -> str:
    """Labels and attributes: both stand beside the text in a release."""
    title = "Rows" if run.attribute_columns else "Labels"
    if not run.attribute_columns + run.label_columns:
        return ""
    if real.spec is None:
        return page.section(title, page.paragraph(_left_out(real)))
    labels = [label for label in real.labels if label.name in run.frame]
    shown = [*labels, *(real.spec.attributes if run.attribute_columns else ())]
    if not shown:
        return ""
    try:
        sets = _row_sets(run, real, shown)
    except InputError as error:
        return page.section(title, page.paragraph(_without(error)))
    return rows.section(title, shown, *sets)


def row_bars(run: FinishedRun) -> list[str]:
    """A chart of each attribute, in the classes of `rows.LEGEND`. InputError where the records are not there."""
    real = _real(run)
    if real.spec is None:
        raise InputError(real.why_not)
    return rows.bars(real.spec.attributes, *_row_sets(run, real, real.spec.attributes))


def _row_sets(
    run: FinishedRun, real: _Real, attributes: Sequence[Attribute]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, K) codes of the records, of the released rows, and of what their texts say. InputError for want of the
    encoder."""
    encoder = _encoder(run) if any(attribute.says for attribute in attributes) else None
    records = codes_of(real, attributes, lambda: _encoder(run))
    said = read_off(attributes, list(run.frame["text"]), encoder, private=not run.folder.protected)
    return records, row_codes(run.frame, attributes), said


def _neighbourhoods(run: FinishedRun, real: _Real) -> str:
    title, texts, start = neighbourhoods.TITLE, list(run.frame["text"]), run.start_texts()
    if not real.texts:
        return page.section(title, page.paragraph(_left_out(real)))
    try:
        encoder = _encoder(run)
    except InputError as error:
        return page.section(title, page.paragraph(_without(error)))

    def drawn(texts: Sequence[str], *, private: bool) -> Placed:
        return Placed.drawn(texts, lambda some: encoder.embed(some, private=private, desc="map"))

    public = run.folder.protected  # where the run has put its texts
    return neighbourhoods.section(
        drawn(real.texts, private=True),
        drawn(texts, private=not public),
        drawn(start, private=not public) if start else None,
    )


def _encoder(run: FinishedRun) -> Embeds:
    """That of the run; InputError where it cannot be loaded."""
    return _load(str(run.config.get("feature_extractor", EmbeddingOptions().feature_extractor)))


def _without(error: InputError) -> str:
    return f"This part is left out, for want of the encoder: {esc(error)}."


@functools.cache
def _load(name: str) -> Embeds:
    from dpsda.embedding import Encoder

    return Encoder(name)
