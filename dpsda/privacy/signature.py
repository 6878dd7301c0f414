"""A signature on a certificate, by an SSH key: who vouches for a release. ssh-keygen of OpenSSH makes and checks it."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from dpsda.privacy import certificate
from dpsda.privacy.errors import PrivacyError
from dpsda.privacy.files import write_atomic

NAMESPACE = "dpsda-release"  # a signature of anything else by the same key does not pass for one of a certificate


def sign(run: Path, key: Path) -> Path:
    """Sign the certificate of a run that verifies; the file of the signature.

    `key` is a private key, or a public one whose private part ssh-agent has.
    """
    path, key = certificate.find(run), key.expanduser()
    data = path.read_bytes()
    certificate.verify(run)
    if not key.is_file():
        raise PrivacyError(f"--key {key}: no such file; `ssh-keygen -t ed25519` makes a key")
    signed = certificate.signature(path)
    with tempfile.TemporaryDirectory() as scratch:  # ssh-keygen writes beside its file, and asks before it overwrites
        copy = Path(scratch) / path.name
        copy.write_bytes(data)
        done = _keygen("sign", "-f", key, copy)
        if done.returncode:
            raise PrivacyError(f"--key {key}: ssh-keygen does not sign with it ({_last_line(done.stderr)})")
        write_atomic(signed, certificate.signature(copy).read_bytes())
    return signed


def check(run: Path, signers: Path | None = None) -> str:
    """Whose signature is on the certificate of a run, as ssh-keygen tells it; '' where there is none.

    `signers` is a file of keys as ssh-keygen knows them (ALLOWED SIGNERS in its manual). Raises PrivacyError for a
    signature of anything else than this certificate, and with `signers`, for one by nobody of them, or none.
    """
    path = certificate.find(run)
    signed = certificate.signature(path)
    if signers is not None and not signers.is_file():
        raise PrivacyError(f"--signers {signers}: no such file; a line of it is a name and a public key")
    if not signed.is_file():
        if signers is not None:
            raise PrivacyError(f"{signed}: no signature here, and --signers asks for one; `dpsda sign` makes it")
        return ""
    data = path.read_bytes()
    done = _keygen("check-novalidate", "-s", signed, data=data)
    if done.returncode:
        raise PrivacyError(
            f"{signed}: not a signature of this certificate; one of the two was edited, or sign it again"
        )
    if signers is not None:
        names = _keygen("find-principals", "-f", signers, "-s", signed).stdout.decode().splitlines()
        tried = (_keygen("verify", "-f", signers, "-I", name, "-s", signed, data=data) for name in names)
        good = next((done for done in tried if not done.returncode), None)
        if good is None:
            raise PrivacyError(f"{signed}: signed by nobody in {signers}, but {_who(done)}; trust it no further")
        done = good
    return _who(done)


def _keygen(action: str, *words: object, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """What ssh-keygen says. Without `data` it has the terminal, where it may ask for a passphrase."""
    command = ["ssh-keygen", "-Y", action, "-n", NAMESPACE, *map(str, words)]
    try:
        return subprocess.run(command, input=data, capture_output=True)
    except FileNotFoundError:
        raise PrivacyError("ssh-keygen: not installed, and signatures need it; install OpenSSH") from None


def _who(done: subprocess.CompletedProcess[bytes]) -> str:
    """`for NAME with ED25519 key SHA256:...`, without the name where none was asked for."""
    return done.stdout.decode().strip().partition(" signature ")[2]


def _last_line(said: bytes) -> str:
    return (said.decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
