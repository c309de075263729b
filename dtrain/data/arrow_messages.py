"""Messages whose value is an Arrow IPC stream: any number of rows, in any number of batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa

from dtrain.data.columns import ColumnError, indices_of
from dtrain.data.messages import Rows, add_halving
from dtrain.data.schema import Schema

_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError)
"""What pyarrow raises for bytes that are no sound stream; from where, depends on the broken byte."""


class _Message(NamedTuple):
    """One value, opened: its batches with only the schema's columns; or why it could not be."""

    schema: pa.Schema | None
    batches: list[pa.RecordBatch]
    reason: str

    @property
    def num_rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches)


def read_arrow(values: Iterable[bytes | None], schema: Schema) -> Rows:
    """The rows of `values`; never raises for what is in them."""
    rows = Rows()

    def add(messages: Sequence[_Message]) -> None:
        batches = [batch for message in messages for batch in message.batches]
        table = pa.Table.from_batches(batches, schema=messages[0].schema)
        rows.add(table, [message.num_rows for message in messages], schema)

    opener = _Opener(schema)
    for found, group in groupby((opener.open(value) for value in values), key=lambda message: message.schema):
        messages = list(group)
        if found is not None:
            add_halving(rows, messages, add)
            continue
        for message in messages:
            rows.add_bad(message.reason)
    return rows


class _Opener:
    """Opens values, and looks at a schema only when it differs from the one before."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._known: pa.Schema | None = None
        self._indices: list[int] = []
        self._selected: pa.Schema | None = None

    def open(self, value: bytes | None) -> _Message:
        if value is None:
            return _Message(None, [], "no value")
        try:
            source = pa.BufferReader(value)
            reader = pa.ipc.open_stream(source)
            self._select(reader.schema)
            batches = [batch.select(self._indices) for batch in reader]
            for batch in batches:
                batch.validate(full=True)
            if source.tell() != len(value):
                return _Message(None, [], "bytes behind the end of the Arrow IPC stream")
        except ColumnError as error:
            return _Message(None, [], str(error))
        except _ERRORS:
            return _Message(None, [], "not an Arrow IPC stream, or a broken one")
        return _Message(self._selected, batches, "")

    def _select(self, found: pa.Schema) -> None:
        if self._known is not None and found.equals(self._known):
            return
        indices = indices_of(found, self._schema)
        selected = pa.schema([found.field(index).with_metadata(None) for index in indices])
        if self._selected is None or not selected.equals(self._selected):
            self._selected = selected
        self._known, self._indices = found, indices
