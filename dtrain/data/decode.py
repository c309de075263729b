"""Decoding: from records to a block, by the block. A bad record becomes a value, never an exception."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal

import pyarrow as pa

from dtrain.data.arrow_messages import read_arrow
from dtrain.data.block import Block, RawRecord
from dtrain.data.json_messages import read_json
from dtrain.data.messages import Rows
from dtrain.data.schema import Schema
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import Reject

Format = Literal["arrow", "json"]

_READERS: dict[Format, Callable[[Iterable[bytes | None], Schema], Rows]] = {"arrow": read_arrow, "json": read_json}


def decode(
    records: Sequence[RawRecord],
    *,
    partition: Partition,
    start: Position,
    end: Position,
    schema: Schema,
    format: Format,  # noqa: A002 - the field's name in a job file
) -> Block:
    """The rows of `records` in [start, end), and why the others of them are not rows of the schema.

    What becomes of a row depends on its own record alone, not on which records are decoded with it.

    Args:
        records: every record of the partition that holds a row of [start, end), in order, whole; none before `start`.
        partition: whose records.
        start: may be in mid-record: the first record's rows before it are left out.
        end: may be in mid-record, and may lie beyond the last record where offsets have gaps.
        schema: the columns to make; the batch has exactly these, in one piece, without nulls.
        format: how a value is written.
    """
    rows = _READERS[format]([record.value for record in records], schema)
    whole = BlockMeta(
        partition=partition,
        start=min(start, Position(records[0].offset)) if records else start,
        end=max(end, Position(records[-1].offset + 1)) if records else end,
        offsets=array("q", [record.offset for record in records]),
        raw_rows=array("q", rows.raw_rows),
        crcs=array("q", [crc_of(record) for record in records]),
        rejects=tuple(Reject(records[message].offset, row, reason) for (message, row), reason in rows.rejects.items()),
        newest_ms=max((record.timestamp_ms for record in records), default=0),
    )
    first, last = whole.rows_before(start), whole.rows_before(end)
    batch = joined(rows.batches, schema).slice(first, last - first)
    rejects = tuple(reject for reject in whole.rejects if start <= (reject.offset, reject.row) < end)
    return Block(replace(whole, start=start, end=end, rejects=rejects, num_bytes=batch.nbytes), batch)


def crc_of(record: RawRecord) -> int:
    """CRC-32 of a record's key and value, in this order; what is absent counts as empty."""
    return zlib.crc32(record.value or b"", zlib.crc32(record.key or b""))


def joined(batches: Sequence[pa.RecordBatch], schema: Schema) -> pa.RecordBatch:
    """All of `batches` in one piece."""
    if len(batches) == 1:
        return batches[0]
    if not batches:
        return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema.arrow], schema=schema.arrow)
    return pa.concat_batches(batches)
