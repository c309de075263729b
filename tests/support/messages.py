"""Message values for tests: Arrow IPC streams and JSON objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from dtrain.data.block import RawRecord


def arrow(columns: Mapping[str, Any] | pa.Table, *, rows_a_batch: int | None = None, codec: str | None = None) -> bytes:
    """One message with the rows of `columns`, in batches of `rows_a_batch`."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table, max_chunksize=rows_a_batch)
    return bytes(sink.getvalue())


def json_object(**columns: Any) -> bytes:
    """One message with one row."""
    return json.dumps(columns).encode()


def records(values: Sequence[bytes | None], *, first: int = 0) -> list[RawRecord]:
    """Records with these values at offsets from `first` on, without gaps."""
    return [RawRecord(offset, None, value, 1000 + offset) for offset, value in enumerate(values, first)]
