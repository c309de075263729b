"""Cursors: where a feed stands in one partition, and the blocks from there on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dtrain.data.block import Block, RawRecord
from dtrain.data.decode import Format, decode
from dtrain.data.schema import Schema
from dtrain.errors import DataLossError
from dtrain.steplog.positions import Partition, Position

BLOCK_ROWS = 8192
"""About how many rows a block has at most, unless one message has more."""

BLOCK_BYTES = 8 << 20
"""How many bytes of messages a block is made of at most, unless one message has more."""


class Cursor:
    """The next coordinate of a partition; blocks tile the partition from there to `end`.

    Args:
        partition: whose rows.
        position: the first coordinate.
        end: the coordinate behind the last; None for never.
        schema: the columns of the blocks.
        format: how a message's value is written.
    """

    def __init__(
        self, partition: Partition, position: Position, *, end: Position | None, schema: Schema, value_format: Format
    ) -> None:
        self.partition = partition
        self.position = position
        self.end = end
        self._schema = schema
        self._format = value_format
        self._rows_a_record = 1.0

    @property
    def is_done(self) -> bool:
        """Whether the end is reached: nothing more comes."""
        return self.end is not None and self.position >= self.end

    def take(self, records: Sequence[RawRecord], *, next_offset: int) -> list[Block]:
        """Blocks over `records`, which are all that the partition holds from the position to `next_offset`; moves there.

        Raises:
            DataLossError: the record that the position stands in the middle of is gone. The cursor has not moved.
        """
        if self.is_done or next_offset <= self.position.offset:
            return []
        if self.position.row > 0 and (not records or records[0].offset > self.position.offset):
            raise DataLossError(
                f"{self.partition}: the record at offset {self.position.offset} is gone, but its rows from "
                f"{self.position.row} on are not trained",
                fix="the topic was compacted or cut too early for this job; start a new one from where records are left",
            )
        stop = Position(next_offset) if self.end is None else min(Position(next_offset), self.end)
        wanted = [record for record in records if record.offset >= self.position.offset and Position(record.offset) < stop]
        chunks = list(self._chunks(wanted)) or [wanted]
        return [self._block(chunk, stop if chunk is chunks[-1] else Position(chunk[-1].offset + 1)) for chunk in chunks]

    def _block(self, records: Sequence[RawRecord], end: Position) -> Block:
        block = decode(
            records, partition=self.partition, start=self.position, end=end, schema=self._schema, format=self._format
        )
        self.position = end
        if records:
            self._rows_a_record = max(1.0, sum(block.meta.raw_rows) / len(records))
        return block

    def _chunks(self, records: Sequence[RawRecord]) -> Iterator[list[RawRecord]]:
        chunk: list[RawRecord] = []
        num_bytes = 0
        for record in records:
            size = len(record.value or b"")
            is_full = num_bytes + size > BLOCK_BYTES or (len(chunk) + 1) * self._rows_a_record > BLOCK_ROWS
            if chunk and is_full:
                yield chunk
                chunk, num_bytes = [], 0
            chunk.append(record)
            num_bytes += size
        if chunk:
            yield chunk
