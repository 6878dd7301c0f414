"""YAML files that people write, read as they are written: 01, 3.10 and 02134 are texts, and so are yes and 2024-05-01.

What a YAML reader would make of them (1, 3.1, 1116, True, a date) is not what stands in a column of a table.
"""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, ClassVar

import yaml

from dpsda.errors import InputError, not_yaml

_EMPTY = ("", "~", "null", "Null", "NULL")


class _AsWritten(yaml.SafeLoader):
    """Every scalar is a str, or None where nothing stands; a key that is given twice is refused."""

    # of SafeLoader's only the one of the merge key <<: the others turn 01 into a number
    yaml_implicit_resolvers: ClassVar = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # type: ignore[misc]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for number, key in enumerate(keys) if key in keys[:number]), None)
        if twice is not None:
            raise _Twice(twice, node.start_mark.line + 1)
        return super().construct_mapping(node, deep)


class _Twice(Exception):
    def __init__(self, key: str, line: int) -> None:
        super().__init__(f"the key {key!r} is given twice in what begins in line {line}")


def _scalar(loader: _AsWritten, node: yaml.ScalarNode) -> str | None:
    return None if node.style is None and node.value in _EMPTY else str(loader.construct_scalar(node))


# all but the first: where it is written !!int
for _tag in ("str", "int", "float", "bool", "null", "timestamp", "binary"):
    _AsWritten.add_constructor(f"tag:yaml.org,2002:{_tag}", _scalar)


def parse(text: str, path: Path) -> Any:
    """The content of a YAML text as dicts, lists, str and None. InputError, which names `path`, where it is no YAML, or
    a key is given twice."""
    try:
        return yaml.load(text, _AsWritten)
    except (yaml.YAMLError, RecursionError) as error:
        raise not_yaml(path, error) from None
    except _Twice as error:
        raise InputError(f"{path}: {error}; give it once") from None


def read(path: Path, what: str) -> Any:
    """The content of a YAML file. InputError where it cannot be read; `what` says what the file is for."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise not_yaml(path, error) from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {what}") from None
    return parse(text, path)
