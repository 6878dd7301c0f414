"""What a release says of itself to the hub, and what it leaves of an earlier one."""

from __future__ import annotations

import contextlib

import pandas as pd
import pytest
import yaml

from dpsda import release
from dpsda.privacy import certificate
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
