"""Decoding: from records to a block, by the block. A bad record becomes a value, never an exception."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pyarrow as pa
from crc32c import crc32c

from dtrain.data.block import Block, RawRecord
from dtrain.data.messages import ReadRows
from dtrain.data.schema import Schema
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import Reject


def decode(
    records: Sequence[RawRecord],
    *,
    partition: Partition,
    start: Position,
    end: Position,
    schema: Schema,
    read: ReadRows,
) -> Block:
    """The rows of `records` in [start, end), and why the others of them are not rows of the schema.

    What becomes of a row depends on its own record alone, not on which records are decoded with it. Where records are more
    than should be decoded at a time, the block ends behind the last one that was.

    Args:
        records: every record of the partition that holds a row of [start, end), in order, whole; none before `start`.
        partition: whose records.
        start: may be in mid-record: the first record's rows before it are left out.
        end: may be in mid-record, and may lie beyond the last record where offsets have gaps.
        schema: the columns to make; the batch has exactly these, in one piece, without nulls.
        read: how values are written.
    """
    rows = read(records, schema)
    if len(rows.raw_rows) < len(records):
        records = records[: len(rows.raw_rows)]
        end = min(end, Position(records[-1].offset + 1))
    whole = BlockMeta(
        partition=partition,
        start=min(start, Position(records[0].offset)) if records else start,
        end=max(end, Position(records[-1].offset + 1)) if records else end,
        offsets=array("q", [record.offset for record in records]),
        raw_rows=array("q", rows.raw_rows),
        crcs=array("q", _crcs(records)),
        rejects=tuple(Reject(records[message].offset, row, reason) for (message, row), reason in rows.rejects.items()),
        newest_ms=max((record.timestamp_ms for record in records), default=0),
    )
    first, last = whole.rows_before(start), whole.rows_before(end)
    batch = joined(rows.batches, schema).slice(first, last - first)
    rejects = tuple(reject for reject in whole.rejects if start <= (reject.offset, reject.row) < end)
    return Block(replace(whole, start=start, end=end, rejects=rejects, num_bytes=batch.nbytes), batch)


def crc_of(record: RawRecord) -> int:
    """CRC-32C of a record's key and value, in this order, unless it says another; what is absent counts as empty."""
    if record.crc is not None:
        return record.crc
    return crc32c(record.value or b"", crc32c(record.key)) if record.key else crc32c(record.value or b"")


def _crcs(records: Sequence[RawRecord]) -> Iterable[int]:
    """`crc_of` each, without a call of Python's for each where they are but values."""
    values = [record.value for record in records if record.key is None and record.crc is None and record.value is not None]
    return map(crc32c, values) if len(values) == len(records) else map(crc_of, records)


def joined(batches: Sequence[pa.RecordBatch], schema: Schema) -> pa.RecordBatch:
    """All of `batches` in one piece."""
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema.arrow], schema=schema.arrow)
    return pa.concat_batches(batches)
