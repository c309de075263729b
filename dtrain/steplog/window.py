"""How many of the last rows were bad: what a budget is a share of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_NUM_BUCKETS = 20


@dataclass(frozen=True, slots=True)
class RejectWindow:
    """Rows and bad rows among the last `span_rows` rows of a log, to within 1/20; moved by its entries alone.

    Args:
        span_rows: settled once, in checkpoint 0.
        buckets: (rows, bad rows), oldest first; the last one is being filled.
    """

    span_rows: int = 100_000
    buckets: tuple[tuple[int, int], ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the window, bad ones included."""
        return sum(rows for rows, _ in self.buckets)

    @property
    def bad(self) -> int:
        """Bad rows of the window."""
        return sum(bad for _, bad in self.buckets)

    def add(self, *, rows: int, bad: int) -> RejectWindow:
        """The window behind `rows` more rows, of which `bad` are bad."""
        *full, (open_rows, open_bad) = self.buckets or ((0, 0),)
        if open_rows * _NUM_BUCKETS >= self.span_rows:
            full, open_rows, open_bad = [*full, (open_rows, open_bad)], 0, 0
        return RejectWindow(self.span_rows, (*full[-_NUM_BUCKETS + 1 :], (open_rows + rows, open_bad + bad)))

    def to_json(self) -> list[Any]:
        """The window as a manifest keeps it."""
        return [self.span_rows, [list(bucket) for bucket in self.buckets]]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> RejectWindow:
        """The window that `to_json` wrote."""
        return cls(value[0], tuple((rows, bad) for rows, bad in value[1]))
