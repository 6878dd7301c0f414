"""The page for whoever receives the data: what it is, what is guaranteed, and the texts to browse.

It is built from what lies outside `private/` alone, so it is covered by the run's guarantee like the texts themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dpsda.augpe.planning import top_share
from dpsda.privacy import accounting, certificate
from dpsda.report import charts, measurements, page
from dpsda.report.finished import FinishedRun
from dpsda.report.page import esc, percent, power
from dpsda.runs import whole_csv

if TYPE_CHECKING:
    import pandas as pd

    from dpsda.privacy.reservation import Reservation

MOST = 2000  # texts that a page holds
BARS = 12  # releases that have a bar each
# the kinds of releases, by their names in a ledger, which stay: how a page calls them, and the number of the first one
KINDS = {
    "label_counts": ("Counts of each label", None),
    "marginals": ("Counts of each value, and of pairs", None),
    "votes": ("Votes for the nearest texts, iteration", 0),
    "steps": ("Training of the model, steps", 1),
    "clusters": ("Counts near each cluster of texts", None),
    "answers": ("Answers", 1),
}


def build(run: FinishedRun) -> str:
    public_metrics = measurements.metrics(run.folder.shared, public=run.folder.protected)
    public_scores = measurements.downstream(run.folder.shared, public=run.folder.protected)
    body = [
        _header(run),
        _warning(run),
        _what(run),
        _guarantee(run),
        _spend(run),
        _not_protected(run),
        *([_samples(run), _lengths(run), _votes(run)] if not run.frame.empty else []),
        _distances(run, public_metrics),
        _downstream(run, public_scores),
    ]
    return page.document(f"Synthetic text: {run.data_set}", body)


def _header(run: FinishedRun) -> str:
    method = esc(run.certificate["about"].get("method", "a method of this project"))
    lede = (
        f"{len(run.frame):,} texts that a language model wrote, made to resemble the data set {esc(run.data_set)} by "
        f"{method}."
    )
    if run.frame.empty:
        lede = f"A model that was trained on the data set {esc(run.data_set)} by {method}."
    kind = "A model" if run.frame.empty else "Synthetic text"
    guarded = "with a privacy guarantee" if run.folder.protected else "without any protection"
    return page.header(f"{kind} {guarded}", run.data_set, lede)


def _warning(run: FinishedRun) -> str:
    if run.folder.protected:
        return ""
    why = (
        "This run was made without noise (epsilon = inf)." if run.guaranteed else "What this run claims does not hold."
    )
    return page.banner(
        "Nothing is protected: treat this page as private.",
        f"{why} Its texts, and every figure on this page, may tell who or what is in the private data.",
    )


def _what(run: FinishedRun) -> str:
    about = {name: str(value) for name, value in run.certificate["about"].items()}
    order = dict.fromkeys(name for name in ("data set", "method", "model", "encoder", "iterations") if name in about)
    pairs = [(name[:1].upper() + name[1:], about[name]) for name in (order | about)]
    if not run.frame.empty:
        pairs += [("Texts", f"{len(run.frame):,}"), ("Columns", ", ".join(run.frame.columns))]
    return page.section("What it is", page.facts(pairs))


def _guarantee(run: FinishedRun) -> str:
    facts = run.certificate
    unit, delta = esc(facts["unit"]), float(facts["delta"])
    if not run.guaranteed:
        return page.section(
            "The guarantee",
            page.paragraph(f"<strong>None that is verified.</strong> {esc(facts['statement'])}"),
            page.paragraph(esc(certificate.LIMITS["claimed"])),
        )
    if not math.isfinite(run.epsilon):
        return page.section("The guarantee", page.paragraph(f"<strong>None.</strong> {esc(facts['statement'])}"))
    who = "one record" if unit == "record" else f"one {unit}, with all records of that {unit}"
    figures = page.figures(
        [
            ("epsilon", f"{run.epsilon:g}", "how much may show; smaller protects more"),
            ("delta", power(delta), f"what may come on top: 1 in {math.floor(1 / delta):,}"),
            (f"protected {unit}s", f"{int(facts['units']):,}", f"each for itself: {who}"),
        ]
    )
    factor = _factor(run.epsilon)
    certainty = _at_most(_right_guesses(run.epsilon, delta))
    found = _at_most(_found(run.epsilon, delta, 0.01))
    lines = [
        f"<strong>What is compared.</strong> Take {who}. Imagine the same run twice, on data with that {unit} and on "
        "data without, all else being equal. The guarantee bounds how far apart the two runs' results can be.",
        f"<strong>Odds.</strong> Whatever somebody looks for in the release, it is at most {factor} times as likely "
        f"with the {unit} as without, or the other way round, but for an additional probability of {power(delta)}.",
        f"<strong>A guess at even odds.</strong> Somebody who knows everything else, every other {unit} included, "
        f"and who holds it for equally likely that this one is in or not, can be right in at most {certainty} of the "
        "cases after seeing the release (a blind guess: 50 %).",
        "<strong>An accusation that has to be safe.</strong> Somebody whose method names only 1 in 100 of the "
        f"{unit}s that are not in the data finds at most {found} of those that are.",
    ]
    return page.section(
        "The guarantee",
        figures,
        page.paragraph(esc(facts["statement"])),
        page.bullets(lines),
        page.paragraph(
            "These are bounds against the best possible attacker, with any side knowledge and any computer, and "
            "they hold whatever is done with the texts later. What is true of the population at large may still be "
            "learnt: that is what the data are for.",
            "note",
        ),
        page.paragraph(
            "Who has the run folder recomputes all of this with <code>dpsda verify RUN</code>.",
            "note",
        ),
    )


def _at_most(share: float) -> str:
    """A bound in percent, rounded up."""
    return percent(math.ceil(1000 * share) / 1000)


def _factor(epsilon: float) -> str:
    """e to the epsilon, rounded up."""
    if epsilon > 30:
        return f"e^{epsilon:g} (so much that it bounds nothing)"
    factor = math.exp(epsilon)
    digits = 2 if factor < 10 else 1 if factor < 1000 else 0
    return f"{math.ceil(factor * 10**digits) / 10**digits:,.{digits}f}"


def _right_guesses(epsilon: float, delta: float) -> float:
    """The most that a guess at even odds can be right: 1/2 + TV/2, with TV <= (e^eps - 1 + 2 delta) / (e^eps + 1)."""
    inverse = math.exp(-epsilon)
    return min(1.0, (1 + delta * inverse) / (1 + inverse))


def _found(epsilon: float, delta: float, wrong: float) -> float:
    """The most that a test can find, of what is there, at this share of false alarms (Kairouz et al. 2015)."""
    upper = math.exp(min(epsilon, 700.0)) * wrong + delta
    return min(1.0, upper, 1 - math.exp(-epsilon) * (1 - delta - wrong))


def _spend(run: FinishedRun) -> str:
    caption = "These figures were taken, without noise, from the private data."
    if run.folder.protected:
        labels = run.certificate.get("facts", {}).get("labels", "none")
        what = "answers and noisy figures" if run.answered else "noisy figures"
        caption = f"Only these {what} were taken from the private data. Labels: {esc(labels)}."
    model = "The model is only asked for text, and sees no private record."
    if run.answered:
        model = "Models were trained on private records, each on a part of them, and are not released: every token of "
        model += "the texts was drawn from a mixture of them with a public model."
    if run.trained:
        model = "The model was trained on private records"
        model += ": what it learnt of them are noisy sums of clipped gradients." if run.folder.protected else "."
    chart, table = _spend_by_release(run), _mechanisms(run)
    return page.section(
        "What was released of the private data",
        page.paragraph(f"{caption} {model}"),
        chart,
        page.more("How the noise of each was drawn", table) if chart else table,
    )


def _mechanisms(run: FinishedRun) -> str:
    def cell(value: object) -> str:
        return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    keys = ("releases", "what", "mechanism", "noise_multiplier", "l2_sensitivity", "scale")
    names = ["releases", "what", "mechanism", "noise multiplier", "L2 sensitivity", "noise scale"]
    rows = [[cell(row.get(key)) for key in keys] for row in run.certificate["mechanisms"]]
    if any("settings" in row for row in run.certificate["mechanisms"]):
        names.append("bounds")
        for shown, row in zip(rows, run.certificate["mechanisms"], strict=True):
            shown.append(certificate.strength(row) if "settings" in row else "")
    return page.table(names, rows) if rows else page.paragraph("No release: nothing was asked of the private data.")


def _spend_by_release(run: FinishedRun) -> str:
    """What each release added to epsilon, in the order of the ledger; nothing where there is no end to it."""
    if not run.certificate["mechanisms"] or not 0 < run.epsilon < math.inf:
        return ""
    budget, delta = run.certificate["budget"], float(run.certificate["delta"])
    rows: list[tuple[str, float, float]] = []
    events: list[accounting.Event] = []
    for name, charges in _alike(run.ledger.charges()):
        events += [charge.event for charge in charges if charge.event is not None]
        rows.append((name, rows[-1][2] if rows else 0.0, accounting.round_up(accounting.epsilon(events, delta))))
    limit = run.epsilon if budget is None else max(run.epsilon, float(budget))
    title, allowed = (
        "Epsilon that each release added",
        "" if budget is None else f", of the {budget:g} that were allowed",
    )
    chart = charts.spans(title, rows, limit, lambda value: f"{value:.4f}")
    caption = (
        "Each bar is one release, and its length is what it added to epsilon. Together they have spent "
        f"{run.epsilon:g}{allowed}. Several releases lose less than the sum of each alone, so a bar depends on those "
        "before it."
    )
    return (
        page.paragraph(caption) + f'<div class="wide">{charts.figure(chart, title, "in the order of the ledger")}</div>'
    )


def _alike(charges: Sequence[Reservation]) -> list[tuple[str, list[Reservation]]]:
    """What is shown as one release, with its name: all of a kind that follow each other, as a training is stored in
    parts; the votes of every iteration, where they are few."""
    few = len(charges) <= BARS
    found = []
    for _, group in itertools.groupby(charges, lambda x: x.name if few and x.kind == "votes" else x.kind):
        some = list(group)
        name, counted_from = KINDS.get(some[0].kind, (some[0].kind, None))
        if counted_from is not None:
            first, last = (n + counted_from for n in (some[0].start, some[-1].stop - 1))
            name += f" {first:,} to {last:,}" if last > first else f" {first:,}"
        found.append((name, some))
    return found


def _not_protected(run: FinishedRun) -> str:
    lines = [esc(line).replace("`", "") for line in run.certificate["not_protected"]]
    split = run.evaluation().get("selected_on_private")
    if split:
        lines.append(
            f"Models of the downstream evaluation were selected on the private split {esc(split)}: the figures of that "
            "evaluation are not covered by the guarantee."
        )
    return page.section("What is not protected", page.bullets(lines))


def _samples(run: FinishedRun) -> str:
    some, words = _evenly(run)
    cut = (
        f"{len(some):,} of {len(run.frame):,} texts are shown here, evenly over the labels. "
        if len(some) < len(run.frame)
        else ""
    )
    shown = ["text", *run.label_columns, *run.attribute_columns]
    columns = [*shown, "words"]
    rows = [[*map(str, row), int(n)] for row, n in zip(some[shown].itertuples(index=False), words, strict=True)]
    heads = "".join(
        f'<th scope="col"{" class=number" if name == "words" else ""}><button type="button">{esc(name)}</button></th>'
        for name in columns
    )
    browser = (
        '<div id="samples">\n<div class="controls">'
        '<label>Search the texts<input type="search" id="search" autocomplete="off"></label></div>\n'
        f"<table><thead><tr>{heads}</tr></thead><tbody></tbody></table>\n"
        '<p class="pager"><button type="button" id="previous">Previous</button><button type="button" id="next">Next'
        '</button><span id="shown" aria-live="polite"></span></p>\n</div>'
    )
    return page.section(
        "The texts",
        page.paragraph(f"{cut}All are in synthetic.csv, beside this page.", "note"),
        "<noscript><p>To browse them here, the page's script has to run.</p></noscript>",
        browser,
        page.json_block("samples-data", {"columns": columns, "rows": rows}),
    )


def _evenly(run: FinishedRun) -> tuple[pd.DataFrame, np.ndarray]:
    """At most `MOST` texts, in turn from every label; and their numbers of words."""
    frame, labels = run.frame, run.label_columns
    turn = frame.groupby(labels).cumcount().to_numpy() if labels else np.arange(len(frame))
    kept = np.argsort(turn, kind="stable")[:MOST]
    return frame.iloc[kept], run.words[kept]


def _lengths(run: FinishedRun) -> str:
    words = run.words
    low, middle, high = np.quantile(words, [0.1, 0.5, 0.9])
    chart = charts.histogram("Words of a synthetic text", [("synthetic texts", words, "line0")], x_name="words")
    caption = f"Half of the texts have {middle:.0f} words or fewer; the middle 80 % have {low:.0f} to {high:.0f}."
    return page.section(
        "How long the texts are",
        page.paragraph(caption),
        f'<div class="wide">{charts.figure(chart, "Words of a text", "share of the texts")}</div>',
    )


def _votes(run: FinishedRun) -> str:
    if run.trained and not run.folder.steps():
        return ""
    heading = "How the votes gathered"
    shares = [(t, *share) for t in run.folder.steps() if (share := _concentration(run, t)) is not None]
    if not shares:
        if not run.voted:
            why = "The texts of this run were kept at random, as a control: there were no votes to show."
        else:
            why = "The folder of this run holds no votes to show."
        return page.section(heading, page.paragraph(why))
    steps = [t for t, *_ in shares]
    chart = charts.lines(
        "Share of the positive noisy votes by iteration",
        [
            charts.Line("the top tenth", [(float(t), tenth) for t, tenth, _, _ in shares], look="line0"),
            charts.Line("the top hundredth", [(float(t), top) for t, _, top, _ in shares], look="line1"),
            charts.Line("the kept texts", [(float(t), kept) for t, *_, kept in shares], look="line2"),
        ],
        x_name="iteration",
        x_ticks=charts.iteration_ticks(steps),
        shown=percent,
        from_zero=True,
    )
    vote, noise = "votes", ""
    if run.folder.protected:
        vote = "noisy votes"
        noise = (
            " Pure noise, without any vote, would give the top tenth about 44 %: where candidates have few votes "
            "each, a share near that says little."
        )
    return page.section(
        heading,
        page.paragraph(
            f"Every private {esc(run.certificate['unit'])} votes for the candidate texts that are nearest to its "
            f"own. The chart shows which share of all positive {vote} went to the tenth of the candidates with the "
            "most votes, to the hundredth of them, and to the texts that were kept. At 10 % for the top tenth, all "
            "candidates would be equally near to the private data; the higher it is, the more the votes agree. A "
            "hundredth with much of the votes are hubs, near to everything: texts that are varied from them grow "
            f"alike.{noise}"
        ),
        charts.legend(
            ("the top tenth of the candidates", "line0"),
            ("the top hundredth", "line1"),
            ("the texts that were kept", "line2"),
        ),
        f'<div class="wide">{charts.figure(chart, f"Share of the positive {vote}")}</div>',
    )


def _concentration(run: FinishedRun, t: int) -> tuple[float, float, float] | None:
    """The shares of the positive noisy votes of the top tenth, the top hundredth and the kept texts; None where nothing
    was counted."""
    path = run.folder.step(t) / "counts.csv"
    if not path.is_file():
        return None
    found = whole_csv(path, ["candidate_id", "noisy"])  # a candidate may stand under more than one label
    counts = found["noisy"].astype(float).groupby(found["candidate_id"], sort=False).sum()
    votes = np.maximum(counts.to_numpy(), 0.0)  # the ledger vouches for the file
    if not votes.sum() > 0:
        return None
    kept = set(whole_csv(run.folder.step(t) / "samples.csv", ["id"])["id"])
    mine = votes[counts.index.isin(kept)].sum()
    return top_share(votes, 10), top_share(votes, 100), float(mine / votes.sum())


def _distances(run: FinishedRun, found: list[measurements.Measured]) -> str:
    parts = measurements.distances(found, run.folder.steps())
    caption = (
        "Measured against texts that are public, so that these figures cost no privacy." if run.folder.protected else ""
    )
    return page.section("How near to real text", page.paragraph(caption) if caption and parts else "", *parts)


def _downstream(run: FinishedRun, found: list[measurements.Measured]) -> str:
    parts = measurements.scores(found, run.folder.steps())
    caption = "Models are trained on each set and tested on real texts."
    return page.section("What models learn from the texts", page.paragraph(caption) if parts else "", *parts)
