"""The boundary to the libraries that load models, and what is checked of everything that they load."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpsda.errors import InputError, first_line

# what to do about an error of loading whose text has one of these words, where that is not to look for another model
REMEDIES = {
    ("memoryerror", "outofmemory", "out of memory", "allocate memory", "enough memory", "bad_alloc"): "take a smaller "
    "batch or a smaller model, or a machine with more memory",
    ("no space left",): "make room on the disk",
    ("trust_remote_code",): "models with code of their own are not run here: take one whose architecture is part of "
    "transformers, or serve it",
    ("quantiz", "gptq", "awq", "bitsandbytes"): "take its weights as they were before quantization or as a .gguf file, "
    "or serve it",
}


@contextlib.contextmanager
def loading(what: str, hint: str) -> Iterator[None]:
    """The boundary to the libraries that load a model or a file, or use it for the first time.

    Whatever they raise becomes one line: what could not be loaded, the first line of theirs, and what to do, which is
    `hint` unless the error says better. They are silent meanwhile. A text that may be private does not belong inside.
    """
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except InputError:
        raise
    except Exception as error:
        said = f"{type(error).__name__} {error}".lower()
        hint = next((remedy for words, remedy in REMEDIES.items() if any(word in said for word in words)), hint)
        raise InputError(f"cannot load {what} ({first_line(error)}); {hint}") from error
    finally:
        logging.set_verbosity(before)


def check_whole(what: str, missing: dict[str, Any], trunk: str = "") -> None:
    """InputError if a model has weights that its files lack, or have in another shape: the library makes random ones.

    `missing` is what it says of that. With `trunk`, the beginning of the names of a model's weights but for its head,
    a new head is meant; a pooler is part of it, if of anything.
    """
    bad = {*missing["missing_keys"], *(name for name, *_ in missing["mismatched_keys"])}
    bad = {name for name in bad if name.startswith(trunk) and "pooler." not in name}
    if bad:
        more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise InputError(
            f"{what}: its weights are not those that its configuration asks for ({min(bad)} is missing or has another "
            f"shape{more}); fetch the model again, or take another one"
        )


def fit_vocabulary(what: str, tokenizer: Any, rows: int) -> None:
    """Take out of a tokenizer the tokens that were added to it and that the model, with so many rows, does not know: a
    text that spells one would stop a run. InputError if it knows others neither, so that the two do not fit."""
    unknown = {token for token, number in tokenizer.get_vocab().items() if number >= rows}
    needed = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.cls_token, tokenizer.sep_token}
    if unknown and (not tokenizer.is_fast or not unknown <= tokenizer.get_added_vocab().keys() - needed):
        raise InputError(
            f"{what}: its tokenizer has tokens up to {max(tokenizer.get_vocab().values())}, and the model has rows for "
            f"{rows}: they belong to different models; take both from one place"
        )
    if unknown:
        from tokenizers import Tokenizer

        state = json.loads(tokenizer.backend_tokenizer.to_str())
        state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < rows]
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))


def check_no_adapter(what: str, folder: str) -> None:
    """InputError for the folder of an adapter, which a library would put on whatever model it names."""
    if Path(folder, "adapter_config.json").is_file():
        raise InputError(
            f"{what}: is an adapter, not a whole model; merge it into its model (merge_and_unload of peft) and give "
            "the folder of that"
        )
