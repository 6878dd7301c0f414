"""Texts from a trained generator, a shard at a time: a million of them, without a million in memory.

It costs no privacy: the model and the label counts are released already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apis.api import Prompt, TextAPI
from dpsda.finetune.options import SamplingOptions
from dpsda.privacy.files import appearing, drop_unfinished
from dpsda.shares import sequence
from dpsda.stages import FINETUNE

if TYPE_CHECKING:
    import pandas as pd

    from dpsda.privacy.ledger import Ledger


@dataclass(frozen=True, eq=False)
class Shards:
    """`options.num_samples` texts below `folder`, in shards that are drawn once. Labels go by `shares`, (cells,) noisy
    counts; `columns` and `cells` are the label columns and their values, empty without labels. The ledger notes each
    shard, as made of the releases `of`."""

    folder: Path
    options: SamplingOptions
    seed: int
    prefixes: list[str]  # what stands before a text of each cell
    shares: np.ndarray
    columns: list[str]
    cells: list[tuple[str, ...]]
    ledger: Ledger
    of: list[str]

    @property
    def paths(self) -> list[Path]:
        """The shards in order, each named by the first text that it holds a draw of and the one after its last: so a
        larger number of samples goes on where a smaller one ended."""
        there = dict(_span(path) for path in self.folder.glob("part-*.parquet"))
        size, total, spans, start = self.options.shard_size, self.options.num_samples, [], 0
        while start < total:
            later = [first for first in there if first > start]
            stop = there.get(start) or min(start - start % size + size, total, *later)
            spans.append((start, stop))
            start = stop
        return [self.folder / f"part-{start:010d}-{stop:010d}.parquet" for start, stop in spans]

    def complete(self) -> bool:
        return all(self.ledger.holds(path) for path in self.paths)

    def draw(self, writer: Callable[[], TextAPI]) -> None:
        """Draw the shards that are not there; exact repeats, of an earlier shard, too, and empty texts drop out."""
        import pandas as pd

        drop_unfinished(self.folder)
        wanted = sequence(self.shares, self.options.num_samples)
        seen: set[bytes] = set()
        api: TextAPI | None = None
        for path in self.paths:
            if self.ledger.holds(path):
                seen.update(_digest(text) for text in pd.read_parquet(path, columns=["text"])["text"])
                continue
            api = api or writer()
            start, stop = _span(path)
            cells = wanted[start:stop]
            prompts = [Prompt(self.prefixes[cell], max_new_tokens=self.options.length) for cell in cells]
            answers = api.generate(prompts, int(np.random.SeedSequence([self.seed, start]).generate_state(1)[0]))
            rows = []
            for place, (cell, answer) in enumerate(zip(cells, answers, strict=True), start):
                text = (answer or "").strip()
                if text and (digest := _digest(text)) not in seen:
                    seen.add(digest)
                    rows.append((f"s-{place}", "", text, *(self.cells[cell] if self.columns else ())))
            frame = pd.DataFrame(rows, columns=["id", "parent_id", "text", *self.columns], dtype=str)
            with appearing(path) as scratch:
                frame.to_parquet(scratch, index=False)
            self.ledger.note(FINETUNE, path, of=self.of)

    def frames(self) -> Iterator[pd.DataFrame]:
        """id, parent_id (empty), text, then the label columns, shard by shard."""
        import pandas as pd

        for path in self.paths:
            yield pd.read_parquet(path)


def _span(path: Path) -> tuple[int, int]:
    _, start, stop = path.stem.split("-")
    return int(start), int(stop)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
