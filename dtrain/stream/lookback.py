"""Looking back: a transform that stands at a place of a partition knows what stands before it, wherever the reading began.

What is known is rebuilt from the partition itself, by reading the rows of one window before the place again: a window reaches back
to the oldest record that the log still has, and no further.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from dtrain.data.schema import Schema
from dtrain.data.transforms import Transform, Transforms
from dtrain.errors import DataLossError
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.cursor import Cursor
from dtrain.stream.log import Fetched

FIRST_OFFSETS = 64
"""How many messages are read at first, to see how many rows they have."""

FIRST_BYTES = 4 << 20
"""The same of files, whose offsets are bytes; for each try, some are read over from their head."""

Read = Callable[[Partition, int, int], Iterable[Fetched]]
"""Everything of a partition from an offset to another."""

NewCursor = Callable[[Position, Position, Transform], Cursor]
"""A cursor from a position to another, through a transform."""


class Lookback:
    """Makes transforms that know what stands before them, and keeps those that somebody has done with, as they may go on.

    Args:
        transforms: the job's.
        read: of the log.
        begin_of: the oldest offset of a partition.
        first_of: how many offsets of a partition are read at first.
        max_gap: offsets between two places that are rather read over than sought.
    """

    def __init__(
        self,
        transforms: Transforms,
        *,
        read: Read,
        begin_of: Callable[[Partition], int],
        first_of: Callable[[Partition], int],
        max_gap: int,
    ) -> None:
        self._transforms = transforms
        self._read = read
        self._begin_of = begin_of
        self._first_of = first_of
        self._max_gap = max_gap
        self._kept: dict[tuple[Partition, Schema], tuple[Position, Transform]] = {}

    def stream_schema(self, schema: Schema) -> Schema:
        """The columns that are read where the task's are those of `schema`."""
        return self._transforms.stream_schema(schema)

    def transform(self, partition: Partition, place: Position, *, schema: Schema, new_cursor: NewCursor) -> Transform:
        """A transform that stands at `place`.

        Raises:
            DataLossError: the log does not have all that it says it has before `place`.
            UnavailableError: the log has gone silent.
        """
        if not self._transforms.window_rows:
            return self._transforms.begin(schema)
        at, kept = self._kept.pop((partition, schema), (place, None))
        if kept is not None and at <= place and place.offset - at.offset <= self._max_gap:
            self._pass(new_cursor(at, place, kept), partition)
            return kept
        return self._rebuilt(partition, place, schema, new_cursor)

    def keep(self, cursor: Cursor, *, schema: Schema) -> None:
        """Nobody needs `cursor` any more; what its transform knows may be of use to the next who begins behind it."""
        if cursor.transform is not None and self._transforms.window_rows:
            self._kept[cursor.partition, schema] = cursor.position, cursor.transform

    def _rebuilt(self, partition: Partition, place: Position, schema: Schema, new_cursor: NewCursor) -> Transform:
        """Reads back further and further, until a window is full or the log has no more."""
        window, num_offsets = self._transforms.window_rows, self._first_of(partition)
        while True:
            begin = self._begin_of(partition)
            start = max(begin, place.offset - num_offsets)
            transform = self._transforms.begin(schema)
            try:
                num_rows = self._pass(new_cursor(Position(start), place, transform), partition)
            except DataLossError:
                if self._begin_of(partition) > start:
                    continue  # retention took it while it was read
                raise
            num_rows -= place.row  # of the record that the place is in: a window lies before it
            if start <= begin or num_rows >= window:
                return transform
            wanted = math.ceil(1.25 * num_offsets * window / num_rows) if num_rows > 0 else 0
            num_offsets = max(4 * num_offsets, wanted)

    def _pass(self, cursor: Cursor, partition: Partition) -> int:
        """The cursor has come to its end; how many raw rows it passed."""
        end, num_rows = cursor.end, 0
        if end is None or cursor.position >= end:
            return 0
        for _, records, next_offset in self._read(partition, cursor.position.offset, end.offset + (end.row > 0)):
            for block in cursor.take(records, next_offset=next_offset):
                num_rows += block.meta.num_raw_rows
        return num_rows
