"""Downloads: what a server may do wrong, what a file may have wrong, and that no byte is fetched twice."""

import csv
import io
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from dpsda.arg_utils import run
from dpsda.data import DatasetSpec, download
from dpsda.errors import InputError

ROOT = Path(__file__).parents[2]
SPEC = """
text: text
labels:
  - {column: label1, domain: ["Business Category: Bars", "Business Category: Shopping"]}
  - {column: label2, domain: ["Review Stars: 1.0", "Review Stars: 5.0"]}
splits: {train: train.csv, dev: dev.csv}
"""


def file(rows=2000, header=("text", "label1", "label2"), change=()):
    """Made-up rows in yelp's public format, as bytes; `change` maps row numbers to other rows."""
    kinds = ("Business Category: Bars", "Business Category: Shopping")
    made = [(f'Number {i} was "fine",\nthough loud.', kinds[i % 2], "Review Stars: 5.0") for i in range(rows)]
    for i, row in dict(change).items():
        made[i] = row
    out = io.StringIO()
    csv.writer(out).writerows([header, *(row[: len(header)] for row in made)])
    return out.getvalue().encode()


class Server(ThreadingHTTPServer):
    """Serves `files` under their names, with Range requests, and notes what was asked and how much was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.sent = {}, [], 0
        self.cuts = []  # after how many bytes the next answers break off
        self.ranges, self.pages = True, {}
        self.shift = 0  # how far beyond the wanted byte a range begins
        self.pause = None  # an event that the second half of a file waits for

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, name = self.server, self.path[1:]
        if name in server.pages:
            return self.answer(200, server.pages[name], "text/html; charset=utf-8")
        if name not in server.files:
            return self.send_error(404)
        body = server.files[name]
        wanted = self.headers.get("Range") if server.ranges else None
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        server.asked.append((name, start))
        if start >= len(body):
            return self.send_error(416)
        start += server.shift if wanted else 0
        self.answer(206 if wanted else 200, body[start:], "text/plain", f"bytes {start}-{len(body) - 1}/{len(body)}")

    def answer(self, status, body, kind, part=""):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", part)
        self.end_headers()
        stop = self.server.cuts.pop(0) if self.server.cuts else len(body)
        half = stop // 2 if self.server.pause else stop
        self.wfile.write(body[:half])
        if self.server.pause:
            self.server.pause.wait(30)
        self.wfile.write(body[half:stop])
        self.server.sent += stop

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path, server):
    """A data set whose train.csv is on `server`."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "spec.yaml").write_text(SPEC)
    (folder / "download.yaml").write_text(f"train.csv: {{url: '{server.url('train.csv')}', rows: 2000}}")
    server.files["train.csv"] = file()
    return folder


@pytest.fixture
def command(folder, capsys):
    """The command on `folder`: its exit code, its standard output, and the errors on standard error."""

    def command():
        with pytest.raises(SystemExit) as exit:
            run(lambda: download.main([str(folder)]))
        out, err = capsys.readouterr()
        return exit.value.code, out, [line for line in err.splitlines() if line.startswith("error:")]

    return command


def test_fresh_and_complete(folder, server, command):
    """Fetched once, checked every time; a row that cannot be used is mentioned."""
    server.files["train.csv"] = body = file(change={7: ("", "Business Category: Bars", "Review Stars: 1.0")})
    code, out, errors = command()
    assert code == 0 and not errors and (folder / "train.csv").read_bytes() == body
    assert "2,000 rows, checked; 1 of them cannot be used (no text: 1)" in out and "all 1 files" in out
    assert command()[:2] == (0, out) and server.asked == [("train.csv", 0)]
    assert not (folder / "train.csv.part").exists()


def test_another_part_than_the_wanted_one_is_not_joined(folder, server, command):
    server.cuts, server.shift = [30_000], 5
    code, _, [error, _] = command()
    assert code == 2 and "another part of the file" in error
    assert (folder / "train.csv.part").stat().st_size == 30_000


