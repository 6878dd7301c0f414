"""Who vouches for a release: signatures by keys that are made here."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys

import pytest

from dpsda.privacy import certificate, signature
from dpsda.privacy.__main__ import main
from dpsda.privacy.errors import PrivacyError
from tests.forks import ROOT
from tests.privacy.test_ledger import finished

# OpenSSH is the user's own: nothing here depends on it but these two commands, which say where it is missing
pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="signatures need OpenSSH's ssh-keygen")


@pytest.fixture
def run(tmp_path):
    finished(tmp_path / "run")
    return tmp_path / "run"


def key(path, passphrase=""):
    """A new private key, with its public one beside it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", path], check=True)
    return path


def signers(path, **keys):
    path.write_text("".join(f"{name}@example.org {of.with_suffix('.pub').read_text()}" for name, of in keys.items()))
    return path


def test_a_signature_tells_who_made_it(run, tmp_path, capsys):
    ours, other = key(tmp_path / "ours"), key(tmp_path / "other")
    assert signature.check(run) == ""
    assert main(["sign", str(run), "--key", str(ours)]) == 0 and main(["verify", str(run)]) == 0
    assert "signed with ED25519 key SHA256:" in capsys.readouterr().out
    known = signers(tmp_path / "known", other=other, ours=ours)
    assert main(["verify", str(run), "--signers", str(known)]) == 0
    assert "signed for ours@example.org with ED25519 key SHA256:" in capsys.readouterr().out
    signature.sign(run, other)  # in the place of the first
    assert signature.check(run, known).startswith("for other@example.org with ")


def test_another_key_an_edit_and_a_lack_fail(run, tmp_path, capsys):
    ours, other = key(tmp_path / "ours"), key(tmp_path / "other")
    known = signers(tmp_path / "known", ours=ours)

    def fails(match, *words):
        assert main(["verify", str(run), *words]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and said.startswith("error: ") and match in said, said

    fails("no signature here, and --signers asks for one", "--signers", str(known))
    signature.sign(run, other)
    fails(f"signed by nobody in {known}", "--signers", str(known))
    fails("no such file", "--signers", str(tmp_path / "none"))
    path = run / certificate.FILE
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"\n}", b" \n}"))  # which says the same, and is not what was signed
    fails("not a signature of this certificate")
    path.write_bytes(whole)
    certificate.signature(path).write_text("edited")
    fails("not a signature of this certificate")


def test_a_signature_for_something_else_is_none(run, tmp_path):
    path = run / certificate.FILE
    words = ["ssh-keygen", "-Y", "sign", "-n", "file", "-f", key(tmp_path / "ours"), path]
    subprocess.run(words, check=True, capture_output=True)
    with pytest.raises(PrivacyError, match="not a signature of this certificate"):
        signature.check(run)


def test_what_cannot_sign_is_one_line(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "text").write_text("no key")
    for words, match in (
        (["--key", str(tmp_path / "none")], "no such file"),
        (["--key", str(tmp_path / "text")], "ssh-keygen does not sign with it ("),
        ([], "required: --key"),
    ):
        assert main(["sign", str(run), *words]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and match in said
    (run / "release" / "synthetic.csv").write_text("edited")
    with pytest.raises(PrivacyError, match="not the file that was certified"):
        signature.sign(run, key(tmp_path / "ours"))
    assert not certificate.signature(run / certificate.FILE).exists()


def test_without_ssh_keygen_a_signature_is_not_taken_for_good(run, tmp_path, monkeypatch):
    ours = key(tmp_path / "ours")
    signature.sign(run, ours)
    monkeypatch.setenv("PATH", str(tmp_path))
    for act in (lambda: signature.check(run), lambda: signature.sign(run, ours)):
        with pytest.raises(PrivacyError, match="ssh-keygen: not installed"):
            act()


def test_a_passphrase_is_asked_for_on_the_terminal(run, tmp_path):
    ours = key(tmp_path / "ours", "open sesame")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-m", "dpsda", "sign", str(run), "--key", str(ours)])
    said = b""
    while b"passphrase" not in said:
        said += os.read(terminal, 1024)
    os.write(terminal, b"open sesame\n")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)
    assert signature.check(run).startswith("with ED25519 key ")
