"""Fetch the public files of data sets: `data/<name>/download.yaml` says from where, and what has to come.

    dpsda download                 all data sets
    dpsda download yelp pubmed     these; the path of a folder with both YAML files works, too

    train.csv: {google_drive: ID, rows: 1000}     # rows: how many the published file has
    dev.csv: {url: "https://...", rows: 100}

A file is streamed to FILE.part beside the spec, and becomes FILE after its columns, rows and labels have been checked.
The same command goes on where a broken download stopped. It checks the files that are there and fetches none of them
again, so a file may also be put in its place by hand.
"""

from __future__ import annotations

import argparse
import dataclasses
import http.client
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dpsda.arg_utils import run
from dpsda.assets import DATA, data_sets, shipped
from dpsda.data.loading import load
from dpsda.data.spec import DatasetSpec, Reader, Split
from dpsda.errors import InputError, did_you_mean

DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"  # without the warning page
DRIVE_PAGE = "https://drive.google.com/uc?id={}"
BLOCK = 1 << 20  # bytes read at a time, at most
TIMEOUT = 60.0  # seconds without a byte before a connection counts as dropped
PAUSES = (1.0, 3.0, 10.0)  # seconds before each new attempt after a dropped connection
UNUSABLE = 0.01  # the share of rows without a text or with an unknown label above which a file is refused


@dataclass(frozen=True)
class Source:
    """One published file of a data set: where it belongs, where it is, and how many rows it has."""

    spec: DatasetSpec
    path: Path
    url: str
    page: str  # for a browser
    rows: int

    @property
    def by_hand(self) -> str:
        return f"open {self.page} in a browser, save it as {shown(self.path)}, and run this again, which checks it"


def shown(path: Path) -> str:
    """A path as messages name it: relative to the repository, if it is in there."""
    root = DATA.parent
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def known() -> list[str]:
    """The data sets in `data/` that can be downloaded."""
    return data_sets("download.yaml")


def sources(name: str) -> list[Source]:
    """The files of a data set, by its name or its folder. Raises InputError for an unknown one or a bad file."""
    from dpsda import yaml_files

    folder = Path(name) if Path(name).is_dir() else DATA / name
    if (there := shipped(folder)) != folder:  # files come to lie beside their spec, and not into an installation
        shutil.copytree(there, folder)
    path = folder / "download.yaml"
    if not path.is_file():
        raise InputError(
            f"no data set {name!r} with a download.yaml{did_you_mean(name, known())}; there are: {', '.join(known())}"
        )
    spec, check = DatasetSpec.read(folder), Reader(path)
    found = []
    for file, item in check.mapping(yaml_files.read(path, "it says what to fetch"), "").items():
        fields = check.mapping(item, str(file), {"url": False, "google_drive": False, "rows": True})
        rows = str(fields.pop("rows"))
        if not rows.isdecimal() or int(rows) < 1:
            check.fail(f"{file}.rows", "is not a number of rows")
        if Path(check.text(file, "")).name != file or not file.lower().endswith(".csv"):
            check.fail(file, "is not the name of a CSV file")
        if len(fields) != 1:
            check.fail(file, "has to have one of url and google_drive")
        [place] = fields.values()
        url = page = check.text(place, file)
        if "google_drive" in fields:
            url, page = DRIVE.format(url), DRIVE_PAGE.format(url)
        elif urlsplit(url).scheme not in ("http", "https"):
            check.fail(f"{file}.url", "does not start with https:// or http://")
        found.append(Source(spec, folder / file, url, page, int(rows)))
    return found


def get(source: Source) -> str:
    """Fetch a file unless it is there, check it, and say in a few words what it holds; InputError where that fails."""
    if source.path.exists():
        return check(source, source.path)
    part = source.path.with_name(source.path.name + ".part")
    fetch(source, part)
    facts = check(source, part)
    part.replace(source.path)
    return facts


def fetch(source: Source, part: Path) -> None:
    """Stream the bytes that `part` lacks to its end, with new attempts after dropped connections."""
    for pause in (*PAUSES, None):
        try:
            return _attempt(source, part)
        except (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException) as error:
            if pause is None:
                host = urlsplit(source.url).netloc
                again = "run this again to go on from there"
                raise InputError(f"{host} drops the connection ({error}); {again}, or {source.by_hand}") from None
            time.sleep(pause)


def _attempt(source: Source, part: Path) -> None:
    from tqdm import tqdm

    host = urlsplit(source.url).netloc
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(source.url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and done:  # nothing comes after these bytes; whether they are the file, its check tells
            return
        raise InputError(f"{host} answered {error.code} {error.reason}; {source.by_hand}") from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise InputError(f"{host} cannot be reached ({reason}); {source.by_hand}") from None
    with response:
        if response.headers.get_content_type() == "text/html":
            title = re.search(rb"<title[^>]*>([^<]*)", response.read(BLOCK), re.IGNORECASE)
            what = f" ({title[1].decode(errors='replace').strip()})" if title else ""
            raise InputError(f"{host} sent a web page{what} in place of the file; {source.by_hand}")
        resumed = response.status == 206
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise InputError(f"{host} sent another part of the file; remove {shown(part)} and run this again")
        done = done if resumed else 0
        length = response.headers["Content-Length"]
        total = done + int(length) if length else None
        bar = tqdm(desc=shown(source.path), initial=done, total=total, unit="B", unit_scale=True)
        with bar, open(part, "ab" if resumed else "wb") as out:
            while block := response.read1(BLOCK):  # read1 keeps what came before a connection broke
                out.write(block)
                bar.update(len(block))
                done += len(block)
    if total is not None and done < total:
        raise ConnectionError(f"after {done:,} of {total:,} bytes")


def check(source: Source, path: Path) -> str:
    """Compare the file at `path` with what was published. Raises InputError where it differs, and leaves it there."""
    remedy = f"remove {shown(path)} and run this again"
    whole = dataclasses.replace(source.spec, splits={"whole": Split(path.name)}, filter={})
    try:
        corpus = load(whole, "whole", file=path)
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from None
    unusable = len(corpus.dropped)
    rows = corpus.num_records + unusable
    reasons = ", ".join(f"{reason}: {n:,}" for reason, n in corpus.dropped["reason"].value_counts().items())
    if rows != source.rows:
        raise InputError(f"{path.name} has {rows:,} rows and the published file {source.rows:,}; {remedy}")
    if unusable > UNUSABLE * rows:
        raise InputError(f"{path.name}: {unusable:,} of {rows:,} rows cannot be used ({reasons}); {remedy}")
    return f"{rows:,} rows, checked" + (f"; {unusable:,} of them cannot be used ({reasons})" if unusable else "")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="dpsda download",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help=f"{', '.join(known())} (default: all of them), or the path of a folder")
    names = parser.parse_args(argv).name or known()
    wanted = [source for name in names for source in sources(name)]
    failed = 0
    for source in wanted:
        try:
            print(f"{shown(source.path)}: {get(source)}", flush=True)
        except (InputError, OSError) as error:
            failed += 1
            print(f"error: {shown(source.path)}: {' '.join(str(error).split())}", file=sys.stderr)
    if failed:
        raise InputError(f"{failed} of {len(wanted)} files are missing or wrong; the lines above say what to do")
    print(f"all {len(wanted)} files are there and checked")


if __name__ == "__main__":
    run(main)
