"""spec.yaml: what is read, and one line for everything that is wrong."""

import pytest
import yaml

from dpsda.assets import DATA
from dpsda.data import DatasetSpec, Label, Split
from dpsda.data.spec import normalise
from dpsda.errors import InputError

GOOD = {
    "text": "review",
    "labels": [{"column": "stars", "domain": [1, 2.0, "3"]}, {"column": "kind", "domain": ["a", "b"]}],
    "user": "author",
    "filter": {"language": ["en"]},
    "splits": {"train": {"file": "x.csv", "hash": [0, 0.9]}, "test": "y.parquet", "public": ["test"]},
}


@pytest.fixture
def write(tmp_path):
    def write(content):
        folder = tmp_path / "reviews"
        folder.mkdir(exist_ok=True)
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        (folder / "spec.yaml").write_text(text, encoding="utf-8")
        return folder

    return write


def test_reads_everything(write):
    folder = write(GOOD)
    spec = DatasetSpec.read(folder)
    assert spec == DatasetSpec.read(folder / "spec.yaml") == DatasetSpec.read(str(folder))
    assert spec.name == "reviews" and spec.text == "review" and spec.user == "author"
    assert spec.labels == (Label("stars", ("1", "2.0", "3")), Label("kind", ("a", "b")))
    assert spec.label_columns == ["stars", "kind"]
    assert spec.cells == [("1", "a"), ("1", "b"), ("2.0", "a"), ("2.0", "b"), ("3", "a"), ("3", "b")]
    assert spec.filter == {"language": ("en",)}
    assert spec.splits == {"train": Split("x.csv", (0.0, 0.9)), "test": Split("y.parquet")}
    assert spec.public == {"test"}
    assert spec.columns == ["review", "stars", "kind", "language", "author"]
    assert spec.path("x.csv") == folder / "x.csv"
    assert str(spec.path("/somewhere/x.csv")) == "/somewhere/x.csv"


def test_no_labels_is_one_empty_cell(write):
    for labels in ({}, {"labels": []}):
        assert DatasetSpec.read(write({"text": "t", "splits": {"train": "x.csv"}} | labels)).cells == [()]


def test_every_shipped_spec_reads():
    shipped = list(DATA.glob("*/spec.yaml"))
    assert shipped
    for path in shipped:
        spec = DatasetSpec.read(path.parent.name)
        assert spec.splits and len(spec.cells) >= 1


