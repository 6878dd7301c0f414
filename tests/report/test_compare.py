"""`dpsda compare`: a page of runs, and nothing else of theirs is made anew."""

from __future__ import annotations

import re

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
    told = own.read_text()
    assert "0.432" in told and "0.568" in told
    assert "Quality against epsilon" not in told and not [*tmp_path.rglob("report.html")]  # both have one epsilon
    bare, path = compare([runs[0], runs[1]], tmp_path / "out.html")  # of the second, what is measured is private
    assert path == str(tmp_path / "out.html") and bare.startswith(f"nothing is measured of {runs[1]}; ")
    with pytest.raises(InputError, match="a: is one run; name those"):
        compare(runs[:1])
    (runs[0] / "metrics_test.csv").unlink()
    own.unlink()
    for noted in runs[0].glob("distances_*.csv"):
        noted.unlink()
    (runs[1] / "private" / "metrics_test.csv").unlink()
    with pytest.raises(
        InputError, match=r"nothing to compare: nothing is measured of .*a; .* does that, and nothing is"
    ):
        compare(runs)
    assert not own.exists()


def test_a_run_stands_beside_its_first_texts_and_real_ones(make_run):
    """Spreads, too; and the reference is named once where all figures have it."""
    runs = [make_run("a"), make_run("b")]
    for run, last in zip(runs, ("0.4321", "0.4444"), strict=True):
        for noted in run.glob("distances_*.csv"):
            noted.unlink()
        lines = ["set,texts,runs,fid,fid_std", "floor,60,5,0.1234,0.01", f"0,60,5,0.5678,0.02\n2,60,5,{last},0.03"]
        (run / "private" / "metrics_train.csv").write_text("\n".join(lines) + "\n")
    page = (runs[0] / "private" / "comparison.html").read_text() if compare(runs) else ""
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr[^>]*>(.*?)</tr>", page)]
    found = {row[0]: row[2] for row in rows if row}
    assert found == {
        **{"a": "0.432 ± 0.030", "a, iteration 0": "0.568 ± 0.020", "b": "0.444 ± 0.030"},
        **{"b, iteration 0": "0.568 ± 0.020", "real against real": "0.123 ± 0.010"},
    }
    assert "All are against the split train." in page and "FID), train" not in page and "dpsda total" in page