def test_resume_after_cuts(folder, server, command):
    """A dropped connection is taken up where it broke, in one command and in the next: no byte comes twice."""
    server.cuts = [30_000] * 5  # four attempts in the first command
    code, _, [error, summary] = command()
    assert code == 2 and "drops the connection" in error and "run this again" in error and "1 of 1 files" in summary
    assert (folder / "train.csv.part").stat().st_size == 120_000 and not (folder / "train.csv").exists()
    assert command()[0] == 0
    assert [start for _, start in server.asked] == [30_000 * i for i in range(6)]
    assert server.sent == len(server.files["train.csv"])
    assert (folder / "train.csv").read_bytes() == server.files["train.csv"]


def test_resume_after_sigkill(folder, server, command):
    server.pause = threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-m", "dpsda.data.download", str(folder)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    part = folder / "train.csv.part"
    deadline = time.monotonic() + 15
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = part.stat().st_size
    server.pause.set()
    assert 0 < kept < len(server.files["train.csv"])
    assert command()[0] == 0
    assert server.asked == [("train.csv", 0), ("train.csv", kept)]
    assert (folder / "train.csv").read_bytes() == server.files["train.csv"]


def test_server_without_ranges(folder, server, command):
    """A server that sends everything again: the part is not put in front of it."""
    server.ranges, server.cuts = False, [30_000]
    assert command()[0] == 0
    assert (folder / "train.csv").read_bytes() == server.files["train.csv"]


def test_complete_part(folder, server, command):
    """Killed between the last byte and the check: the server has nothing more (416), and nothing is fetched."""
    (folder / "train.csv.part").write_bytes(server.files["train.csv"])
    assert command()[0] == 0 and server.sent == 0
    assert (folder / "train.csv").exists() and not (folder / "train.csv.part").exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (file(rows=1999), "has 1,999 rows and the published file 2,000"),
        (file(header=("text", "label1")), "no column 'label2'"),
        (file(change=dict.fromkeys(range(2000), ("a", "b", "c"))), "no record is left"),
        (
            file(change=dict.fromkeys(range(21), ("Good.", "Business Category: Zoos", "Review Stars: 5.0"))),
            "21 of 2,000 rows cannot be used (label1 is outside its domain: 21)",
        ),
        (file()[:-60], "a quoted field is never closed"),
    ],
)
def test_wrong_file(folder, server, command, body, message):
    """Kept as .part and not fetched again; right after it was removed, and just as wrong when put there by hand."""
    server.files["train.csv"], right = body, server.files["train.csv"]
    part = folder / "train.csv.part"
    for _ in range(2):
        code, _, [error, _] = command()
        assert code == 2 and message in error and f"remove {part} and run this again" in error
        assert part.read_bytes() == body and not (folder / "train.csv").exists() and server.sent == len(body)
    part.rename(folder / "train.csv")
    code, _, [error, _] = command()
    assert code == 2 and message in error and f"remove {folder / 'train.csv'} and run" in error
    (folder / "train.csv").unlink()
    server.files["train.csv"] = right
    assert command()[0] == 0


