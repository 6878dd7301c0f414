"""The layers of the house as a picture, from the imports and the contracts: python docs/layers.py > docs/layers.svg

A room stands on its floor in pyproject.toml. A line goes down from a room to each one that it imports, but for those of
the lowest three floors, which everything may use.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT, GAP, WORD, LEFT, WIDE = 1080, 30, 34, 6.6, 20, 16
PLAIN = 3  # the lowest floors, of which no line is drawn


def floors() -> list[list[str]]:
    """The rooms of each floor, from the top."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[room.strip() for room in layer.split("|")] for layer in layers]


def imports() -> set[tuple[str, str]]:
    """(importer, imported) rooms."""
    graph = grimp.build_graph("dpsda", "apis", exclude_type_checking_imports=True)
    pairs = set()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            one, two = (name.split(".")[1] if name.startswith("dpsda.") else "apis" for name in (module, other))
            pairs.add((one, two))
    return {(one, two) for one, two in pairs if one != two}


def picture() -> str:
    rows = floors()
    plain = {room for row in rows[-PLAIN:] for room in row}
    places: dict[str, tuple[float, float, float]] = {}  # x, y, width
    for number, row in enumerate(rows):
        widths = [len(room) * WORD + 2 * WIDE for room in row]
        x = LEFT + (WIDTH - 2 * LEFT - sum(widths) - GAP / 2 * (len(row) - 1)) / 2
        for room, width in zip(row, widths, strict=True):
            places[room] = (x, LEFT + number * (HEIGHT + GAP), width)
            x += width + GAP / 2
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {LEFT * 2 + len(rows) * (HEIGHT + GAP) - GAP}" '
        'font-family="sans-serif" font-size="12">',
        "<title>What imports what: dpsda, from the entry points down to the privacy core</title>",
    ]
    for one, two in sorted(imports()):
        if one in places and two in places and two not in plain:
            (x, y, width), (to_x, to_y, to_width) = places[one], places[two]
            start, end, middle = x + width / 2, to_x + to_width / 2, (y + HEIGHT + to_y) / 2
            path = f"M{start:.0f} {y + HEIGHT} C{start:.0f} {middle:.0f} {end:.0f} {middle:.0f} {end:.0f} {to_y}"
            out.append(f'<path d="{path}" fill="none" stroke="#88a" stroke-width="0.8" opacity="0.7"/>')
    for room, (x, y, width) in places.items():
        fill = "#fde8c8" if room == "privacy" else "#eef2f7"
        out.append(
            f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{HEIGHT}" rx="5" fill="{fill}" stroke="#557"/>'
        )
        out.append(f'<text x="{x + width / 2:.0f}" y="{y + 19}" text-anchor="middle" fill="#223">{room}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    print(picture(), end="")
