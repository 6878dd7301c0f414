"""What a model's tokens cost, by a table that a user may replace."""

from __future__ import annotations

import math
from pathlib import Path

import yaml

from dpsda.errors import InputError

PRICES = Path(__file__).with_name("prices.yaml")


def price_of(model: str, path: Path) -> tuple[float, float] | None:
    """Dollars per million tokens of prompt and answer; None for a model that has no row. InputError for no table."""
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
        row = table.get(model)
        price = None if row is None else (float(row["input"]), float(row["output"]))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError):
        raise InputError(f"{path} needs lines like `{model}: {{input: 0.5, output: 1.5}}`") from None
    if price and not all(0 <= dollars < math.inf for dollars in price):
        raise InputError(f"{path}: a price of {model} is not a number of dollars")
    return price
