"""Stand-ins for the two models: `--dry_run` walks a whole run with them in seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from apis.api import Prompt, TextAPI


class EchoAPI(TextAPI):
    """Answers every prompt with a numbered line, and counts what was asked for."""

    def __init__(self) -> None:
        self.prompts = 0
        self.tokens = 0

    def generate(self, prompts: Sequence[Prompt], seed: int) -> list[str | None]:
        first = self.prompts
        self.prompts += len(prompts)
        self.tokens += sum(prompt.max_new_tokens for prompt in prompts)
        return [f"Text {first + i} of a dry run." for i in range(len(prompts))]


class HashEncoder:
    """Embeds a text as a unit vector of 16 dimensions that depends on nothing but the text."""

    def embed(self, texts: Sequence[str], *, private: bool, desc: str = "") -> np.ndarray:
        seeds = [int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8).digest(), "little") for t in texts]
        vectors = np.array([np.random.default_rng(seed).standard_normal(16) for seed in seeds], dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
