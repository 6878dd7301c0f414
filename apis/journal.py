"""Answers kept on disk as they arrive, so that a killed run asks for none of them again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from apis.api import OnAnswer, Prompt, TextAPI

TOOK = "took"


class Journal(TextAPI):
    """Another API, whose answers are stored in `folder`: one file a call, `SEED.jsonl`, one line an answer.

    An answer belongs to its seed, its place in the call and its prompt; one that is there is not asked for again. The
    folder belongs to one run, whose configuration fixes the model and its settings. Beside it stand the seconds since
    the one before it in the call: not the time of day, as between two calls private records are read and vote.
    """

    def __init__(self, api: TextAPI, folder: Path):
        self.api, self.folder = api, Path(folder)

    def generate(
        self, prompts: Sequence[Prompt], seed: int, on_answer: OnAnswer = lambda number, answer: None
    ) -> list[str | None]:
        keys = [_key(number, prompt) for number, prompt in enumerate(prompts)]
        path = self.folder / f"{seed}.jsonl"
        known = {line["key"]: line["answer"] for line in whole_lines(path)}
        for number, key in enumerate(keys):
            if key in known:
                on_answer(number, known[key])
        missing = [number for number, key in enumerate(keys) if key not in known]
        if missing:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(path, "ab") as file:
                before = time.monotonic()

                def keep(place: int, answer: str | None) -> None:
                    nonlocal before
                    known[keys[missing[place]]] = answer
                    took, before = time.monotonic() - before, time.monotonic()
                    line = {"key": keys[missing[place]], "answer": answer, TOOK: round(took, 3)}
                    file.write(json.dumps(line).encode() + b"\n")
                    file.flush()  # to the system: what follows a kill can read it
                    on_answer(missing[place], answer)

                try:
                    # another seed for the rest: with the same one it would repeat the draws of what is there
                    self.api.generate([prompts[i] for i in missing], seed + len(prompts) - len(missing), keep)
                finally:
                    os.fsync(file.fileno())
        return [known[key] for key in keys]

    @property
    def tokens_generated(self) -> int:
        return self.api.tokens_generated

    def check(self, prompt: Prompt) -> None:
        self.api.check(prompt)


def _key(number: int, prompt: Prompt) -> str:
    return hashlib.blake2b(json.dumps([number, *astuple(prompt)]).encode(), digest_size=16).hexdigest()


def whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a jsonl file, if there is one. A last line that a kill cut off is taken away from the file, so that
    the next one stands alone."""
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return _parsed(data[:whole])


def lines_so_far(path: Path) -> list[dict[str, Any]]:
    """The same while another process may be writing the last one: the file is left as it is."""
    data = path.read_bytes() if path.exists() else b""
    return _parsed(data[: data.rfind(b"\n") + 1])


def _parsed(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.split(b"\n")[:-1]]
