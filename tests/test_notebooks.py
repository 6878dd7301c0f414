"""Both notebooks, run on small data; stored without outputs, lest figures on private data are committed."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from dpsda.privacy.accounting import default_delta, gaussian_noise
from tests.conftest import write_rows

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebook").glob("*.ipynb"))


def executed(name: str, folder: Path) -> list[str]:
    """What the cells of the notebook print, and their tables as text; `folder` is its working directory."""
    notebook = nbformat.read(next(path for path in NOTEBOOKS if path.stem == name), 4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    return [output.get("text") or output["data"]["text/plain"] for output in outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)


def test_dp_budget(tmp_path):
    shown = executed("dp_budget", tmp_path)
    table = next(text for text in shown if "over budget" in text)
    found = [line.replace("over budget", "OVER").split()[1:] for line in table.splitlines()[1:]]
    assert [row[:6] for row in found] == [
        ["openreview", "1", "11.6000", "1.0000", "kept", "11.5998"],
        ["openreview", "2", "6.2200", "1.9967", "kept", "6.2107"],
        ["openreview", "4", "3.3800", "3.9923", "kept", "3.3743"],
        ["pubmed", "1", "13.2600", "0.9993", "kept", "13.2506"],
        ["pubmed", "2", "7.0100", "1.9972", "kept", "7.0010"],
        ["pubmed", "4", "3.7500", "3.9992", "kept", "3.7493"],
        ["yelp", "1", "15.3400", "1.0045", "OVER", "15.4045"],
        ["yelp", "2", "8.0300", "2.0024", "OVER", "8.0389"],
        ["yelp", "4", "4.2400", "4.0053", "OVER", "4.2451"],
    ]
    ours = [[float(x) for x in row[6:]] for row in found[6:]]  # yelp with T votes, and with T + 1
    for row, expected in zip(ours, [(15.4045, 16.156), (8.0389, 8.431), (4.2451, 4.452)], strict=True):
        assert row == pytest.approx(expected, abs=2e-3)
    everything = "".join(shown)
    assert "21.7852" in everything  # sqrt(2) * 15.4045, where a record is replaced
    sigma = float(re.search(r"11 releases: sigma (\S+)", everything)[1])
    assert sigma == pytest.approx(gaussian_noise(2, 11, default_delta(50_000)), rel=6e-4)


def test_text_lens_distribution(tmp_path, dataset, monkeypatch):
    """Real texts of 3 tokens; synthetic ones of 9, then half of them, then all, of 3."""
    row = {"text": "a good film", "stars": "low", "kind": "film", "author": "a"}
    write_rows(dataset / "train.csv", [row] * 40)
    for t, lengths in enumerate([[9, 9, 9, 9], [3, 9, 3, 9], [3, 3, 3, 3]]):
        (tmp_path / "run" / str(t)).mkdir(parents=True)
        texts = "".join(f"{i},,{' '.join(['film'] * n)}\r\n" for i, n in enumerate(lengths))
        (tmp_path / "run" / str(t) / "samples.csv").write_text("id,parent_id,text\r\n" + texts)
    for name, value in {"RUN": tmp_path / "run", "DATASET": dataset, "SPLIT": "train", "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, str(value))
    shown = executed("text_lens_distribution", tmp_path)
    assert any("made_up/train: PRIVATE" in text for text in shown)
    table = next(text for text in shown if "Wasserstein" in text)
    found = [[float(x) for x in line.split()] for line in table.splitlines() if re.match(r"\d", line)]
    # iteration, texts, mean length, mean length of the real ones, Wasserstein, total variation in bars of 4 tokens
    assert found == [[0, 4, 9, 3, 6, 1], [1, 4, 6, 3, 3, 0.5], [2, 4, 3, 3, 0, 0]]
