"""The pages in a browser: they show without an error, a request or a scroll bar, and the texts can be browsed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.report.conftest import HOSTILE, write_downstream, write_metrics

SIZES = {"desk": {"width": 1280, "height": 800}, "phone": {"width": 360, "height": 740}}


@pytest.fixture
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium on this machine: apt-get install chromium runs this test")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def open_page(browser, path: Path, size: str = "desk"):
    """The page, and the list of what went wrong, which fills as it is used."""
    page = browser.new_page(viewport=SIZES[size])
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if request.url != path.as_uri() else None)
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.goto(path.as_uri())
    return page, wrong


def test_every_page_shows(browser, make_run, pages, tmp_path):
    runs = make_run("one"), tmp_path / "two"
    shutil.copytree(*runs)
    for run in runs:
        write_metrics(run / "metrics_test.csv", "0.71")
        write_downstream(run / "private" / "downstream_test.csv", "0.6", ("majority", "real", "0", "1", "2"))
    paths = [*pages(*runs), *pages(*runs, output=tmp_path / "out.html")]
    papers = set()
    for path in (paths[0], paths[1], paths[4], paths[5]):
        for size in SIZES:
            page, wrong = open_page(browser, path, size)
            page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wide <= 0, (path, size)
                assert page.locator("svg.chart").first.is_visible() and not wrong, (path, wrong)
                papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.close()
    assert len(papers) == 2  # the dark scheme is another one


def test_browsing_the_texts(browser, make_run, pages):
    page, wrong = open_page(browser, pages(make_run())[0])

    def texts() -> list[str]:
        return page.locator("#samples tbody td:first-child").evaluate_all("cells => cells.map((c) => c.textContent)")

    def column(n: int) -> list[str]:
        return page.locator(f"#samples tbody td:nth-child({n})").all_inner_texts()

    def shown() -> str:
        return page.locator("#shown").inner_text()

    assert shown() == "1 to 25 of 60" and len(texts()) == 25 and page.locator("#previous").is_disabled()
    first = texts()
    page.click("#next")
    second = texts()
    page.click("#next")
    assert shown() == "51 to 60 of 60" and page.locator("#next").is_disabled()
    assert len({*first, *second, *texts()}) == 60
    page.click("#previous")
    assert texts() == second

    number = page.locator("#samples th:last-child")
    number.locator("button").click()
    up = list(map(int, column(4)))
    assert up == sorted(up) and number.get_attribute("aria-sort") == "ascending" and shown() == "1 to 25 of 60"
    number.locator("button").click()
    down = list(map(int, column(4)))
    assert down == sorted(down, reverse=True) and down[0] > up[0]

    page.select_option("select[data-column=stars]", "high")
    assert set(column(2)) == {"high"} and list(map(int, column(4))) == sorted(map(int, column(4)), reverse=True)
    page.select_option("select[data-column=kind]", "food")
    assert set(column(2)) == {"high"} and set(column(3)) == {"food"}
    page.select_option("select[data-column=stars]", "all")
    page.select_option("select[data-column=kind]", "all")
    page.fill("#search", HOSTILE[1][:14].upper())
    assert texts() and all(HOSTILE[1] in text for text in texts())
    page.fill("#search", "no text says this")
    assert not texts() and shown() == "no text is like that"
    page.fill("#search", "")
    seen = []
    while True:
        seen += texts()
        if page.locator("#next").is_disabled():
            break
        page.click("#next")
    assert len(seen) == 60 and any(HOSTILE[0] in text for text in seen)
    assert page.locator("#samples img, #samples svg, #samples script").count() == 0 and not wrong, wrong


def test_sorting_a_table_and_the_map(browser, make_run, pages):
    run = make_run()
    write_metrics(run / "private" / "metrics_train.csv", "0.71")
    page, wrong = open_page(browser, pages(run)[1])
    near = page.locator("table.sortable").last.locator("th", has_text="Distance from real to synthetic")
    place = near.evaluate("header => header.cellIndex + 1")
    for ordered in (["0.200", "0.710", "0.800", "0.900"], ["0.900", "0.800", "0.710", "0.200"]):
        near.locator("button").click()
        cells = page.locator("table.sortable").last.locator(f"tbody td:nth-child({place})").all_inner_texts()
        assert [cell.split()[0] for cell in cells] == ordered
    dots = page.locator(".plot .dots.start")
    assert not dots.is_visible()
    page.check("#show-start")
    assert dots.is_visible() and not wrong, wrong