def change(**top):
    return {key: value for key, value in (GOOD | top).items() if value != "gone"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (change(label=[]), "unknown key 'label'; the nearest known key is 'labels'"),
        (change(labels=[{"colunm": "a", "domain": [1]}]), r"labels\[0\]: unknown key 'colunm'; .* 'column'"),
        (change(splits={"train": {"file": "x", "hsh": [0, 1]}}), "splits.train: unknown key 'hsh'; .* 'hash'"),
        (change(text="gone"), "the key 'text' is missing"),
        (change(splits="gone"), "the key 'splits' is missing"),
        (change(splits={"public": []}), "names no split"),
        (change(splits={"train": "x", "public": ["dev"]}), "'dev' is not a split; there are: train"),
        (change(splits={"train": {"file": "x", "hash": [0.5, 0.5]}}), "0 <= low < high <= 1"),
        (change(splits={"train": {"file": "x", "hash": [0, 1.5]}}), "0 <= low < high <= 1"),
        (change(splits={"train": {"file": "x", "hash": ["a", 1]}}), "two numbers"),
        (change(splits={"train": [3]}), "splits.train: is not a mapping"),
        (change(splits={"train": {"file": "x", "hash": [0, 0.5, 1]}}), "two numbers"),
        (change(splits={"train": {"file": "x", "hash": [0, ".nan"]}}), "two numbers"),
        (change(splits={"train": {"file": "x", "hash": "09"}}), "two numbers"),
        (change(splits={"train": {"file": "x", "hash": None}}), "two numbers"),
        (change(labels=[{"column": "a", "domain": []}]), r"labels\[0\].domain: is empty"),
        (change(labels=[{"column": "a", "domain": [5, "5.0"]}]), "names one value twice"),
        (change(labels=[{"column": "a", "domain": ["\u00e9", "e\u0301"]}]), "names one value twice"),
        (change(labels=[{"column": "a", "domain": ["x", None]}]), r"labels\[0\].domain: holds something .* in quotes"),
        (change(labels=[{"column": "a", "domain": [["x"]]}]), r"labels\[0\].domain: holds something .* in quotes"),
        (change(filter={"a": [None]}), "filter.a: holds something .* in quotes"),
        (change(labels=[{"column": "a{b", "domain": [1]}]), "no template can name the column 'a{b', for its brace"),
        (change(labels=[{"column": "}", "domain": [1]}]), "rename the column '}' in the file, and here"),
        (change(labels=[{"column": "review", "domain": [1]}]), "two roles"),
        (change(labels={"column": "a"}), "labels: is not a list"),
        (change(filter={"language": "en"}), "filter.language: is not a list"),
        (change(text=["a"]), r"text: \['a'\] is not a name"),
        ("text: a\ntext: b\nsplits: {train: x}", "the key 'text' is given twice in what begins in line 1"),
        ("- just\n- a list", "is not a mapping"),
        ("text: [unclosed\nlabels: 3", "spec.yaml, line 2: this is not YAML"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file(write, content, message):
    folder = write(content)
    with pytest.raises(InputError, match=message) as error:
        DatasetSpec.read(folder)
    assert "\n" not in str(error.value)
    assert str(folder / "spec.yaml") in str(error.value)


def test_values_are_read_as_they_are_written(write):
    """What YAML takes for a number, a truth or a date is the value that stands in the file."""
    spec = DatasetSpec.read(
        write(
            "text: 3\nuser: 007\nfilter: {zip: [02134], on: [yes]}\n"
            "splits: {train: 1e3, 5.0: {file: 08, hash: [0, .5]}}\n"
            "labels:\n- {column: yes, domain: [01, 02, 08]}\n- {column: version, domain: [3.9, 3.10]}\n"
            "- {column: d, domain: [2024-05-01, true, 1_000, 0x1F, 1e3, 'null', ~x]}\n"
        )
    )
    assert spec.text == "3" and spec.user == "007" and spec.filter == {"zip": ("02134",), "on": ("yes",)}
    assert spec.splits == {"train": Split("1e3"), "5.0": Split("08", (0.0, 0.5))}
    assert spec.labels == (
        Label("yes", ("01", "02", "08")),
        Label("version", ("3.9", "3.10")),
        Label("d", ("2024-05-01", "true", "1_000", "0x1F", "1e3", "null", "~x")),
    )


@pytest.mark.parametrize("column", ["text", "id", "parent_id", "candidate_id", "noisy"])
def test_a_label_column_is_none_of_ours(write, column):
    """Released texts would be the labels; the text, the user and a filter may have any of these names."""
    other = {"text": "body", "splits": {"train": "x.csv"}}
    labels = [{"column": column, "domain": ["a"]}]
    with pytest.raises(
        InputError, match=f"has a column {column!r} of its own; rename the column {column!r} in the file"
    ):
        DatasetSpec.read(write(other | {"labels": labels}))
    assert DatasetSpec.read(write(other | {"text": column, "user": f"{column}s"})).text == column
    assert DatasetSpec.read(write(other | {"user": column, "filter": {column: ["x"]}})).user == column


def test_no_such_data_set_names_those_there_are(tmp_path):
    for name in ("no_such_data", tmp_path / "spec.yaml", tmp_path):
        with pytest.raises(InputError, match="rotten_tomatoes"):
            DatasetSpec.read(name)


def test_unknown_split_names_those_there_are(write):
    with pytest.raises(InputError, match="no split 'dev'; there are: train, test"):
        DatasetSpec.read(write(GOOD)).split("dev")


def test_one_spelling_for_one_label():
    assert {normalise(value) for value in (5, 5.0, "5", "5.0", " 5 ", "5.000")} == {"5"}
    assert normalise("Review Stars: 5.0") == "Review Stars: 5.0"
    assert (
        normalise(4.5) == "4.5"
        and normalise("v1.0") == "v1.0"
        and normalise("50") == "50"
        and normalise("-1.0") == "-1"
    )
