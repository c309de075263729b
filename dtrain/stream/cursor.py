"""Cursors: where a feed stands in one partition, and the blocks from there on."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from operator import attrgetter

from dtrain.data.block import Block, RawRecord
from dtrain.data.decode import decode
from dtrain.data.messages import ReadRows
from dtrain.data.schema import Schema
from dtrain.data.transforms import Transform
from dtrain.errors import DataLossError
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.losses import WAYS_OUT

BLOCK_ROWS = 16_384
"""About how many rows a block has at most, unless one message has more."""

BLOCK_BYTES = 2 << 20
"""How many bytes of messages a block is made of at most, unless one message has more."""

_offset_of = attrgetter("offset")


class Cursor:
    """The next coordinate of a partition; blocks tile the partition from there to `end`.

    Args:
        partition: whose.
        position: where to begin.
        end: where to end; None for never.
        schema: the columns to make.
        read: how values are written.
        span_ms: most time between the records of a block, by their timestamps; 0 for any.
    """

    def __init__(
        self,
        partition: Partition,
        position: Position,
        *,
        end: Position | None,
        schema: Schema,
        read: ReadRows,
        transform: Transform | None = None,
        span_ms: int = 0,
    ) -> None:
        self.partition = partition
        self.position = position
        self.end = end
        self._schema = schema
        self._read = read
        self.transform = transform
        self._span_ms = span_ms
        self._rows_a_record = 1.0

    @property
    def is_done(self) -> bool:
        """Whether the end is reached: nothing more comes."""
        return self.end is not None and self.position >= self.end

    def take(self, records: Sequence[RawRecord], *, next_offset: int) -> Iterator[Block]:
        """Blocks over `records`, which are all that the partition holds from the position to `next_offset`; moves there with them.

        Each is decoded when it is asked for: decoded, all of them may be more than fits into memory.

        Raises:
            DataLossError: the record that the position stands in the middle of is gone. The cursor has not moved.
        """
        if self.is_done or next_offset <= self.position.offset:
            return
        if self.position.row > 0 and (not records or records[0].offset > self.position.offset):
            raise DataLossError(
                f"{self.partition}: the record at offset {self.position.offset} is gone, but its rows from "
                f"{self.position.row} on are not trained",
                fix=WAYS_OUT,
            )
        stop = Position(next_offset) if self.end is None else min(Position(next_offset), self.end)
        first = bisect_left(records, self.position.offset, key=_offset_of)
        last = bisect_left(records, stop.offset + (stop.row > 0), key=_offset_of)
        # A tombstone is as good as gone: compaction takes it.
        wanted = [record for record in records[first:last] if record.value is not None]
        chunks = list(self._chunks(wanted)) or [wanted]
        ends = [Position(chunk[-1].offset + 1) for chunk in chunks[:-1]] + [stop]
        for chunk, end in zip(chunks, ends, strict=True):
            yield from self._blocks(chunk, end)

    def _blocks(self, records: Sequence[RawRecord], end: Position) -> Iterator[Block]:
        """One block, or more where the records become many rows."""
        while True:
            block = decode(
                records, partition=self.partition, start=self.position, end=end, schema=self._schema, read=self._read
            )
            self.position = block.meta.end
            num_records = len(block.meta.offsets)
            if num_records:
                self._rows_a_record = max(1.0, sum(block.meta.raw_rows) / num_records)
            yield block if self.transform is None else self.transform(block, records)
            records = records[num_records:]
            if not records:
                return

    def _chunks(self, records: Sequence[RawRecord]) -> Iterator[Sequence[RawRecord]]:
        """`records` in pieces of which each may become a block: one record, or as many as are few and short and near each other in time."""
        ends = list(accumulate(map(len, [record.value or b"" for record in records])))
        num_records = max(1, int(BLOCK_ROWS / self._rows_a_record))
        first = 0
        while first < len(records):
            begin = ends[first - 1] if first else 0
            last = max(first + 1, min(first + num_records, bisect_right(ends, begin + BLOCK_BYTES)))
            if self._span_ms:
                last = self._near(records, first, last)
            yield records[first:last]
            first = last

    def _near(self, records: Sequence[RawRecord], first: int, last: int) -> int:
        """How far the records from `first` on are no further from it in time than a block's may be, up to `last`."""
        latest_ms = records[first].timestamp_ms + self._span_ms
        return next((at for at in range(first, last) if records[at].timestamp_ms > latest_ms), last)
