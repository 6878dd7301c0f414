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
from dpsda.data import DatasetSpec
from dpsda.data.attributes import write_columns
from dpsda.finetune.options import SamplingOptions
from dpsda.privacy.files import appearing, drop_unfinished
from dpsda.shares import sequence
from dpsda.stages import FINETUNE
from dpsda.tuning.generator import cell_prefixes, row_prefixes

if TYPE_CHECKING:
    import pandas as pd

    from dpsda.privacy.ledger import Ledger


@dataclass(frozen=True, eq=False)
class Shards:
    """`options.num_samples` texts below `folder`, in shards that are drawn once. Labels go by `shares`, (cells,) noisy
    counts, and are written as columns if `labelled`; `rows` draws the codes of rows for label cells. The ledger notes
    each shard, as made of the releases `of`."""

    folder: Path
    options: SamplingOptions
    seed: int
    spec: DatasetSpec
    shares: np.ndarray
    ledger: Ledger
    of: list[str]
    labelled: bool = True
    rows: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None

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
            cells, rng = np.asarray(wanted[start:stop]), np.random.default_rng([self.seed, start])
            attributes = self.spec.attributes if self.rows else ()
            codes = self.rows(cells, rng) if self.rows else np.empty((len(cells), 0), np.int32)
            leads, which = self._prefixes(cells, codes)
            prompts = [Prompt(leads[i], max_new_tokens=self.options.length) for i in which]
            answers = api.generate(prompts, int(np.random.SeedSequence([self.seed, start]).generate_state(1)[0]))
            found, kept = [], []
            for i, (cell, answer) in enumerate(zip(cells, answers, strict=True)):
                text = (answer or "").strip()
                if text and (digest := _digest(text)) not in seen:
                    seen.add(digest)
                    kept.append(i)
                    found.append((f"s-{start + i}", "", text, *(self.spec.cells[cell] if self.labelled else ())))
            columns = self.spec.label_columns if self.labelled else []
            frame = pd.DataFrame(found, columns=["id", "parent_id", "text", *columns], dtype=str)
            frame = write_columns(frame, codes[kept], attributes, rng)
            with appearing(path) as scratch:
                frame.to_parquet(scratch, index=False)
            self.ledger.note(FINETUNE, path, of=self.of)

    def _prefixes(self, cells: np.ndarray, codes: np.ndarray) -> tuple[list[str], np.ndarray]:
        """What stands before texts of these label cells and rows, and which of them each text has."""
        if self.rows:
            return row_prefixes(self.spec, cells, codes)
        return cell_prefixes(self.spec, conditional=self.labelled), cells

    def frames(self) -> Iterator[pd.DataFrame]:
        """id, parent_id (empty), text, then the label columns and those of the attributes, shard by shard."""
        import pandas as pd

        for path in self.paths:
            yield pd.read_parquet(path)


def _span(path: Path) -> tuple[int, int]:
    _, start, stop = path.stem.split("-")
    return int(start), int(stop)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
