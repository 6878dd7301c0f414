"""What can be set about the rows that texts belong to."""

from __future__ import annotations

from dataclasses import dataclass

from dpsda.arg_utils import Options, option


@dataclass(frozen=True)
class RowOptions(Options):
    """Rows, where spec.yaml has `attributes:`."""

    attributes: str = option(
        "rows",
        "rows: texts are written to rows of `attributes:` in spec.yaml, drawn from their noisy marginals; none: that "
        "is not read",
        choices=("rows", "none"),
    )
    marginals: int = option(2, "1- and 2-way marginals are released, or (1) each attribute alone", least=1, most=2)
