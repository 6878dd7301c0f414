"""Stand-ins for both models on Ray workers, which start in a second: nothing here imports torch."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator, Sequence

from apis.api import Prompt
from dpsda.dry_run import HashEncoder
from dpsda.errors import InputError


class SlowEcho:
    """A language model whose answer follows from the prompt and its draws; one every `seconds`."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seconds = seconds

    def stream(self, prompts: Sequence[Prompt], draws: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, str]]:
        for number in sorted(range(len(prompts)), key=lambda i: prompts[i].max_new_tokens):  # not in their order
            time.sleep(self.seconds)
            told = hashlib.sha256(f"{prompts[number].text} {draws[number]}".encode()).hexdigest()
            yield number, f"A text about {told[:12]}."

    def check(self, prompt: Prompt) -> None:
        pass


class LocalVectors(HashEncoder):
    """An encoder without a cache: each worker computes what it needs."""

    def __init__(self, name: str = "", *, device: str = "cpu", dtype: str = "auto") -> None:
        self.dtype = dtype

    def probe(self) -> str:
        return "the same everywhere"

    def precompute(self, texts: Sequence[str], *, private: bool) -> int:
        return len(texts)

    def missing(self, texts: Sequence[str], *, private: bool) -> list[int]:
        return []


def broken(*_, **__):
    raise InputError("this model is not there")


def faulty(*_, **__):
    return 1 / 0


def deadly(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
