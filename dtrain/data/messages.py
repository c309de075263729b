"""Messages' values to rows, whatever their format: the good ones by the block, the bad ones one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa

from dtrain.data.block import RawRecord
from dtrain.data.columns import ColumnError, clean
from dtrain.data.schema import Schema

MESSAGE_ROWS = 1 << 20
"""How many rows a message may have, unless they are so wide that fewer of them take `MESSAGE_BYTES`."""

MESSAGE_BYTES = 256 << 20
"""What a message may become when it is unpacked and decoded: a few bytes can say of themselves that they are a terabyte."""

BLOCK_BYTES = 64 << 20
"""About how much is decoded at a time, unless one message is more."""

_TEXT_BYTES = 16
REJECT_BYTES = 128


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
        if bad:
            ends = np.cumsum(counts)
            for row in sorted(bad):
                message = int(np.searchsorted(ends, row, side="right"))
                self.rejects[len(self.raw_rows) + message, row - int(ends[message] - counts[message])] = bad[row]
        self.raw_rows.extend(counts)
        self.batches.append(batch)

    def add_apart(self, parts: Rows) -> None:
        """The next message holds the rows of `parts`, each of which was decoded as if it were a message."""
        self.rejects.update(((len(self.raw_rows), part), reason) for (part, _), reason in parts.rejects.items())
        self.raw_rows.append(len(parts.raw_rows))
        self.batches += parts.batches

    def add_among(self, parts: Rows, reasons: Sequence[str]) -> None:
        """The next messages are those of `parts`, and between them ones that are bad as a whole; a part's reason is empty."""
        places = []
        counts = iter(parts.raw_rows)
        for reason in reasons:
            if reason:
                self.add_bad(reason)
            else:
                places.append(len(self.raw_rows))
                self.raw_rows.append(next(counts))
        self.rejects.update(((places[part], row), reason) for (part, row), reason in parts.rejects.items())
        self.rejects = dict(sorted(self.rejects.items()))
        self.batches += parts.batches


ReadRows = Callable[[Sequence[RawRecord], Schema], Rows]
"""A format: the rows of the values of some records, or of the first of them (of one at least) where they become many.

It never raises for what is in a value, and what it makes of one does not depend on the others. It raises an error of
dtrain's where something else is wrong that is nobody's value's: a registry does not answer, a decoder is not there.
"""


def settled(read: ReadRows, reasons: Mapping[int, str]) -> ReadRows:
    """As `read`, but the records at these offsets are bad for these reasons, whatever they would be read as now."""

    def read_rows(records: Sequence[RawRecord], schema: Schema) -> Rows:
        bad = [reasons.get(record.offset, "") for record in records]
        parts = read([record for record, reason in zip(records, bad, strict=True) if not reason], schema)
        places = [place for place, reason in enumerate(bad) if not reason]
        stop = places[len(parts.raw_rows)] if len(parts.raw_rows) < len(places) else len(bad)
        rows = Rows()
        rows.add_among(parts, bad[:stop])
        return rows

    return read_rows


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


def taken(items: Iterable[Item], num_bytes: Callable[[Item], int]) -> Iterator[Item]:
    """The first of `items`, until they have come to `BLOCK_BYTES` together."""
    total = 0
    for item in items:
        yield item
        total += num_bytes(item)
        if total >= BLOCK_BYTES:
            return


def array_of(values: Sequence[object], field: pa.Field) -> pa.Array:
    """The column of Python's values.

    Raises:
        ColumnError: one of them is not of the field's type.
    """
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise ColumnError(f"column {field.name!r}: a value is not {field.type}") from error


def row_bytes(schema: Schema) -> int:
    """About how many bytes a row takes, decoded or rejected; texts left out."""
    return max(REJECT_BYTES, sum(_value_bytes(field.type) for field in schema.arrow))


def _value_bytes(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _value_bytes(kind.value_type)
    return max(1, kind.bit_width // 8) if pa.types.is_primitive(kind) else _TEXT_BYTES


def most_rows(schema: Schema) -> int:
    """How many rows a message may have."""
    return min(MESSAGE_ROWS, max(1, MESSAGE_BYTES // row_bytes(schema)))


def too_many(schema: Schema) -> str:
    """Why a message with more rows than that is bad."""
    return f"more than {most_rows(schema):,} rows in one message"
