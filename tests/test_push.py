"""A release that travels: what leaves, what does not, and what stays as it is where it goes."""

from __future__ import annotations

import hashlib
import shutil
import sys
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError

from dpsda import commands
from dpsda.errors import InputError
from dpsda.privacy import certificate, signature
from dpsda.privacy.errors import LedgerError, PrivacyError
from dpsda.push import push
from tests.forks import ROOT
from tests.privacy.test_ledger import finished
from tests.privacy.test_signature import key

NAMES = {"certificate.json", "croissant.json", "README.md", "synthetic.csv", "synthetic.parquet"}


class Hub:
    """The data sets of a hub, and what of HfApi is called: files by data set, and which are private."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.commits = 0
        self.large = "synthetic.parquet"

    def __call__(self, token):
        assert token is True
        return self

    def repo_info(self, name, *, repo_type):
        assert repo_type == "dataset"
        if name not in self.files:
            raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None))
        return SimpleNamespace(private=self.private[name])

    def create_repo(self, name, *, repo_type, private):
        assert repo_type == "dataset" and name not in self.files
        self.files[name], self.private[name] = {".gitattributes": b"*.parquet filter=lfs"}, private

    def list_repo_tree(self, name, *, repo_type, recursive):
        assert repo_type == "dataset" and recursive
        for path, data in self.files[name].items():
            lfs = SimpleNamespace(sha256=hashlib.sha256(data).hexdigest()) if path == self.large else None
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            yield SimpleNamespace(path=path, lfs=lfs, blob_id=blob)

    def create_commit(self, name, operations, *, commit_message, repo_type):
        assert repo_type == "dataset" and commit_message
        self.commits += 1
        for added in operations:
            with added.as_file() as file:
                self.files[name][added.path_in_repo] = file.read()


@pytest.fixture
def hub(monkeypatch) -> Hub:
    stand_in = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", stand_in)
    return stand_in


@pytest.fixture
def run(tmp_path):
    """A finished run, whose folder has more than its release."""
    finished(tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_gets_the_release_and_nothing_else(run, tmp_path):
    target, before = tmp_path / "there" / "tickets", contents(run)
    said = push(run, str(target))
    assert set(contents(target)) == NAMES and contents(target) == contents(run / "release")
    assert said[-1] == f"{target}: has all 5 files of the release now" and len(said) == 6
    assert push(run, str(target)) == [f"{target}: has this release already; nothing was sent"]
    assert contents(run) == before


def test_what_a_killed_copy_lacks_is_added(run, tmp_path):
    push(run, str(tmp_path / "there"))
    (tmp_path / "there" / "certificate.json").unlink()
    assert push(run, str(tmp_path / "there"))[0].endswith("  certificate.json")


@pytest.mark.parametrize("name, data", [("notes.txt", b"mine"), ("README.md", b"mine"), ("synthetic.csv", None)])
def test_nothing_that_is_there_is_overwritten(run, tmp_path, name, data):
    there = tmp_path / "there" / name
    there.parent.mkdir()
    there.mkdir() if data is None else there.write_bytes(data)
    with pytest.raises(InputError, match=f"has {name}, which is not of this release"):
        push(run, str(tmp_path / "there"))
    assert list(there.parent.iterdir()) == [there] and (data is None or there.read_bytes() == data)


def test_a_place_that_can_be_no_target_is_told(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    for target, match in (
        (tmp_path / "file", "is a file"),
        (run / "release" / "copy", "in the run's own folder"),
        ("hf:me/reviews", "that is hub:USER/NAME"),
        ("https://example.org/me/reviews", "that is hub:USER/NAME"),
        ("hub:reviews", "that is hub:USER/NAME"),
    ):
        with pytest.raises(InputError, match=match):
            push(run, str(target))
    with pytest.raises(InputError, match="--public goes with a data set of the hub"):
        push(run, str(tmp_path / "there"), public=True)


@pytest.mark.parametrize("target", ["there", "hub:me/reviews"])
def test_a_dry_run_lists_and_changes_nothing(run, tmp_path, hub, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    *lines, last = push(run, target, dry_run=True)
    assert {line.split()[-1] for line in lines} == NAMES and lines[0].split()[0] == "13"
    assert last.startswith("that was a dry run: these 5 files would go to ")
    assert contents(tmp_path) == before and not hub.files


@pytest.mark.parametrize("target", ["there", "hub:me/reviews"])
def test_nothing_leaves_that_does_not_verify(run, tmp_path, hub, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    stray = run / "release" / "notes.txt"
    stray.write_text("mine")
    with pytest.raises(PrivacyError, match=r"notes\.txt: is no part of the release"):
        push(run, target)
    stray.unlink()
    (run / "release" / "synthetic.csv").write_text("text\nanother\n")
    with pytest.raises(PrivacyError, match=r"synthetic\.csv: not the file that was certified"):
        push(run, target)
    released = shutil.copytree(run / "release", tmp_path / "released")
    with pytest.raises(LedgerError, match="released: is a release without its ledger; give the folder of the run"):
        certificate.find(released)
    (run / certificate.FILE).unlink()
    with pytest.raises(LedgerError, match="no certificate here; has the run finished"):
        push(run, target)
    bare = shutil.copytree(ROOT / "tests/privacy/golden/format_1/augpe_no_noise", tmp_path / "bare")
    with pytest.raises(InputError, match="made without a guarantee"):
        push(bare, target)
    assert not (tmp_path / "there").exists() and not hub.files


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_a_signature_goes_along_if_it_is_one(run, tmp_path):
    push(run, str(tmp_path / "there"))
    signed = signature.sign(run, key(tmp_path / "ours"))
    assert push(run, str(tmp_path / "there"))[0].endswith("  certificate.json.sig")
    signed.write_text("edited")
    with pytest.raises(PrivacyError, match="not a signature of this certificate"):
        push(run, str(tmp_path / "elsewhere"))
    assert not (tmp_path / "elsewhere").exists()


def test_a_data_set_of_the_hub(run, hub):
    assert push(run, "hub:me/reviews")[-1] == "hub:me/reviews: has all 5 files of the release now"
    assert hub.private == {"me/reviews": True} and hub.commits == 1
    there = {name: data for name, data in hub.files["me/reviews"].items() if name != ".gitattributes"}
    assert there == contents(run / "release")
    assert push(run, "hub:me/reviews") == ["hub:me/reviews: has this release already; nothing was sent"]
    with pytest.raises(InputError, match="is private; leave --public out"):
        push(run, "hub:me/reviews", public=True)
    hub.private["me/reviews"] = False
    with pytest.raises(InputError, match="is public; give --public"):
        push(run, "hub:me/reviews")
    push(run, "hub:me/others", public=True)
    assert hub.private["me/others"] is False and hub.commits == 2


@pytest.mark.parametrize("name", ["data/train.csv", "README.md", "synthetic.parquet"])
def test_nothing_of_the_hub_is_overwritten(run, hub, name):
    hub.files["me/reviews"], hub.private["me/reviews"] = {name: b"mine"}, True
    with pytest.raises(InputError, match=f"hub:me/reviews: has {name}, which is not of this release"):
        push(run, "hub:me/reviews")
    assert hub.files["me/reviews"] == {name: b"mine"}


@pytest.mark.parametrize(
    "error", [LocalTokenNotFoundError("Token is required\nand more"), ConnectionError("no network")], ids=repr
)
def test_an_error_of_the_hub_is_one_line(run, hub, monkeypatch, capsys, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(hub, "repo_info", fails)
    monkeypatch.setattr(sys, "argv", ["dpsda", "push", str(run), "hub:me/reviews"])
    with pytest.raises(SystemExit) as stop:
        commands.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and str(error).splitlines()[0] in said
    assert said.startswith("error: hub:me/reviews: ") and "check the name, the token" in said
