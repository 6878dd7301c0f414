"""Records of a data set of the Hugging Face hub, or of one that `datasets` saved: `hf:NAME` in the place of a file.

    hf:stanfordnlp/imdb            its split `train`
    hf:stanfordnlp/imdb#test       another one
    hf:nyu-mll/glue:sst2#train     of one of its configurations
    hf:/data/saved#train           a folder that `save_to_disk` wrote

Class labels are read by their names. What the hub sends lies in the cache of `datasets`, as it does for everybody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpsda import csv_records
from dpsda.errors import InputError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "hf:"
ROWS = 1 << 14  # read at a time


def is_named(path: Path) -> bool:
    """Whether what stands in the place of a file names a data set."""
    return str(path).startswith(PREFIX)


def absolute(file: str | Path) -> str:
    """The absolute path of a file; what names a data set, as it is."""
    return str(file if is_named(Path(file)) else Path(file).absolute())


def local(name: str) -> str:
    """The folder that a name stands for, where it is that of a saved data set; any other name comes back as it is."""
    folder = name.removeprefix(PREFIX).partition("#")[0]
    return folder if name.startswith(PREFIX) and Path(folder).is_dir() else name


def columns(path: Path) -> list[str]:
    return list(_dataset(path).features)


def tables(path: Path, columns: Sequence[str]) -> Iterator[tuple[pa.Table, dict[str, np.ndarray]]]:
    """As those of a csv: the columns as large_string, `ROWS` rows at a time. InputError where the data set cannot be
    loaded, or lacks a column."""
    import pyarrow as pa

    dataset = _dataset(path)
    for column in columns:
        if column not in dataset.features:
            raise InputError(f"{path} has no column {column!r}")
    dataset = dataset.select_columns(list(columns))
    names = {name: kind.names for name, kind in dataset.features.items() if hasattr(kind, "int2str")}
    for table in dataset.with_format("arrow").iter(batch_size=ROWS):
        for name, values in names.items():
            coded = [values[code] if code is not None and code >= 0 else None for code in table[name].to_pylist()]
            table = table.set_column(table.column_names.index(name), name, pa.array(coded, pa.large_string()))
        try:
            yield csv_records.texts(table)
        except pa.ArrowException:
            raise InputError(f"{path}: a column cannot be read as text") from None


def _dataset(path: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError(f"{path}: needs the package datasets: pip install 'dpsda[alignment]'") from None
    name, _, split = str(path).removeprefix(PREFIX).partition("#")
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            if Path(name).is_dir():
                loaded = datasets.load_from_disk(name)
            else:
                name, _, configuration = name.partition(":")
                loaded = datasets.load_dataset(name, configuration or None)
    except Exception as error:  # whatever the library or the network raises; it holds no record yet
        raise InputError(f"{path}: cannot be loaded ({first_line(error)}); check the name and the network") from error
    if isinstance(loaded, dict):
        if (split or "train") not in loaded:
            raise InputError(f"{path}: has no split {split or 'train'!r}; there are: {', '.join(loaded)}")
        return loaded[split or "train"]
    if split:
        raise InputError(f"{path}: is one split, so leave #{split} out")
    return loaded
