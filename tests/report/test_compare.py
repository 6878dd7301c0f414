"""`dpsda compare`: a page of runs, and nothing else of theirs is made anew."""

from __future__ import annotations

import pytest

from dpsda.errors import InputError
from dpsda.report.compare import compare


def test_runs_from_any_folder(make_run, tmp_path, monkeypatch):
    runs = [make_run("a"), make_run("b")]
    for folder in (runs[0], runs[1] / "private"):
        (folder / "metrics_test.csv").write_text("set,texts,runs,fid\n0,60,1,0.5678\n2,60,1,0.4321\n")
    for noted in runs[1].glob("distances_*.csv"):
        noted.unlink()
    monkeypatch.chdir(runs[1])
    own = runs[0] / "private" / "comparison.html"
    assert compare(runs) == [str(own)] and oct(own.stat().st_mode & 0o777) == "0o600"
    assert "Quality against epsilon" in own.read_text() and not [*tmp_path.rglob("report.html")]
    bare, path = compare([runs[0], runs[1]], tmp_path / "out.html")  # of the second, what is measured is private
    assert path == str(tmp_path / "out.html") and bare.startswith(f"nothing is measured of {runs[1]}; ")
    with pytest.raises(InputError, match="a: is one run; name those"):
        compare(runs[:1])
