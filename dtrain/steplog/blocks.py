"""Block descriptors: which coordinates a block of decoded rows holds, without the rows.

A block is consecutive decoded rows of one partition. The coordinator cuts steps from descriptors alone; the rows stay where
they are until a trainer copies them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from dtrain.steplog.fates import IS_TRAINED, Fate, LeftOut
from dtrain.steplog.positions import Partition, Position, after
from dtrain.steplog.ranges import Reject, RowRange


@dataclass(frozen=True)
class BlockMeta:
    """The raw rows [start, end) of one partition, and which of them are trained.

    "Good" rows are those to be trained, numbered from 0 within the block: row i of the block's record batch is good row i. Behind
    them the batch holds the rows that are held out, in their order.

    Args:
        partition: whose rows.
        start: the first raw coordinate; may be in mid-record.
        end: the position behind the last; may be in mid-record, or beyond the last record, where offsets have gaps.
        offsets: of the records that the block touches, rising.
        raw_rows: raw rows of each record, whole, good and bad, those before `start` and behind `end` included.
        crcs: CRC-32C of each record's key and value.
        rejects: the bad rows, in order of coordinate.
        num_bytes: of the decoded rows.
        newest_ms: the newest record's Kafka timestamp, in milliseconds since 1970; 0 without records.
        fates: a `Fate` for each raw row of the block, where some are left out on purpose; empty where none is.
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
    fates: bytes = b""

    @cached_property
    def num_rows(self) -> int:
        """Good rows of the block."""
        if self.fates:
            return self.fates.count(Fate.TRAINED)
        return self._good[-1] if self._good else 0

    @cached_property
    def num_held_out(self) -> int:
        """Rows of the batch behind the good ones."""
        return self.fates.count(Fate.HELD_OUT)

    @property
    def num_raw_rows(self) -> int:
        """Raw rows of the block, whatever became of them."""
        return self._raw_stops[-1] if self._raw_stops else 0

    @property
    def num_batch_rows(self) -> int:
        """Rows of the batch: good ones, and behind them those that are held out."""
        return self.num_rows + self.num_held_out

    def range_to(self, start: Position, stop_row: int) -> RowRange:
        """The range from `start` to right behind good row `stop_row - 1`: the shortest that holds those good rows.

        Args:
            start: in the block, before that row.
            stop_row: >= 1.
        """
        return self._range(start, self._position_after(stop_row - 1))

    def range_to_end(self, start: Position) -> RowRange:
        """The range from `start` to the end of the block, gaps and trailing rejects included."""
        return self._range(start, self.end)

    def rows_before(self, position: Position) -> int:
        """How many good rows of the block stand before `position`."""
        index = bisect_right(self.offsets, position.offset) - 1
        if index < 0:
            return 0
        if self.fates:
            return self._trained_before[self.raw_rows_before(position)]
        if self.offsets[index] < position.offset:
            return self._good[index]
        first, stop = self.rows_of(index)
        row = min(max(position.row, first), stop)
        before = self._good[index - 1] if index else 0
        return before + row - first - bisect_left(self._rejects_of(index), row)

    def held_out_between(self, start: Position, end: Position) -> tuple[int, int]:
        """The rows [first, stop) of the batch that are held out and stand from `start` to `end`."""
        if not self.num_held_out:
            return 0, 0
        before = self.fates.count(Fate.HELD_OUT, 0, self.raw_rows_before(start))
        within = self.fates.count(Fate.HELD_OUT, self.raw_rows_before(start), self.raw_rows_before(end))
        return self.num_rows + before, self.num_rows + before + within

    @cached_property
    def _reject_places(self) -> list[tuple[int, int]]:
        return [(reject.offset, reject.row) for reject in self.rejects]

    @cached_property
    def _rejected(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for reject in self.rejects:
            found.setdefault(reject.offset, []).append(reject.row)
        return found

    @cached_property
    def _good(self) -> list[int]:
        """Good rows up to and with each record."""
        if self.fates:
            return [self._trained_before[stop] for stop in self._raw_stops]
        counts = self._raw_counts()
        for offset, rows in self._rejected.items():
            counts[bisect_left(self.offsets, offset)] -= len(rows)
        return list(accumulate(counts))

    @cached_property
    def _raw_stops(self) -> list[int]:
        """Raw rows of the block up to and with each record."""
        return list(accumulate(self._raw_counts()))

    def _raw_counts(self) -> list[int]:
        """Raw rows of the block in each record."""
        counts = list(self.raw_rows)
        for index in {0, len(counts) - 1} if counts else ():
            first, stop = self.rows_of(index)
            counts[index] = stop - first
        return counts

    @cached_property
    def _trained_before(self) -> list[int]:
        """Good rows before each raw row of the block, and behind the last; where there are fates."""
        return list(accumulate(self.fates.translate(IS_TRAINED), initial=0))

    def raw_rows_before(self, position: Position) -> int:
        """How many raw rows of the block stand before `position`."""
        index = bisect_right(self.offsets, position.offset) - 1
        if index < 0:
            return 0
        if self.offsets[index] < position.offset:
            return self._raw_stops[index]
        first, stop = self.rows_of(index)
        return self._raw_stops[index] - stop + min(max(position.row, first), stop)

    def _rejects_of(self, index: int) -> list[int]:
        return self._rejected.get(self.offsets[index], [])

    def rows_of(self, index: int) -> tuple[int, int]:
        """Which raw rows of a record are in the block: all of them, unless the block starts or ends in its middle."""
        offset = self.offsets[index]
        first = self.start.row if offset == self.start.offset else 0
        return first, self.end.row if offset == self.end.offset else self.raw_rows[index]

    def _position_after(self, good_row: int) -> Position:
        index = bisect_right(self._good, good_row)
        if self.fates:
            behind = bisect_left(self._trained_before, good_row + 1)  # raw rows up to and with it
            row = self.rows_of(index)[1] - self._raw_stops[index] + behind - 1
            return after(self.offsets[index], row, self.raw_rows[index])
        row = self.rows_of(index)[0] + good_row - (self._good[index - 1] if index else 0)
        for bad in self._rejects_of(index):
            if bad > row:
                break
            row += 1
        return after(self.offsets[index], row, self.raw_rows[index])

    def _range(self, start: Position, end: Position) -> RowRange:
        last = bisect_right(self.offsets, end.offset - (end.row == 0)) - 1
        is_touched = start < end and last >= 0 and self.offsets[last] >= start.offset
        first_reject, stop_reject = bisect_left(self._reject_places, start), bisect_left(self._reject_places, end)
        return RowRange(
            partition=self.partition,
            start=start,
            end=end,
            num_rows=self.rows_before(end) - self.rows_before(start),
            rejects=self.rejects[first_reject:stop_reject],
            last_offset=self.offsets[last] if is_touched else -1,
            last_crc=self.crcs[last] if is_touched else 0,
            left_out=self._left_out(start, end),
        )

    def _left_out(self, start: Position, end: Position) -> LeftOut:
        return LeftOut.of(self.fates, self.raw_rows_before(start), self.raw_rows_before(end)) if self.fates else LeftOut()


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
        left_out=first.left_out.plus(second.left_out),
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
