"""One self-contained HTML file: the frame around a page, and the few pieces of HTML that pages are made of.

Everything that goes into a page is data. `esc` is for what stands in the HTML; texts travel as JSON and become visible
by `textContent` alone. The policy in the page's head allows the one script that stands here, by its hash, and no
network at all: should a text ever get through as markup, it would still not run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterable, Sequence
from decimal import ROUND_UP, Context
from pathlib import Path
from typing import Any

from dpsda.privacy.files import write_atomic

MANY = 8  # columns that paper has room for
_HERE = Path(__file__).parent
_NOT_IN_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def document(title: str, body: Iterable[str]) -> str:
    """The whole file."""
    style, script = ((_HERE / name).read_text(encoding="utf-8").strip() for name in ("page.css", "page.js"))
    script = f"\n{script}\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    content = "\n".join(part for part in body if part)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{esc(title)}</title>
<style>
{style}
</style>
</head>
<body>
<main>
{content}
</main>
<script>{script}</script>
</body>
</html>
"""


def write(path: Path, page: str, *, private: bool) -> None:
    """Write the file; a private one for its owner alone."""
    write_atomic(path, page.encode())
    if private:
        path.chmod(0o600)


def esc(value: object) -> str:
    """`value` as HTML text or attribute; what HTML cannot hold becomes a replacement character."""
    return html.escape(_NOT_IN_HTML.sub("�", str(value)))


def json_block(name: str, data: Any) -> str:
    """`data` for the script, in ASCII and without the characters that could end the element."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def header(kind: str, title: str, lede: str) -> str:
    return f'<header>\n<p class="kind">{esc(kind)}</p>\n<h1>{esc(title)}</h1>\n<p class="lede">{lede}</p>\n</header>'


def section(title: str, *parts: str) -> str:
    """A section of the page; nothing if it has no parts."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{esc(title)}</h2>\n{content}\n</section>" if content else ""


def banner(title: str, text: str) -> str:
    return f'<div class="banner" role="note"><strong>{esc(title)}</strong> {text}</div>'


def paragraph(text: str, kind: str = "") -> str:
    """`text` is HTML already."""
    return f"<p{f' class={kind!r}' if kind else ''}>{text}</p>"


def bullets(lines: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{line}</li>" for line in lines) + "\n</ul>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, side by side."""
    return (
        '<dl class="facts">\n'
        + "\n".join(f"<div><dt>{esc(k)}</dt><dd>{esc(v)}</dd></div>" for k, v in pairs)
        + "\n</dl>"
    )


def figures(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Large figures: name, value, and what it is of."""
    cells = [f"<div><dt>{esc(n)}</dt><dd>{esc(v)}</dd><dd>{esc(w)}</dd></div>" for n, v, w in pairs]
    return '<dl class="figures">\n' + "\n".join(cells) + "\n</dl>"


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, sortable: bool = False, marked: Iterable[int] = ()
) -> str:
    """A table in a box of its own that scrolls where it is wider than the page; `marked` rows are references.

    Columns of numbers are set to the right, but for the first. A sortable table sorts where its header is clicked. On
    paper, where nothing scrolls, the cells of one with many columns follow each other with their names.
    """
    body = [list(map(str, row)) for row in rows]
    figures = [i > 0 and all(_is_figure(row[i]) for row in body) for i in range(len(columns))]
    references = set(marked)
    many = len(columns) > MANY
    kinds = " ".join(["sortable"] * sortable + ["many"] * many)

    def head(i: int, name: str) -> str:
        kind = " ".join(["number"] * figures[i] + ["long"] * (len(name) > 20))
        inner = f'<button type="button">{esc(name)}</button>' if sortable else esc(name)
        return f'<th scope="col" class="{kind}">{inner}</th>'

    def cell(i: int, value: str) -> str:
        name = f' data-name="{esc(columns[i])}"' if many else ""
        return f"<td{' class=number' if figures[i] else ''}{name}>{esc(value)}</td>"

    def line(n: int, row: list[str]) -> str:
        cells = "".join(cell(i, value) for i, value in enumerate(row))
        return f"<tr{' class=reference' if n in references else ''}>{cells}</tr>"

    return "\n".join(
        [
            f'<div class="scroll" role="group" aria-label="table" tabindex="0"><table class="{kinds}">',
            f"<thead><tr>{''.join(head(i, name) for i, name in enumerate(columns))}</tr></thead>",
            "<tbody>",
            *(line(n, row) for n, row in enumerate(body)),
            "</tbody></table></div>",
        ]
    )


def _is_figure(cell: str) -> bool:
    return cell in ("", "n/a", "inf") or number(cell) is not None


def number(cell: object) -> float | None:
    """The finite number that a cell begins with (`0.51`, `0.51 ± 0.02`, `12.5 %`), None if there is none."""
    match = re.fullmatch(r"\s*([-+]?[\d,]*\.?\d+(?:e[-+]?\d+)?)(?:\s*(?:±.*|%.*))?", str(cell), re.IGNORECASE)
    value = float(match[1].replace(",", "")) if match else math.inf
    return value if math.isfinite(value) else None


def short(value: float) -> str:
    """A figure with about three digits that matter."""
    if value == 0 or 0.0995 <= abs(value) < 10:
        return f"{value:.3f}"
    if 0.00095 <= abs(value) < 0.0995:
        return f"{value:.4f}"
    return f"{value:,.1f}" if 10 <= abs(value) < 1e6 else f"{value:.2e}"


def power(value: float) -> str:
    """A small bound in the notation of a lay reader, rounded up: 1.0 × 10⁻⁵."""
    up = Context(prec=4, rounding=ROUND_UP).create_decimal(repr(value))
    digits, _, exponent = f"{up:.3e}".partition("e")
    digits = digits[:3] + digits[3:].rstrip("0")
    return f"{digits} × 10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def more(title: str, content: str) -> str:
    """Content that shows when its title is clicked; nothing where there is none."""
    return f"<details><summary>{esc(title)}</summary>\n{content}</details>" if content else ""


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
