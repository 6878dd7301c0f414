"""GGUF files as dense models: transformers keeps their weights packed and would unpack them on every forward pass.

dpsda gguf embedded:smollm2-135m-instruct      write the dense copy if it is not there yet, print its folder
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from dpsda.assets import home, resolve, settle
from dpsda.errors import InputError
from dpsda.libraries import check_whole, loading


def dense(file: Path) -> Path:
    """The folder of `file`'s bfloat16 copy with its tokenizer, written once for all clones and processes."""
    if not file.is_file():
        raise InputError(f"no GGUF file at {file}")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = home() / "models" / f"{file.stem}-{digest[:12]}"
    if not folder.exists():
        _unpack(file, folder)
    return folder


def unpacked(name: str) -> str:
    """Where a trainer loads a model from: the folder of an embedded one or of a .gguf file's dense copy, or the folder
    or hub name that it is."""
    path = Path(resolve(name)).expanduser()
    return str(dense(path)) if path.suffix == ".gguf" else str(path) if path.exists() else name


def _unpack(file: Path, folder: Path) -> None:
    """Write the copy under a temporary name; `folder` appears only when it is complete."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where: dict[str, Any] = {
        "pretrained_model_name_or_path": file.parent,
        "gguf_file": file.name,
        "trust_remote_code": False,
    }
    with loading(f"the GGUF file {file}", "it may be damaged or cut off: fetch it again, or take another model"):
        tokenizer = AutoTokenizer.from_pretrained(**where)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **where,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        model, missing = loaded
        check_whole(str(file), missing)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpack-") as scratch:
            copy = Path(scratch, "model")
            model.to(torch.bfloat16).save_pretrained(copy)
            tokenizer.save_pretrained(copy)
            settle(copy, folder)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "dpsda gguf", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="+", metavar="MODEL", help="a .gguf file, or an embedded asset")
    try:
        for name in parser.parse_args(argv).names:
            print(dense(Path(resolve(name))))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
