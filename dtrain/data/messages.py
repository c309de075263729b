"""Messages' values to rows, whatever their format: the good ones by the block, the bad ones one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from dtrain.data.columns import ColumnError, clean
from dtrain.data.schema import Schema


@dataclass(slots=True)
class Rows:
    """The rows of some messages.

    Args:
        raw_rows: rows of each message, good and bad; a message that is bad as a whole counts as one.
        rejects: (message, row in it) → reason.
        batches: the good rows, in their order.
    """

    raw_rows: list[int] = field(default_factory=list)
    rejects: dict[tuple[int, int], str] = field(default_factory=dict)
    batches: list[pa.RecordBatch] = field(default_factory=list)

    def add_bad(self, reason: str) -> None:
        """The next message is bad as a whole."""
        self.rejects[len(self.raw_rows), 0] = reason
        self.raw_rows.append(1)

    def add(self, table: pa.Table, counts: Sequence[int], schema: Schema) -> None:
        """The next messages hold the rows of `table`, `counts` of them each.

        Raises:
            ColumnError: values of a column do not fit its type. Nothing was added.
        """
        batch, bad = clean(table, schema)
        first = len(self.raw_rows)
        if bad:
            places = [(message, row) for message, count in enumerate(counts, first) for row in range(count)]
            self.rejects.update({places[row]: bad[row] for row in sorted(bad)})
        self.raw_rows.extend(counts)
        self.batches.append(batch)


Item = TypeVar("Item")


def add_halving(rows: Rows, items: Sequence[Item], add: Callable[[Sequence[Item]], None]) -> None:
    """Add every one of `items` to `rows`: together where that works, in halves where it does not, down to the bad ones.

    Args:
        rows: what `add` adds to.
        items: messages.
        add: adds some of them, or raises `ColumnError` having added nothing; for one alone, its text is the reason.
    """
    try:
        if items:
            add(items)
    except ColumnError as error:
        if len(items) == 1:
            rows.add_bad(str(error))
            return
        middle = len(items) // 2
        add_halving(rows, items[:middle], add)
        add_halving(rows, items[middle:], add)
