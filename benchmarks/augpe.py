"""Where a whole Aug-PE run spends its time: the quickstart, from nothing, on one thread, each moment counted once.

    PYTHONPATH=. python benchmarks/augpe.py [options of main.py]

A phase's time is its own, without what it calls of another phase. Model arithmetic is what goes on inside of the two
models, generator and encoder, their attention and caches included; everything else is ours. No embedding is known in
advance; models are unpacked already, as they are after the first run.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dpsda.assets import home
from dpsda.commands import COMMANDS

CONFIG = "data/rotten_tomatoes/quickstart.yaml"
ARITHMETIC = ("the generator's layers", "the encoder's layers")


class Clock:
    """Seconds by phase: a phase that begins inside another one stops that one's clock."""

    def __init__(self, phase: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.phases, self.since = [phase], time.perf_counter()

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self.phases[-1]] += now - self.since
        self.since = now

    def enter(self, phase: str) -> None:
        self._charge()
        self.phases.append(phase)

    def leave(self) -> None:
        self._charge()
        self.phases.pop()

    def within(self, owner: Any, name: str, phase: str) -> None:
        """Count the calls of `owner.name` as `phase`."""
        real: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(real)
        def counted(*args: Any, **options: Any) -> Any:
            self.enter(phase)
            try:
                return real(*args, **options)
            finally:
                self.leave()

        setattr(owner, name, counted)


@contextlib.contextmanager
def no_embeddings() -> Iterator[Path]:
    """A folder that is the cache of this process and those that it starts: it has the models of the usual one."""
    with tempfile.TemporaryDirectory() as scratch:
        for known in ("assets", "models"):
            (home() / known).mkdir(parents=True, exist_ok=True)
            (Path(scratch) / known).symlink_to(home() / known)
        os.environ["DPSDA_HOME"] = scratch
        yield Path(scratch)


def main() -> None:
    clock = Clock("imports")
    with no_embeddings() as scratch:
        run(clock, scratch / "run", sys.argv[1:] or ["--config", CONFIG])
    report(clock)


def run(clock: Clock, folder: Path, options: list[str]) -> None:
    """One run of main.py, on the clock."""
    import torch
    from sentence_transformers import SentenceTransformer

    from apis import hf_api
    from apis.decoding import Sampler
    from apis.journal import Journal
    from dpsda import data, reference, release
    from dpsda.augpe import evolution, voting
    from dpsda.embedding import Encoder

    torch.set_num_threads(1)  # the clock knows one; on more cores, batches run side by side
    clock.within(hf_api, "load", "models are loaded")
    clock.within(Encoder, "__init__", "models are loaded")
    clock.within(data, "load", "records are loaded")
    clock.within(hf_api.HFAPI, "requests", "prompts are tokenised")
    clock.within(Journal, "generate", "the generator's batches, answers kept")
    clock.within(Sampler, "__call__", "tokens are drawn")
    clock.within(Encoder, "_tokenise", "texts are tokenised")
    clock.within(Encoder, "embed", "the encoder's batches, vectors kept")
    clock.within(voting, "vote", "votes")
    clock.within(evolution, "noisy_histogram", "noise and the ledger")
    clock.within(evolution, "select", "selection")
    clock.within(reference.Distances, "note", "distances to the reference")
    clock.within(release, "publish", "release and certificate")

    def arithmetic(module: torch.nn.Module, phase: str) -> None:
        module.register_forward_pre_hook(lambda *_: clock.enter(phase))
        module.register_forward_hook(lambda *_: clock.leave())

    real = hf_api.load

    def loaded(*args: Any) -> Any:
        found, tokenizer = real(*args)
        arithmetic(found, ARITHMETIC[0])
        arithmetic(found.base_model, ARITHMETIC[0])
        return found, tokenizer

    hf_api.load = loaded
    init = SentenceTransformer.__init__

    def made(self: SentenceTransformer, *args: Any, **more: Any) -> None:
        init(self, *args, **more)
        for module in self:
            arithmetic(module, ARITHMETIC[1])

    SentenceTransformer.__init__ = made
    sys.argv = ["main.py", *options, "--result_folder", str(folder)]
    clock.enter("everything else")
    COMMANDS["augpe"]("main.py", "")
    clock.leave()


def report(clock: Clock) -> None:
    clock.leave()
    total = sum(clock.seconds.values())
    print("\n| phase | seconds | share |\n|---|---:|---:|")
    for phase, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        print(f"| {phase} | {seconds:.1f} | {seconds / total:.1%} |")
    others = 1 - sum(clock.seconds[phase] for phase in ARITHMETIC) / total
    print(f"\n{total:.0f} s, of which {others:.1%} is not model arithmetic")


if __name__ == "__main__":
    main()
