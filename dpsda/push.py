"""A release to where others get it: a folder, or a data set of the Hugging Face hub.

Nothing but RUN/release/ leaves, after the checks of `dpsda verify`. Nothing that is there already is overwritten.

dpsda push RUN /srv/data/tickets          a folder, new or empty
dpsda push RUN hub:USER/NAME              a private data set of the hub; --public for one that everybody sees
dpsda push RUN hub:USER/NAME --dry_run    which files would leave
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

from dpsda.arg_utils import Parser, run
from dpsda.errors import InputError, first_line

HUB = "hub:"
OF_THE_HUB = ".gitattributes"  # a file that every new data set of the hub has


def main() -> None:
    parser = Parser("dpsda push", __doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="the --result_folder of a finished run")
    parser.add_argument("target", metavar="TARGET", help="a folder, or hub:USER/NAME")
    parser.add_argument("--public", action="store_true", help="everybody may see the data set of the hub")
    parser.add_argument("--dry_run", action="store_true", help="list what would leave, and change nothing")
    args = parser.parse_args()
    for line in push(args.run, args.target, public=args.public, dry_run=args.dry_run):
        print(line)


def push(root: Path, target: str, *, public: bool = False, dry_run: bool = False) -> list[str]:
    """Copy the release of a run to `target`; what there is to say of it. InputError or PrivacyError where nothing may
    leave, or where something else is there."""
    named = target.removeprefix(HUB) if target.startswith(HUB) else None
    if named is None and (public or target.startswith("hf:") or "://" in target):
        why = "--public goes with a data set of the hub" if public else "neither a folder nor a data set of the hub"
        raise InputError(f"{target}: {why}; that is {HUB}USER/NAME")
    if named is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", named):
        raise InputError(f"{target}: not a data set of the hub; that is {HUB}USER/NAME")
    files = released(root)
    lines = [f"{file.stat().st_size:>14,}  {file.name}" for file in files]
    if dry_run:
        return [*lines, f"that was a dry run: these {len(files)} files would go to {target}; nothing left {root}"]
    sent = _to_folder(files, Path(target).expanduser()) if named is None else _to_hub(files, named, public=public)
    if not sent:
        return [f"{target}: has this release already; nothing was sent"]
    shown = [line for line, file in zip(lines, files, strict=True) if file in sent]
    return [*shown, f"{target}: has all {len(files)} files of the release now"]


def released(root: Path) -> list[Path]:
    """The files of a release that verifies, the certificate last, so that a copy which has one is complete."""
    from dpsda.privacy import certificate, signature

    facts = certificate.verify(root)
    signature.check(root)
    if facts["epsilon"] == "inf":
        raise InputError(f"{root}: was made without a guarantee, so its release is private and goes nowhere")
    path = certificate.find(root)
    files = sorted(path.parent.iterdir(), key=lambda file: (file == path, file.name))
    # runs of the first format did not note the page's hash, so nobody knows whose it is
    return files if facts.get("format") else [file for file in files if file.name != certificate.PAGE]


def _to_folder(files: list[Path], folder: Path) -> list[Path]:
    """Copy what is not there yet; the files that were copied."""
    from dpsda.privacy.files import appearing, sha256

    run_folder, place = files[0].parent.parent.resolve(), folder.resolve()
    if place == run_folder or run_folder in place.parents:
        raise InputError(f"{folder}: lies in the run's own folder; give another one")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder that is new or empty")
    known = {file.name: sha256(file) for file in files}
    there = folder.iterdir() if folder.is_dir() else ()
    same = {file.name: file.is_file() and sha256(file) == known.get(file.name) for file in there}
    missing = _missing(files, str(folder), same)
    for file in missing:
        with appearing(folder / file.name) as scratch:
            shutil.copyfile(file, scratch)
    return missing


def _to_hub(files: list[Path], name: str, *, public: bool) -> list[Path]:
    """Commit what is not there yet to a data set of the hub; the files that were sent."""
    try:
        return _commit(files, name, public=public)
    except InputError:
        raise
    except Exception as error:  # whatever the library or the network raises; no private text is near
        raise InputError(
            f"{HUB}{name}: the hub does not take it ({first_line(error)}); check the name, the token (`hf auth login`) "
            "and the network"
        ) from error


def _commit(files: list[Path], name: str, *, public: bool) -> list[Path]:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi(token=True)  # an error where there is no token
    try:
        seen = not api.repo_info(name, repo_type="dataset").private
    except RepositoryNotFoundError:
        api.create_repo(name, repo_type="dataset", private=not public)
        seen = public
    if seen != public:
        is_now, instead = ("public", "give --public") if seen else ("private", "leave --public out")
        raise InputError(f"{HUB}{name}: is {is_now}; {instead}, or give another name")
    known = {file.name: file for file in files}
    there = api.list_repo_tree(name, repo_type="dataset", recursive=True)
    same = {entry.path: entry.path in known and _is(known[entry.path], entry) for entry in there}
    same.pop(OF_THE_HUB, None)
    missing = _missing(files, HUB + name, same)
    if missing:
        added = [CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file) for file in missing]
        api.create_commit(name, added, commit_message="A release with its certificate", repo_type="dataset")
    return missing


def _missing(files: list[Path], place: str, same: dict[str, bool]) -> list[Path]:
    """The files that are not there yet; `same` says of each one that is whether it is one of these. InputError for any
    other, as nothing is overwritten."""
    other = next((name for name in sorted(same) if not same[name]), None)
    if other is not None:
        raise InputError(f"{place}: has {other}, which is not of this release; give a place that is new or empty")
    return [file for file in files if file.name not in same]


def _is(file: Path, entry: Any) -> bool:
    """Whether a file here is one of the hub, which tells the sha256 of its large files, and git's hash of others."""
    from dpsda.privacy.files import sha256

    if entry.lfs is not None:
        return bool(entry.lfs.sha256 == sha256(file))
    data = file.read_bytes()
    return bool(entry.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())


if __name__ == "__main__":
    run(main)
