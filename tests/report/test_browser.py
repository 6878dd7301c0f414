"""The pages in a browser: they show without an error, a request or a scroll bar, and the texts can be browsed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.report.conftest import HOSTILE, write_downstream, write_metrics

SIZES = {
    "desk": {"width": 1280, "height": 800},
    "tablet": {"width": 768, "height": 1024},
    "phone": {"width": 360, "height": 740},
}
# What is hard to read or to reach: text of too little contrast on what is below it (WCAG 1.4.3, of SVG, too), controls
# and pictures without a name, headings that leave a level out, and ids that are there twice.
BARRIERS = """() => {
  const rgb = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = (colour) => rgb(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const below = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const paper = getComputedStyle(e).backgroundColor;
      if ((rgb(paper)[3] ?? 1) > 0) return paper;
    }
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || element.disabled) continue;
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!says || ["SCRIPT", "title", "desc"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(element instanceof SVGElement ? style.fill : style.color), light(below(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`contrast ${contrast.toFixed(2)}: ${element.outerHTML.slice(0, 90)}`);
  }
  for (const control of document.querySelectorAll("button, input, select, summary")) {
    const name = control.labels?.[0]?.textContent || control.textContent;
    if (!name.trim()) found.push(`no name: ${control.outerHTML}`);
  }
  for (const picture of document.querySelectorAll("svg:not([aria-hidden])"))
    if (!picture.matches("[role=img]:has(> title)")) found.push(`no title: ${picture.outerHTML.slice(0, 90)}`);
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((heading) => Number(heading.tagName[1]));
  levels.forEach((level, i) => { if (level > (levels[i - 1] ?? 0) + 1) found.push(`heading ${i} of level ${level}`); });
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  if (new Set(ids).size < ids.length) found.push(`ids ${ids}`);
  return found;
}"""


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
    runs = make_run("one"), make_run("two", privacy={"noise": 5.0})  # of two epsilons, for the curve
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
                assert page.evaluate(BARRIERS) == [], (path, scheme)
                papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            page.close()
    assert len(papers) == 2  # the dark scheme is another one


def test_every_page_prints(browser, make_run, pages, tmp_path):
    """In the dark scheme, too, on white; nothing is folded or beyond the edge of an A4 page."""
    runs = make_run("one"), tmp_path / "two"
    shutil.copytree(*runs)
    for run in runs:
        write_metrics(run / "metrics_test.csv", "0.71", **{f"another_{i}": "0.5" for i in range(12)})
    paths = pages(*runs)
    for path in (paths[0], paths[1], paths[4]):
        page, _ = open_page(browser, path)
        page.set_viewport_size({"width": 700, "height": 1000})  # A4 but for its margins
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate(BARRIERS) == [], path
        assert all(part.is_visible() for part in page.locator("details > :not(summary)").all())
        widest = "Math.max(...[...document.querySelectorAll('main *')].map((e) => e.getBoundingClientRect().right))"
        assert page.evaluate(widest) <= 700, path
        page.close()


def test_all_is_reached_by_keyboard(browser, make_run, pages):
    """Tab comes by every control in turn, and shows which one it is at."""
    run = make_run()
    write_metrics(run / "metrics_test.csv", "0.71")
    for path in pages(run):
        page, wrong = open_page(browser, path)
        controls = page.evaluate(
            "() => [...document.querySelectorAll('button, input, select, summary, [tabindex]')]"
            ".filter((control) => control.checkVisibility() && !control.disabled).length"
        )
        for _ in range(controls):
            page.keyboard.press("Tab")
            at = page.evaluate(
                "() => ((e, s) => [e.tagName, s.outlineStyle, parseFloat(s.outlineWidth)])"
                "(document.activeElement, getComputedStyle(document.activeElement))"
            )
            assert at[0] != "BODY" and at[1] != "none" and at[2] >= 1, (path, at)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "BODY" and not wrong, wrong


def test_searching_the_neighbourhoods(browser, make_run, pages):
    """What was typed stands out on the map and in the texts of both sides; a name marks its neighbourhood."""
    page, wrong = open_page(browser, pages(make_run())[1])
    found = page.locator(".plot .found").first
    assert page.locator("article").count() == 4 and not found.get_attribute("d")
    page.focus("#find")
    page.keyboard.type("NUMBER 7")
    real = page.locator("article .sides > div:first-child li:not(.note)").all_inner_texts()
    assert real and all("number 7" in text for text in real)
    assert {*page.locator("mark").all_inner_texts()} == {"number 7"} and "say it" in page.locator("#found").inner_text()
    assert found.get_attribute("d") and page.locator(".plot.searched").count() == 1
    page.fill("#find", "nobody says this")
    assert not page.locator("article").first.is_visible() and not found.get_attribute("d")
    page.fill("#find", "")
    name = page.locator("article button[aria-pressed]").first
    name.focus()
    page.keyboard.press("Enter")
    assert name.get_attribute("aria-pressed") == "true" and found.get_attribute("d")
    page.keyboard.press("Enter")
    assert name.get_attribute("aria-pressed") == "false" and not found.get_attribute("d") and not wrong, wrong


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
