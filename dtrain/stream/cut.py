"""Cuts: the rows of ranges that were planned before, out of blocks that were read again."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

import pyarrow as pa

from dtrain.data.block import Block
from dtrain.data.decode import joined
from dtrain.data.schema import Schema
from dtrain.errors import DataLossError
from dtrain.steplog.ranges import RowRange


class Cut:
    """One range, filling up from blocks that come in order."""

    def __init__(self, item: RowRange) -> None:
        self.item = item
        self._batches: list[pa.RecordBatch] = []
        self._held_out: list[pa.RecordBatch] = []
        self._last_crc: int | None = None

    def add(self, block: Block) -> None:
        """Take what `block` holds of the range."""
        meta = block.meta
        if meta.end <= self.item.start or self.item.end <= meta.start:
            return
        first, last = meta.rows_before(self.item.start), meta.rows_before(self.item.end)
        if last > first:
            self._batches.append(block.batch.slice(first, last - first))
        first, last = meta.held_out_between(self.item.start, self.item.end)
        if last > first:
            self._held_out.append(block.batch.slice(first, last - first))
        index = bisect_left(meta.offsets, self.item.last_offset)
        if index < len(meta.offsets) and meta.offsets[index] == self.item.last_offset:
            self._last_crc = meta.crcs[index]

    def batch(self, schema: Schema) -> pa.RecordBatch:
        """The rows, in one piece; behind them those that are held out.

        Raises:
            DataLossError: they are not those that the range was cut from.
        """
        item = self.item
        num_rows = sum(batch.num_rows for batch in (*self._batches, *self._held_out))
        wanted = item.num_rows + item.left_out.held_out
        if num_rows != wanted or (item.num_rows and self._last_crc != item.last_crc):
            what = "other rows" if num_rows == wanted else f"{num_rows} rows in place of {wanted}"
            raise DataLossError(
                f"{item.partition}: from offset {item.start.offset} to {item.end.offset} there are now {what}",
                fix="the topic was changed since (compacted, or made anew)",
            )
        return joined([*self._batches, *self._held_out], schema)


def runs(cuts: Iterable[Cut], *, max_gap: int) -> Iterator[list[Cut]]:
    """The cuts by partition and start, in groups that are no more than `max_gap` offsets apart."""
    run: list[Cut] = []
    for cut in sorted(cuts, key=lambda cut: (cut.item.partition, cut.item.start)):
        last = run[-1].item if run else cut.item
        if cut.item.partition != last.partition or cut.item.start.offset - last.end.offset > max_gap:
            yield run
            run = []
        run.append(cut)
    if run:
        yield run