def test_one_failure_does_not_stop_the_others(folder, server, command):
    """A closed port, a missing file and an unwritable place are one line each, and the last file still comes."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    (folder / "download.yaml").write_text(
        f"dev.csv: {{url: 'http://127.0.0.1:{port}/dev.csv', rows: 5}}\n"
        f"gone.csv: {{url: '{server.url('gone.csv')}', rows: 5}}\n"
        f"full.csv: {{url: '{server.url('train.csv')}', rows: 2000}}\n"
        f"train.csv: {{url: '{server.url('train.csv')}', rows: 2000}}\n"
    )
    (folder / "full.csv.part").mkdir()
    code, out, [dev, gone, full, summary] = command()
    assert code == 2 and "train.csv: 2,000 rows, checked" in out and (folder / "train.csv").exists()
    assert f"127.0.0.1:{port} cannot be reached" in dev and "save it as" in dev and str(folder / "dev.csv") in dev
    assert "answered 404" in gone and "full.csv" in full and "3 of 4 files are missing or wrong" in summary
    (folder / "dev.csv").write_bytes(file(rows=5))  # put there by hand
    assert command()[2][0].startswith(f"error: {folder / 'gone.csv'}")


def test_web_page_in_place_of_the_file(folder, server, command, monkeypatch):
    """What Google Drive answers above its quota: said as such, and what was fetched before is kept."""
    monkeypatch.setattr(download, "DRIVE", server.url("{}"))
    (folder / "download.yaml").write_text("train.csv: {google_drive: some-id, rows: 2000}")
    (folder / "train.csv.part").write_bytes(file()[:1000])
    server.pages["some-id"] = b"<html><head><title>Quota exceeded</title></head></html>"
    code, _, [error, _] = command()
    assert code == 2 and "sent a web page (Quota exceeded)" in error
    assert f"open https://drive.google.com/uc?id=some-id in a browser, save it as {folder / 'train.csv'}" in error
    assert (folder / "train.csv.part").stat().st_size == 1000
    server.pages.clear()
    server.files["some-id"] = file()
    assert command()[0] == 0 and server.asked == [("some-id", 1000)]


def test_unknown_names():
    with pytest.raises(InputError, match=r"did you mean yelp.*there are: openreview, pubmed, yelp"):
        download.main(["pubmed", "yelpp"])
    with pytest.raises(InputError, match="no data set 'rotten_tomatoes' with a"):
        download.main(["rotten_tomatoes"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train.csv: {url: 'http://a/b', google_drive: id, rows: 5}", "one of url and google_drive"),
        ("train.csv: {rows: 5}", "one of url and google_drive"),
        ("train.csv: {url: 'http://a/b'}", "'rows' is missing"),
        ("train.csv: {url: 'http://a/b', rows: many}", "not a number of rows"),
        ("train.csv: {url: 'http://a/b', rows: 5.0}", "not a number of rows"),
        ("train.csv: {url: 'http://a/b', rows: 0}", "not a number of rows"),
        ("train.csv: {url: 'http://a/b', rows: 5}\ntrain.csv: {url: 'http://a/c', rows: 5}", "is given twice"),
        ("train.csv: {ulr: 'http://a/b', rows: 5}", "nearest known key is 'url'"),
        ("train.csv: {url: 'file:///a/b', rows: 5}", "does not start with https"),
        ("train.parquet: {url: 'http://a/b', rows: 5}", "not the name of a CSV file"),
        ("../train.csv: {url: 'http://a/b', rows: 5}", "not the name of a CSV file"),
        ("train.csv: {", "this is not YAML"),
    ],
)
def test_bad_download_yaml(folder, content, message):
    (folder / "download.yaml").write_text(content)
    with pytest.raises(InputError, match=message):
        download.sources(str(folder))


def test_download_yaml_is_read_as_it_is_written(folder):
    """An id of digits alone is an id, and keeps its zeros; so is one that looks like a number of another kind."""
    for drive in ("0123456789", "1e10", "0x1f"):
        (folder / "download.yaml").write_text(f"TRAIN.CSV: {{google_drive: {drive}, rows: 5}}")
        (source,) = download.sources(str(folder))
        assert source.url.endswith(f"id={drive}&export=download&confirm=t") and source.rows == 5


ROWS = {  # train, validation, test: Xie et al. 2024
    "yelp": (1_939_290, 5_000, 5_000),
    "openreview": (8_396, 2_798, 2_798),
    "pubmed": (75_316, 14_423, 4_453),
}


def test_shipped():
    """Every split of the shipped data sets can be fetched, into the place where the spec looks for it."""
    assert download.known() == ["openreview", "pubmed", "yelp"]
    for name in download.known():
        spec = DatasetSpec.read(name)
        found = {source.path: source for source in download.sources(name)}
        assert {spec.path(split.file) for split in spec.splits.values()} == set(found)
        assert all(source.url.startswith("https://") for source in found.values())
        assert tuple(found[spec.path(split.file)].rows for split in spec.splits.values()) == ROWS[name]
        published = yaml.safe_load((spec.folder / "published.yaml").read_text())
        assert published["records"] == ROWS[name][0]
    assert download.shown(spec.folder / "train.csv") == str(Path("data", "yelp", "train.csv"))
