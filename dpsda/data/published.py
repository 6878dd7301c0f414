"""What the converters of published data share: rows of a data set on the hub, and a parquet file that is there once it
is whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpsda.errors import InputError, first_line

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


def hub_rows(name: str, *config: str, split: str, remedy: str) -> Iterator[dict[str, Any]]:
    """The rows of a split, streamed; InputError, which ends in `remedy`, where the hub does not give them."""
    import datasets

    try:
        yield from datasets.load_dataset(name, *config, split=split, streaming=True)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(f"cannot read {name} from the hub ({first_line(error)}); {remedy}") from None


@contextmanager
def whole_parquet(output: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of `output`, which appears when the block has ended without an error."""
    import pyarrow.parquet as pq

    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f"{output.name}.part")
    try:
        with pq.ParquetWriter(part, schema) as writer:
            yield writer
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
