"""Block descriptors: which coordinates a block of decoded rows holds, without the rows.

A block is consecutive decoded rows of one partition. The coordinator cuts steps from descriptors alone; the rows stay where
they are until a trainer copies them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from dtrain.steplog.positions import Partition, Position, after
from dtrain.steplog.ranges import Reject, RowRange


@dataclass(frozen=True)
class BlockMeta:
    """The raw rows [start, end) of one partition, and which of them were decoded.

    "Good" rows are decoded ones, numbered from 0 within the block: row i of the block's record batch is good row i.

    Args:
        partition: whose rows.
        start: the first raw coordinate; may be in mid-record.
        end: the position behind the last; may lie beyond the last record, where offsets have gaps.
        offsets: of the records that the block touches, rising.
        raw_rows: raw rows of each record, whole, good and bad, those before `start` included.
        crcs: CRC-32 of each record's key and value.
        rejects: the bad rows, in order of coordinate.
        num_bytes: of the decoded rows.
        newest_ms: the newest record's Kafka timestamp, in milliseconds since 1970; 0 without records.
    """

    partition: Partition
    start: Position
    end: Position
    offsets: array[int] = field(default_factory=lambda: array("q"))
    raw_rows: array[int] = field(default_factory=lambda: array("q"))
    crcs: array[int] = field(default_factory=lambda: array("q"))
    rejects: tuple[Reject, ...] = ()
    num_bytes: int = 0
    newest_ms: int = 0

    @property
    def num_rows(self) -> int:
        """Good rows of the block."""
        return self._good[-1] if self._good else 0

    def range_to(self, start: Position, stop_row: int) -> RowRange:
        """The range from `start` to right behind good row `stop_row - 1`: the shortest that holds those good rows."""
        return self._range(start, self._position_after(stop_row - 1))

    def range_to_end(self, start: Position) -> RowRange:
        """The range from `start` to the end of the block, gaps and trailing rejects included."""
        return self._range(start, self.end)

    def rows_before(self, position: Position) -> int:
        """How many good rows of the block stand before `position`."""
        index = bisect_right(self.offsets, position.offset) - 1
        if index < 0:
            return 0
        if self.offsets[index] < position.offset:
            return self._good[index]
        before = self._good[index - 1] if index else 0
        first = self._first_row(index)
        bad = sum(1 for r in self._rejects_of(index) if first <= r < position.row)
        return before + max(0, min(position.row, self.raw_rows[index]) - first - bad)

    @cached_property
    def _rejected(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for reject in self.rejects:
            found.setdefault(reject.offset, []).append(reject.row)
        return found

    @cached_property
    def _good(self) -> list[int]:
        """Good rows up to and with each record."""
        return list(
            accumulate(self.raw_rows[i] - self._first_row(i) - len(self._rejects_of(i)) for i in range(len(self.offsets)))
        )

    def _rejects_of(self, index: int) -> list[int]:
        return self._rejected.get(self.offsets[index], [])

    def _first_row(self, index: int) -> int:
        return self.start.row if index == 0 and self.offsets[0] == self.start.offset else 0

    def _position_after(self, good_row: int) -> Position:
        index = bisect_right(self._good, good_row)
        row = self._first_row(index) + good_row - (self._good[index - 1] if index else 0)
        for bad in self._rejects_of(index):
            if bad <= row:
                row += 1
        return after(self.offsets[index], row, self.raw_rows[index])

    def _range(self, start: Position, end: Position) -> RowRange:
        num_rows = self.rows_before(end) - self.rows_before(start)
        touched = bisect_right(self.offsets, end.offset - (1 if end.row == 0 else 0)) - 1
        is_touched = touched >= 0 and (self.offsets[touched] >= start.offset)
        return RowRange(
            partition=self.partition,
            start=start,
            end=end,
            num_rows=num_rows,
            rejects=tuple(r for r in self.rejects if start <= (r.offset, r.row) < end),
            last_offset=self.offsets[touched] if is_touched else -1,
            last_crc=self.crcs[touched] if is_touched else 0,
        )


def merge(first: RowRange, second: RowRange) -> RowRange:
    """One range over two that adjoin, of the same partition."""
    tail = second if second.last_offset >= 0 else first
    return RowRange(
        partition=first.partition,
        start=first.start,
        end=second.end,
        num_rows=first.num_rows + second.num_rows,
        rejects=first.rejects + second.rejects,
        last_offset=tail.last_offset,
        last_crc=tail.last_crc,
    )


def merge_adjoining(ranges: Iterable[RowRange]) -> tuple[RowRange, ...]:
    """The ranges in their order, neighbours that adjoin in one partition made one."""
    merged: list[RowRange] = []
    for item in ranges:
        last = merged[-1] if merged else None
        if last is not None and last.partition == item.partition and last.end == item.start:
            merged[-1] = merge(last, item)
        else:
            merged.append(item)
    return tuple(merged)
