"""The pages of finished runs: what stands in them, and above all what does not."""

from __future__ import annotations

import contextlib
import html
import json
import math
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dpsda import wording
from dpsda.attributes import release
from dpsda.dry_run import HashEncoder
from dpsda.errors import InputError
from dpsda.privacy import certificate
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.ledger import Ledger
from dpsda.privacy.reservation import Reservation
from dpsda.report import charts, owner, released
from dpsda.report.page import esc, number, power
from dpsda.routes import augpe
from tests.conftest import options, use, write_rows
from tests.report.conftest import HOSTILE, write_downstream, write_metrics
from tests.test_rows import AnyRows, made_up

ROOT = Path(__file__).parents[2]
MARKER = re.compile(r"[0-9a-f]{32}")


def words(path: Path) -> str:
    """What a page says, without its markup, style and script."""
    content = re.sub(r"<(style|script)\b.*?</\1>", " ", path.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", content)).split())


class Attributes(HTMLParser):
    """The names of the attributes of a page's elements, as a browser reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.update(name for name, _ in attrs)


def samples(path: Path) -> list[list]:
    data = re.search(r'<script type="application/json" id="samples-data">(.*?)</script>', path.read_text())[1]
    return json.loads(data)["rows"]


# one run


def test_a_run_gets_its_two_pages(make_run, pages):
    run = make_run()
    public, private = pages(run)
    assert public == run / "release" / "report.html" and private == run / "private" / "report.html"
    assert oct(private.stat().st_mode & 0o777) == "0o600"
    told, facts = words(public), json.loads((run / "release" / "certificate.json").read_text())
    assert facts["statement"] in told and all(line.replace("`", "") in told for line in facts["not_protected"])
    order = ["What it is", "The guarantee", "What was released", "What is not protected", "The texts"]
    order += ["How long the texts are", "How the votes gathered", "How near to real text"]
    places = [told.index(f" {title} ") for title in order]
    assert places == sorted(places)
    assert "Against the split test (public)" in told  # what the run noted itself, as the reference is public
    assert (
        f"{released._factor(facts['epsilon'])} times" in told
        and "RecordHistogram" in told
        and "do not share" not in told
    )
    rows = samples(public)
    assert len(rows) == 60 and all(row[-1] == wording.count(row[0]) for row in rows)
    owned = words(private)
    assert "Computed from private data without noise: do not share." in owned
    assert "of the variance" in owned and "Half of the real texts have" in owned


def test_hostile_texts_are_inert(make_run, pages):
    run = make_run()
    for path in pages(run):
        page = path.read_text()
        assert "alert(" not in re.sub(r'<script type="application/json".*?</script>', "", page)
        assert page.count("<script") == page.count("</script>") == 2
        # a text may say "onerror" (a neighbourhood is named by its words), and no element
        assert "<img" not in page and not any(name.startswith("on") for name in Attributes(page).names)
        assert not re.search("[\x00\u2028\u2029\u202e]", page)
    texts = " ".join(row[0] for row in samples(run / "release" / "report.html"))
    assert "<script>alert('ran')</script>" in texts and "\U0001f980" in texts and HOSTILE[1] in texts


def test_a_hostile_label_and_certificate_are_inert(make_run, pages):
    run = make_run()
    about = json.loads((run / "release" / "certificate.json").read_text())["about"]
    about["model"] = about["data set"] = "<script>alert('ran')</script>"
    csv = run / "release" / "synthetic.csv"
    csv.write_text(csv.read_text().replace("id,parent_id,text,stars", "id,parent_id,text,<b>stars"))
    with contextlib.closing(Ledger(run)) as ledger:
        certificate.publish(ledger, certificate.build(ledger), about)
    write_metrics(run / "metrics_<b>.csv", "0.7", **{"<i>odd": "0.3"})
    for page in pages(run):
        assert "<script>alert" not in page.read_text() and not re.search("<(img|b>|i>)", page.read_text())


def test_no_page_fetches_anything(make_run, pages, tmp_path):
    runs = make_run("one"), tmp_path / "two"
    shutil.copytree(*runs)
    for path in [*pages(*runs), *pages(*runs, output=tmp_path / "out.html")]:
        page = path.read_text()
        assert not re.search(
            r"""\b(src|href|action|srcset|data)\s*=\s*["']?\s*(https?:|//)|url\(|@import|fetch\(""", page
        )
        assert "default-src 'none'" in page and "<link" not in page


@pytest.mark.parametrize("unit", ["record", "user"])
def test_no_private_value_reaches_the_released_page(make_run, pages, dataset, unit):
    draw = random.Random(1)
    markers = [f"{draw.getrandbits(128):032x}" for _ in range(120)]
    rows = [
        {"text": f"A film {marker} to see.", "stars": "low", "kind": "film", "author": f"author {i % 30}"}
        for i, marker in enumerate(markers)
    ]
    write_rows(dataset / "train.csv", rows)
    run = make_run(privacy={"noise": 3.0, "privacy_unit": unit})
    secret = f"{draw.getrandbits(128):032x}"
    write_metrics(run / "private" / "metrics_train.csv", "0.731931", secret=secret)
    write_downstream(
        run / "private" / "downstream_test.csv", "0.617617", ("majority", "real", "real, all", "0", "1", "2")
    )
    public, private = pages(run)
    assert not MARKER.findall(public.read_text().replace(run.name, "")) and "0.732" not in public.read_text()
    assert "0.618" not in public.read_text() and "split train" not in words(public)
    assert "0.732" in private.read_text() and "0.618" in private.read_text() and secret in private.read_text()
    assert any(marker in private.read_text() for marker in markers) and "private texts as they are" in words(private)


def test_the_released_page_does_not_read_private_files(make_run, pages, dataset, monkeypatch):
    """It is the same, byte for byte, where the whole folder private/ and the data are gone."""
    run = make_run()
    write_metrics(run / "private" / "metrics_train.csv", "0.7")
    before = pages(run)[0].read_bytes()
    shutil.rmtree(run / "private")
    shutil.rmtree(dataset)
    public, private = pages(run)
    assert public.read_bytes() == before
    assert "left out" in words(private) and "no data set" in words(private)


def test_measurements_are_shown_where_they_belong(make_run, pages):
    run = make_run()
    write_metrics(run / "metrics_test.csv", "0.717171")
    write_metrics(run / "private" / "metrics_train.csv", "0.727272")
    write_downstream(run / "downstream_test.csv", "0.637637", ("majority", "0", "1", "2"))
    write_downstream(
        run / "private" / "downstream_test.csv", "0.637637", ("majority", "real", "real, all", "0", "1", "2")
    )
    (run / "state" / "evaluation.json").write_text('{"selected_on_private": "dev"}')
    public, private = map(words, pages(run))
    assert "0.717" in (run / "release" / "report.html").read_text() and "0.638" in public
    assert "all real texts" not in public and "all real texts" in private and "majority" in public
    assert "selected on the private split dev" in public
    assert "lower is better" in public and "new_one" in public and "mauve: too few texts" in public
    assert "12.5 % of the synthetic texts are a text of the reference" in private
    assert "real against real" in private and "0.727 ± 0.010" in private
    assert private.count("Against the split test") == 4 and "Nothing was measured" not in private  # once a section


def test_a_run_without_noise_is_all_private(make_run, pages):
    run = make_run(privacy={"epsilon": math.inf})
    public, private = pages(run)
    assert public == run / "private" / "release" / "report.html" and private == run / "private" / "report.html"
    assert oct(public.stat().st_mode & 0o777) == "0o600"
    assert "Nothing is protected" in words(public) and " times" not in words(public) and "None." in words(public)
    assert [path.name for path in run.iterdir()] == ["private"]


def test_the_control_has_no_votes_to_show(make_run, pages):
    run = make_run(evolution={"select_syn_mode": "random"})
    public, private = map(words, pages(run))
    assert "kept at random" in public and "Share of the positive" not in public and "random selection" in private


def test_no_labels_and_one_text(make_run, pages, dataset):
    (dataset / "spec.yaml").write_text("text: text\nsplits: {train: {file: train.csv}, test: {file: train.csv}}\n")
    (dataset / "prompts.yaml").write_text("init: Write.\nparaphrase: 'Rewrite: {text}'\n")
    run = make_run(evolution={"epochs": 1, "num_seed_samples": 1, "L": 1})
    assert len(samples(pages(run)[0])) == 1


def test_more_texts_than_a_page_holds(make_run, pages, monkeypatch):
    run = make_run()
    monkeypatch.setattr(released, "MOST", 12)
    public = pages(run)[0]
    rows = samples(public)
    assert "12 of 60 texts are shown" in words(public) and len(rows) == 12
    frame = pd.read_csv(run / "release" / "synthetic.csv", dtype=str)
    there, shown = Counter(zip(frame["stars"], frame["kind"], strict=True)), Counter((row[1], row[2]) for row in rows)
    assert all(
        shown[cell] >= min(there[cell], max(shown.values()) - 1) for cell in there
    )  # evenly, as far as there are


def test_a_run_that_went_on_has_no_page_of_an_earlier_spend(make_run, pages):
    run = make_run(evolution={"epochs": 1})
    public, _ = pages(run)
    certified = (run / "release" / "certificate.json").read_bytes()
    make_run(evolution={"epochs": 2})
    assert not public.exists()
    (run / "release" / "certificate.json").write_bytes(certified)
    with pytest.raises(PrivacyError, match="gone on since it was certified"):
        pages(run)


def test_nothing_was_asked_of_the_private_data(make_run, pages):
    run = make_run(privacy={"epsilon": 4.0, "label_counts": "public"}, evolution={"select_syn_mode": "random"})
    told = words(pages(run)[0])
    assert "No release" in told and "public knowledge" in told and " 1.00 times" in told


def test_other_private_records_are_not_taken_for_those_of_the_run(make_run, pages, dataset):
    run = make_run()
    (dataset / "train.csv").write_text((dataset / "train.csv").read_text().replace("thing number 7.", "thing."))
    told = words(pages(run)[1])
    assert "not those that the run was made from" in told and "of the variance" not in told


def test_each_release_has_its_share_of_epsilon(make_run, pages):
    """The bars of the ledger's releases end where the certificate does, and below a budget that was not spent."""
    run = make_run(privacy={"noise": None, "epsilon": 4.0})
    released_page = pages(run)[0]
    told, spent = words(released_page), json.loads((run / "release" / "certificate.json").read_text())["epsilon"]
    added = [float(value) for value in re.findall(r">\+ ([\d.]+)</text>", released_page.read_text())]
    assert len(added) == 3 and math.isclose(sum(added), spent, abs_tol=1e-9)
    assert f"Together they have spent {spent:g}, of the 4 that were allowed" in told
    assert "Counts of each label" in told and "Votes for the nearest texts, iteration 2" in told


def test_releases_that_are_alike_are_shown_as_one():
    """A training by its steps, however it was stored; votes by iteration, where there are few of them."""

    def names(*releases: str) -> list[str]:
        lines = ({"stage": "any", "name": name, "file": None} for name in releases)
        return [name for name, _ in released._alike([Reservation.of(line) for line in lines])]

    votes = [f"votes/{t}" for t in range(1, 20)]
    assert names("steps/0-10", "steps/10-1200", "label_counts", *votes[:2], "odd") == [
        "Training of the model, steps 1 to 1,200",
        "Counts of each label",
        "Votes for the nearest texts, iteration 1",
        "Votes for the nearest texts, iteration 2",
        "odd",
    ]
    assert names("label_counts", *votes)[1:] == ["Votes for the nearest texts, iteration 1 to 19"]


# several runs


def test_runs_are_compared(make_run, pages, tmp_path):
    runs = [make_run("a"), tmp_path / "b", make_run("c", privacy={"epsilon": math.inf})]
    shutil.copytree(*runs[:2])
    runs.append(make_run("d", evolution={"select_syn_mode": "random"}))
    for i, run in enumerate(runs):
        shared = run / "private" if i == 2 else run
        write_metrics(shared / "metrics_test.csv", f"0.7{i}")
        write_metrics(run / "private" / "metrics_train.csv", "0.3456789")
        write_downstream(run / "private" / "downstream_test.csv", "0.5678", ("real", "0", "1", "2"))
    *_, comparison = pages(*runs)
    assert comparison == runs[0] / "private" / "comparison.html"
    assert oct(comparison.stat().st_mode & 0o777) == "0o600"
    told = words(comparison)
    assert "0.346" in told and "0.568" in told and "(random selection)" in told and "Quality against epsilon" in told
    assert re.search(r">inf</text>", comparison.read_text()) and " do not share" in told

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.html")}
    out = tmp_path / "shared" / "out.html"
    assert pages(*runs, output=out) == [out]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.html") if path != out}
    told = words(out)
    assert "0.346" not in told and "0.568" not in told and "Perplexity" not in told and "train" not in told
    assert "All are against the split test." in told and "1 left out" in told
    assert ">c</td>" not in out.read_text() and ">b</td>" in out.read_text()


def test_where_the_iterations_lead(make_run, pages):
    """One line for plain votes and one for corrected ones: nearest text against recall, the mean of the runs."""
    plain = {"evolution": {"hub_correction": "none"}}
    runs = [make_run("a"), make_run("b", **plain), make_run("c", **plain)]
    for run, nearest, recall in zip(runs, ("0.51", "0.6", "0.7"), ("0.58", "0.2", "0.3"), strict=True):
        write_metrics(run / "metrics_test.csv", nearest, recall=recall)
    page = pages(*runs)[-1].read_text()
    told = page[page.index("Where the iterations lead") :]
    name = "Aug-PE (Xie et al. 2024)"
    assert f"<title>{name}, csls, recall 0.580: 0.510</title>" in told and "recall, epsilon " in told
    assert f"<title>{name}, recall 0.250: 0.650</title>" in told and told.count("<circle") == 6
    for run in runs:
        write_metrics(run / "metrics_test.csv", "0.5")  # without a recall
    assert "Where the iterations lead" not in pages(*runs)[-1].read_text()


def test_what_is_released_counts_where_it_is_no_iteration(make_run, pages, tmp_path):
    """With --save_syn_mode all or one_var, the released texts are a set of their own."""
    runs = [make_run("a"), make_run("b")]
    for run in runs:
        path = run / "metrics_test.csv"
        write_metrics(path, "0.7")
        path.write_text(path.read_text() + path.read_text().splitlines()[-1].replace("2,60,1,0.7", "release,60,1,0.61"))
        path = run / "downstream_test.csv"
        write_downstream(path, "0.66", ("majority", "0", "1", "2", "release"))
        path.write_text(path.read_text().replace("release,60,2,0.5", "release,60,2,0.71"))
    comparison = words(pages(*runs)[-1])
    assert "0.610" in comparison and "0.710" in comparison and "0.700" not in comparison and "0.660" not in comparison
    told = words(runs[0] / "release" / "report.html")
    assert "synthetic, as released" in told and "release" in re.findall(r">(\w+)</text>", pages(runs[0])[0].read_text())


def test_figures_from_before_the_run_went_on_say_so(make_run, pages):
    run, other = make_run("a", evolution={"epochs": 3}), make_run("b")
    for folder in (run, other):
        write_metrics(folder / "metrics_test.csv", "0.7")
    *_, comparison = pages(run, other)
    assert "Measured up to iteration 2; the run has gone on to 3." in words(run / "release" / "report.html")
    assert "Measured up to" not in words(other / "release" / "report.html")
    assert "Older than the last iteration: some of a." in words(comparison)


# bad input


def refused(match: str, *runs: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dpsda.report", *map(str, runs)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2 and re.search(match, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ")


def test_what_is_missing_or_damaged_is_one_line(make_run, pages, tmp_path):
    run = make_run()
    refused("not the folder of a run", tmp_path / "nothing")
    refused("unrecognized arguments: --outptu", run, Path("--outptu"))
    for name, content, match in [
        ("release/synthetic.csv", b"id,text\n1,edited\n", "not the file that was certified"),
        ("metrics_test.csv", b"set,texts\n1,a,b,c\n", "not a CSV file"),
        ("metrics_test.csv", b"set,texts\n1,a\n1,a,b\n", "not a CSV file"),
        ("metrics_test.csv", b"\xff\xfe\x00", "not a CSV file"),
        ("metrics_test.csv", b"set,texts\n", "no rows"),
        ("release/certificate.json", b"{", "not a certificate of ours"),
        ("release/certificate.json", b"[]", "not a certificate of ours"),
        ("release/certificate.json", b'{"epsilon": "abc"}', "not a certificate of ours"),
        ("downstream_test.csv", b"", "not a CSV file"),
        ("downstream_test.csv", b"a,b\n1,2\n", "no column 'task'"),
        ("state/augpe.json", b"[]", "not a file of ours"),
        ("state/augpe.json", b"\xff", "not JSON"),
        ("1/counts.csv", b"candidate_id,noisy\n0-0,many\n", "not the result that the ledger committed"),
        ("private/metrics_train.csv", b"a,b\n1,2\n", "no column 'set'"),
        ("release/synthetic.csv", None, "not the file that was certified"),
        ("release/certificate.json", None, "no release in this run yet"),
    ]:
        path = run / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(content) if content is not None else path.unlink()
        with pytest.raises((InputError, PrivacyError), match=match):
            pages(run)
        path.write_bytes(before) if before is not None else path.unlink()
    (run / "release" / "certificate.json").unlink()
    refused("no release in this run yet; finish it", run)


def test_no_page_vouches_for_a_certificate_that_says_less_than_was_spent(make_run, pages):
    run = make_run()
    path = run / "release" / "certificate.json"
    facts = json.loads(path.read_text())
    path.write_text(path.read_text().replace(str(facts["epsilon"]), "0.5"))
    with pytest.raises(PrivacyError, match=r"epsilon 0\.5 is claimed"):
        pages(run)


def test_help_answers_at_once():
    before = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dpsda", "compare", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and "--output FILE" in done.stdout and time.monotonic() - before < 1.0


# pieces


def test_the_guarantee_in_plain_words_holds():
    """Against (eps, delta) randomised response, which is as far apart as two such results can be."""
    for epsilon in (0.1, 1.0, 4.0, 12.0):
        for delta in (0.0, 1e-5, 0.1):
            likely = math.exp(epsilon) / (1 + math.exp(epsilon))
            there = np.array([delta, (1 - delta) * likely, (1 - delta) * (1 - likely), 0])
            away = there[::-1]
            assert released._right_guesses(epsilon, delta) == pytest.approx(np.maximum(there, away).sum() / 2)
            found = there[0] + there[1] * min(1, 0.01 / away[1])  # the best test at 1 % of false alarms
            if away[1] < 0.01:
                found += there[2] * min(1, (0.01 - away[1]) / away[2])
            assert released._found(epsilon, delta, 0.01) == pytest.approx(found)
    assert released._factor(4) == "54.6" and released._factor(0.5) == "1.65" and "e^1000" in released._factor(1000)
    assert released._found(1000, 1e-5, 0.01) == 1


def test_figures_and_cells():
    assert number("0.51 ± 0.02") == 0.51 and number("1,234") == 1234 and number("12.5 %") == 12.5
    assert number("n/a") is number("") is number("inf") is number("3 texts") is None
    assert power(1e-5) == "1.0 × 10⁻⁵" and esc("<\x00\ud800>&\"'") == "&lt;��&gt;&amp;&quot;&#x27;"


@pytest.mark.parametrize("levels", [(0.5, 0.5), (0.5, 0.52), (0.52, 0.5), (0.1, 0.9)])
def test_names_of_near_lines_do_not_overlap(levels):
    references = [charts.Reference("real", levels[0], left=True), charts.Reference("start", levels[1])]
    line = [charts.Line("a", [(0.0, 0.0), (1.0, 1.0)])]
    svg = charts.lines("t", line, x_name="x", x_ticks=[(0.0, "0"), (1.0, "1")], references=references)
    one, other = (float(y) for y in re.findall(r'<text class="name [a-z]+" x="[\d.]+" y="([\d.]+)"', svg))
    assert abs(one - other) > charts.LETTER


def test_charts_of_little():
    same = charts.lines("t", [charts.Line("a", [(0.0, 0.0)])], x_name="x", x_ticks=[(0.0, "0")])
    assert "nan" not in same and "inf" not in same
    for values in ([0], [5, 5, 5], [0, 10_000]):
        assert "nan" not in charts.histogram("t", [("a", np.array(values), "line0")], x_name="words")
    assert "nan" not in charts.points("t", [("a", np.zeros((3, 2)), "line0")])
    assert [name for _, name in charts.number_ticks([0.21, 0.58])] == ["0.2", "0.3", "0.4", "0.5", "0.6"]
    assert [name for _, name in charts.number_ticks([0.512, 0.523])] == ["0.510", "0.515", "0.520", "0.525"]
    assert charts.number_ticks([0.5])[0][0] < 0.5 < charts.number_ticks([0.5])[-1][0]
    assert charts.iteration_ticks([0]) == [(0.0, "0")] and charts.iteration_ticks(range(51))[-1] == (50.0, "50")


def test_the_owner_s_page_shows_rows(tmp_path, pages, monkeypatch):
    """Of every attribute how often each value is there, and the pairs that differ; the released page has no such."""
    use(monkeypatch)
    monkeypatch.setattr(release, "RowModel", AnyRows)
    monkeypatch.setattr(owner, "_load", lambda name: HashEncoder())
    table, root = made_up(tmp_path / "data" / "table"), tmp_path / "run"
    small = {"epochs": 1, "num_seed_samples": 30, "L": 2}
    settings = {"data": {"reference_split": None}, "privacy": {"noise": 3.0}, "evolution": small}
    augpe.generate(root, *options(table, **settings))
    released, private = (path.read_text() for path in pages(root))
    assert "<h2>Rows</h2>" in private and "<h2>Rows</h2>" not in released
    for told in ("city", "price", "length", "mood", "10 to 100", "(missing)", "city, price", "kind, city"):
        assert told in private
    assert "food, the records: 66.5 %" in private  # of the label
    # of the 200 records 63 are of Oslo, 127 of Rome, and 10 are in neither
    assert "Oslo, the records: 31.5 %" in private and "Rome, what the texts say" not in private


def test_bars_of_many_values():
    shares = np.linspace(1, 2, 30) / np.linspace(1, 2, 30).sum()
    chart = charts.bars("a", [f"value {i}" for i in range(30)], [("real", shares, "line1"), ("rows", shares, "line0")])
    assert chart.count("<rect") == 2 * 13 and "18 other values" in chart and "value 29" in chart
    assert "value 17," not in chart and f"{charts.percent(float(shares[:18].sum()))}" in chart
