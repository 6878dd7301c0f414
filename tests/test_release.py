"""What a release says of itself to the hub, and what it leaves of an earlier one."""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from dpsda import release
from dpsda.privacy import certificate
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.files import sha256
from dpsda.privacy.ledger import Ledger
from dpsda.runs import RunFolder
from tests.privacy.test_ledger import finished


def published(root, count, about):
    """The front matter of a release of so many texts."""
    with contextlib.closing(Ledger(root)) as ledger:
        release.publish(RunFolder(root), ledger, pd.DataFrame({"text": ["a"] * count}), about, {})
    certificate.verify(root)
    return yaml.safe_load((root / "release" / certificate.CARD).read_text().split("---\n")[1])


def test_a_card_has_what_the_hub_asks_for(tmp_path):
    finished(tmp_path)
    front = published(tmp_path, 1000, {"license": "cc-by-4.0", "language": "en, no"})
    assert front["license"] == "cc-by-4.0" and front["language"] == ["en", "no"]
    assert front["tags"] == ["synthetic", "differential-privacy"] and front["size_categories"] == ["1K<n<10K"]
    [config] = front["configs"]
    assert config["data_files"] == [{"split": "train", "path": "synthetic.parquet"}]
    front = published(tmp_path, 999, {"method": "made up"})
    assert front["license"] == "unknown" and "language" not in front and front["size_categories"] == ["n<1K"]


@pytest.mark.parametrize("again", ["published", "audited"])
def test_a_signature_goes_with_its_certificate(tmp_path, again):
    finished(tmp_path)
    signed = certificate.signature(tmp_path / certificate.FILE)
    signed.write_text("of the certificate before")
    if again == "published":
        published(tmp_path, 1, {"method": "made up"})
    else:
        release.add_audit(RunFolder(tmp_path), "an attack proves nothing")
    assert not signed.exists()
    certificate.verify(tmp_path)


ABOUT = {"data set": "tickets", "license": "cc-by-4.0", "language": "en, no"}
TABLE = {
    "id": ["1/0", "1/1"],
    "parent_id": ["0/1", ""],
    "text": ['a "quoted"\nline', "æ, ø"],
    "size (cm)/x": ["large", ""],
    "count": pd.array([1, None], dtype="Int64"),
    "price": [1.5, None],
    "day": [datetime.date(2026, 1, 2), None],
}
TYPES = {**dict.fromkeys(TABLE, pa.string()), "count": pa.int64(), "price": pa.float64(), "day": pa.date32()}


def described(root, frame, about):
    """The Croissant metadata of a release."""
    with contextlib.closing(Ledger(root)) as ledger:
        release.publish(RunFolder(root), ledger, frame, about, TYPES)
    certificate.verify(root)
    return json.loads((root / "release" / certificate.METADATA).read_text(encoding="utf-8"))


def test_the_metadata_describe_the_files_that_are_there(tmp_path):
    """What mlcroissant asks of Croissant 1.1; it took and read the release of this table (docs/certificate.md)."""
    finished(tmp_path)
    told = described(tmp_path, pd.DataFrame(TABLE), ABOUT)
    assert told["@type"] == "sc:Dataset" and told["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert told["name"] == "tickets, synthetic" and told["inLanguage"] == ["en", "no"]
    assert told["license"] == {"@type": "sc:CreativeWork", "name": "cc-by-4.0"}
    statement = json.loads((tmp_path / certificate.FILE).read_text())["statement"]
    assert statement in told["description"]
    files = {file["@id"]: file for file in told["distribution"]}
    assert set(files) == set(certificate.TEXTS)
    for name, file in files.items():
        assert file["contentUrl"] == name and file["sha256"] == sha256(tmp_path / "release" / name)
    [records] = told["recordSet"]
    with open(tmp_path / "release" / "synthetic.csv", newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert [field["name"] for field in records["field"]] == header == list(TABLE)
    kinds = ["sc:Text", "sc:Text", "sc:Text", "sc:Text", "sc:Integer", "sc:Float", "sc:Date"]
    assert [field["dataType"] for field in records["field"]] == kinds
    for field in records["field"]:
        assert unquote(field["@id"]) == f"texts/{field['name']}" and " " not in field["@id"]
        assert field["source"] == {"fileObject": {"@id": "synthetic.csv"}, "extract": {"column": field["name"]}}
    used = {key for part in (told, *told["distribution"], records, *records["field"]) for key in part if key[0] != "@"}
    of_schema = {"description", "distribution", "inLanguage", "keywords", "license", "name"}
    of_schema |= {"contentUrl", "encodingFormat", "sha256"}
    assert used - of_schema <= set(told["@context"])


def test_the_metadata_say_nothing_that_is_not_known(tmp_path):
    finished(tmp_path)
    told = described(tmp_path, pd.DataFrame({"text": ["a"]}), {"method": "made up"})
    assert told["name"] == "texts, synthetic" and "license" not in told and "inLanguage" not in told


def test_the_metadata_are_certified_with_the_rest(tmp_path):
    finished(tmp_path)
    described(tmp_path, pd.DataFrame(TABLE), ABOUT)
    path = tmp_path / "release" / certificate.METADATA
    data = path.read_bytes()
    path.write_bytes(data.replace(b"cc-by-4.0", b"cc0-1.0"))
    with pytest.raises(PrivacyError, match=r"croissant\.json: not the file that was certified"):
        certificate.verify(tmp_path)
    path.unlink()
    with pytest.raises(PrivacyError, match=r"croissant\.json: not the file that was certified"):
        certificate.verify(tmp_path)
    path.write_bytes(data)
    with contextlib.closing(Ledger(tmp_path)) as ledger:
        release.publish(RunFolder(tmp_path), ledger, None, {"method": "a model"}, {})
    certificate.verify(tmp_path)
    assert not path.exists()
