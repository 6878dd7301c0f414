"""What a run asked a served model for: counted in a file, priced by a table, bounded by the user."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from apis.journal import lines_so_far, whole_lines
from apis.prices import PRICES, price_of
from dpsda.errors import InputError

BATCH_SHARE = 0.5  # of the price, for a request in a batch
Tokens = tuple[int, int]  # of prompt and answer


class Spent(Exception):
    """Nothing more may be asked: the text names the budget."""


class Spending:
    """The requests of a run's life, restarts included, with their tokens and dollars.

    Each of them has a line in the file `log`. One in a batch has the `batch` and its `place` there, too, and costs
    `BATCH_SHARE` of the price. `max_requests` and `max_cost` (dollars, by the table `prices`) bound what is reserved.
    """

    def __init__(
        self, model: str, *, max_requests: int | None, max_cost: float | None, prices: Path | None, log: Path | None
    ):
        self.max_requests, self.max_cost, self.log = max_requests, max_cost, log
        self.price = price_of(model, prices or PRICES)
        if max_cost is not None and self.price is None:
            raise InputError(f"{prices or PRICES} has no price of {model!r}, which max_cost needs: add it to a table")
        self.requests = self.prompt_tokens = self.completion_tokens = 0
        self.batched: set[tuple[str, int]] = set()  # places in batches that are counted
        self._dollars = self._reserved = 0.0
        self._file: TextIO | None = None
        self._restore(whole_lines(log) if log else [])

    @classmethod
    def so_far(cls, model: str, log: Path, prices: Path | None) -> Spending:
        """That of a run which another process may be making."""
        found = cls(model, max_requests=None, max_cost=None, prices=prices, log=None)
        found._restore(lines_so_far(log))
        return found

    def _restore(self, lines: list[dict[str, Any]]) -> None:
        self.requests += len(lines)
        for line in lines:
            self._count(line)

    @property
    def cost(self) -> float | None:
        """Dollars spent so far; None without a price."""
        return None if self.price is None else self._dollars

    @property
    def totals(self) -> str:
        return f"{self.requests:,} requests" + (f", ${self.cost:,.2f}" if self.cost is not None else "")

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """The file is open meanwhile."""
        if self.log is None:
            yield
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "a", encoding="utf-8") as self._file:
            try:
                yield
            finally:
                self._file = None

    def reserve(self, most: Tokens, *, batch: bool = False, asked: bool = False) -> float:
        """Dollars for a request of so many tokens at most, set aside until it is counted.

        Raises Spent where the budget has no room for it, unless it was `asked` before.
        """
        dollars = self._price(most, batch)
        if not asked and self.max_requests is not None and self.requests >= self.max_requests:
            raise Spent(f"--max_requests {self.max_requests}")
        if not asked and self.max_cost is not None and self._dollars + self._reserved + dollars > self.max_cost:
            raise Spent(f"--max_cost {self.max_cost:g}")
        self.requests += 1
        self._reserved += dollars
        return dollars

    def give_back(self, dollars: float) -> None:
        """What was reserved for a request that is not waited for any more."""
        self.requests -= 1
        self._reserved -= dollars

    def settle(self, dollars: float, used: Tokens, **facts: Any) -> None:
        """A request that `dollars` were reserved for took the tokens `used`; `facts` go into its line."""
        self._reserved -= dollars
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **facts,
            "prompt_tokens": used[0],
            "completion_tokens": used[1],
        }
        self._count(line)
        if self._file:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _count(self, line: dict[str, Any]) -> None:
        used = line["prompt_tokens"], line["completion_tokens"]
        self.prompt_tokens += used[0]
        self.completion_tokens += used[1]
        self._dollars += self._price(used, "batch" in line)
        if "batch" in line:
            self.batched.add((line["batch"], line["place"]))

    def _price(self, tokens: Tokens, batch: bool) -> float:
        prompt_price, answer_price = self.price or (0.0, 0.0)
        full = (tokens[0] * prompt_price + tokens[1] * answer_price) / 1e6
        return full * BATCH_SHARE if batch else full
