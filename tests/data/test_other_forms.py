"""Records that lie in a folder of text files, or in a data set of `datasets`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from dpsda.data import DatasetSpec, load
from dpsda.data.loading import column_names
from dpsda.errors import InputError
from dpsda.start import check_apart

TEXTS = ["Cold soup.", "A “bright”, slow film.\n\nTwo\tlines.", "Fine bread."]


def spec(folder, file, text="text", labels=None):
    folder.mkdir(parents=True, exist_ok=True)
    content = {"text": text, "labels": labels or [], "splits": {"train": str(file)}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(content))
    return DatasetSpec.read(folder)


@pytest.fixture
def notes(tmp_path):
    """Three texts in folders by kind, and what is none."""
    root = tmp_path / "notes"
    for name, text in zip(["food/1.txt", "film/deep/2.txt", "food/3.txt"], TEXTS, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode())
    for name in (".hidden.txt", ".git/x.txt", "food/readme.md"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no record")
    (root / "link.txt").symlink_to(root / "food" / "1.txt")
    return root


def test_a_file_is_a_record(tmp_path, notes):
    corpus = load(spec(tmp_path / "d", notes), "train")
    assert [*corpus.texts] == [TEXTS[1], TEXTS[0], TEXTS[2]]  # in the order of their paths
    kinds = [{"column": "folder", "domain": ["food", "film/deep"]}]
    assert load(spec(tmp_path / "d", notes, labels=kinds), "train").cells.tolist() == [1, 0, 0]
    assert column_names(notes) == ["text", "file", "folder"]


def test_a_file_that_is_not_utf8_is_dropped_by_itself(tmp_path, notes):
    (notes / "food" / "2.txt").write_bytes(b"caf\xe9")
    (notes / os.fsdecode(b"caf\xe9.txt")).write_text("A � is a text.")
    (notes / "food" / "4.txt").write_bytes(b"\xef\xbb\xbfWith a mark.")
    (notes / "food" / "5.txt").write_bytes(b" \n")
    corpus = load(spec(tmp_path / "d", notes), "train")
    assert sorted(corpus.texts) == sorted([*TEXTS, "A � is a text.", "With a mark."])
    assert corpus.dropped.reason.tolist() == ["not UTF-8, or no JSON", "no text"]


def test_what_a_folder_lacks(tmp_path, notes):
    with pytest.raises(InputError, match="has no column 'body'; a folder of text files has text, file, folder"):
        load(spec(tmp_path / "d", notes, text="body"), "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is empty: it has no records"):
        load(spec(tmp_path / "d", tmp_path / "empty"), "train")
    with pytest.raises(InputError, match="may not lie in one folder"):
        check_apart(notes / "run", spec(tmp_path / "d", notes))  # whose NEVER_SHARE.txt would be a record


@pytest.fixture
def saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    kinds = datasets.Features({"body": datasets.Value("string"), "kind": datasets.ClassLabel(names=["food", "film"])})
    table = datasets.Dataset.from_dict({"body": TEXTS, "kind": [0, 1, 0]}, features=kinds)
    datasets.DatasetDict({"train": table, "test": table.select([1])}).save_to_disk(tmp_path / "saved")
    table.save_to_disk(tmp_path / "one")
    return tmp_path / "saved"


def test_a_saved_data_set(tmp_path, saved):
    labels = [{"column": "kind", "domain": ["film", "food"]}]
    corpus = load(spec(tmp_path / "d", f"hf:{saved}", "body", labels), "train")
    assert [*corpus.texts] == TEXTS and corpus.cells.tolist() == [1, 0, 1]
    assert [*load(spec(tmp_path / "d", f"hf:{saved}#test", "body"), "train").texts] == [TEXTS[1]]
    assert [*load(spec(tmp_path / "d", "x.csv", "body"), "train", file=f"hf:{tmp_path / 'one'}").texts] == TEXTS
    assert column_names(Path(f"hf:{saved}")) == ["body", "kind"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf:{}#val", "has no split 'val'; there are: train, test"),
        ("hf:{}/../one#train", "is one split, so leave #train out"),
        ("hf:nobody/nothing-at-all", "cannot be loaded .* check the name and the network"),
    ],
)
def test_what_a_data_set_lacks(tmp_path, saved, monkeypatch, name, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with pytest.raises(InputError, match=said) as error:
        load(spec(tmp_path / "d", name.format(saved), "body"), "train")
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="has no column 'text'"):
        load(spec(tmp_path / "d", f"hf:{saved}"), "train")
    with pytest.raises(InputError, match="may not lie in one folder"):
        check_apart(tmp_path / "saved" / "run", spec(tmp_path / "d", f"hf:{saved}"))
