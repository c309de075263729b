"""Messages whose value is an Arrow IPC stream or file: any number of rows, in any number of batches."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from dtrain.data.arrow_frames import BrokenError, Frames, frames_of, is_swapped
from dtrain.data.block import RawRecord
from dtrain.data.columns import ColumnError, indices_of, is_list
from dtrain.data.messages import MESSAGE_BYTES, Rows, add_halving, most_rows, row_bytes, taken, too_many
from dtrain.data.schema import Schema

_ERRORS = (pa.ArrowException, BrokenError, OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError, IndexError)
"""What is raised for bytes that are no sound stream; from where, depends on the broken byte."""

_FILE = b"ARROW1\0\0"
_FILE_END_BYTES = 10
"""Behind a file's footer: its size as 4 bytes, and the first 6 bytes of the file once more."""

_TOO_LONG = f"more than {MESSAGE_BYTES >> 20} MiB when unpacked"
_KNOWN_LAYOUTS = 16
_KNOWN_BYTES = 64 << 10


class _Message(NamedTuple):
    """One value, opened: its batches with only the schema's columns; or why it could not be."""

    schema: pa.Schema | None
    batches: list[pa.RecordBatch]
    reason: str
    num_bytes: int = 0

    @property
    def num_rows(self) -> int:
        return sum(batch.num_rows for batch in self.batches)


class _Layout(NamedTuple):
    """How to read the streams of one schema: its columns that are wanted, and their order where it is another one.

    Args:
        whole: the stream's own schema where all of its columns are wanted as they stand there; else None.
    """

    options: pa.ipc.IpcReadOptions
    whole: pa.Schema | None
    order: list[int]
    schema: pa.Schema
    has_dictionaries: bool


def read_arrow(records: Sequence[RawRecord], schema: Schema) -> Rows:
    """The rows of the records' values; see `ReadRows`."""
    rows = Rows()

    def add(messages: Sequence[_Message]) -> None:
        batches = [batch for message in messages for batch in message.batches]
        table = pa.Table.from_batches(batches, schema=messages[0].schema)
        rows.add(table, [message.num_rows for message in messages], schema)

    opener = _Opener(schema)
    opened = taken((opener.open(record.value) for record in records), lambda message: message.num_bytes)
    for found, group in groupby(opened, key=lambda message: message.schema):
        messages = list(group)
        if found is not None:
            add_halving(rows, messages, add)
            continue
        for message in messages:
            rows.add_bad(message.reason)
    return rows


class _Opener:
    """Opens values, and looks at a schema only when its bytes are others than before."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._most_rows = most_rows(schema)
        self._row_bytes = row_bytes(schema)
        self._layouts: dict[bytes, _Layout] = {}
        self._last = b""
        self._selected: list[pa.Schema] = []

    def open(self, value: bytes | None) -> _Message:
        if value is None:
            return _Message(None, [], "no value")
        try:
            return self._open(value)
        except ColumnError as error:
            return _Message(None, [], str(error))
        except _ERRORS:
            return _Message(None, [], "not an Arrow IPC stream or file, or a broken one")

    def _open(self, value: bytes) -> _Message:
        start = len(_FILE) if value.startswith(_FILE) else 0
        is_known = bool(self._last) and value.startswith(self._last, start)
        frames = frames_of(value, start + len(self._last) if is_known else start)
        num_bytes = frames.num_bytes
        if num_bytes > MESSAGE_BYTES:
            raise ColumnError(_TOO_LONG)
        if not start and frames.end != len(value):
            raise ColumnError("bytes behind the end of the Arrow IPC stream")
        stream = pa.py_buffer(value).slice(start) if start else value
        layout = self._layouts[self._last] if is_known else self._layout(value[start : frames.first_end], stream)
        batches, num_all, num_rows = [], 0, 0
        is_lone = is_known and not start and frames.num_frames == 1 and layout.whole is not None
        for batch in (
            [_lone_batch(value, layout, len(self._last))] if is_lone else pa.ipc.open_stream(stream, options=layout.options)
        ):
            num_all += 1
            num_rows += batch.num_rows
            if num_rows > self._most_rows:
                raise ColumnError(too_many(self._schema))
            batch.validate(full=True)
            if layout.has_dictionaries:
                num_bytes += sum(map(_written_bytes, batch.columns))
                if num_bytes > MESSAGE_BYTES:
                    raise ColumnError(_TOO_LONG)
            batches.append(batch.select(layout.order) if layout.order else batch)
        if start:
            _check_footer(value, frames, num_all)
        return _Message(layout.schema, batches, "", num_bytes + num_rows * self._row_bytes)

    def _layout(self, schema_bytes: bytes, stream: bytes | pa.Buffer) -> _Layout:
        layout = self._layouts.get(schema_bytes)
        if layout is None:
            layout = self._layout_of(pa.ipc.open_stream(stream).schema, is_plain=not is_swapped(schema_bytes))
            if len(schema_bytes) > _KNOWN_BYTES:
                return layout
            if len(self._layouts) >= _KNOWN_LAYOUTS:
                self._layouts.clear()
            self._layouts[schema_bytes] = layout
        self._last = schema_bytes
        return layout

    def _layout_of(self, found: pa.Schema, *, is_plain: bool) -> _Layout:
        indices = indices_of(found, self._schema)
        has_dictionaries = [_has_dictionary(found.field(index).type, found.field(index).name) for index in indices]
        wanted = sorted(indices)
        order = [] if wanted == indices else [wanted.index(index) for index in indices]
        selected = pa.schema([found.field(index).with_metadata(None) for index in indices])
        same = next((schema for schema in self._selected if schema.equals(selected)), None)
        if same is None:
            self._selected = [*self._selected[-_KNOWN_LAYOUTS:], selected]
        options = pa.ipc.IpcReadOptions(included_fields=wanted)
        whole = found if is_plain and len(wanted) == len(found) and not any(has_dictionaries) else None
        return _Layout(options, whole, order, selected if same is None else same, any(has_dictionaries))


def _lone_batch(value: bytes, layout: _Layout, start: int) -> pa.RecordBatch:
    """The only frame behind the schema, read without making a reader for the stream, which takes as long as all the rest."""
    return pa.ipc.read_record_batch(pa.py_buffer(value).slice(start), layout.whole)


def _has_dictionary(kind: pa.DataType, name: str) -> bool:
    """Whether there is one at any depth. One of lists is refused: written out, a few bytes of it may be as long as they like.

    Raises:
        ColumnError: there is one of lists.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return _has_dictionary(kind.storage_type, name)
    if is_list(kind):
        return _has_dictionary(kind.value_type, name)
    if not pa.types.is_dictionary(kind):
        return False
    if pa.types.is_nested(kind.value_type):
        raise ColumnError(f"column {name!r}: a dictionary of lists is not supported")
    return True


def _written_bytes(array: pa.Array) -> int:
    """What the dictionaries in it come to when they are written out: each word is as long as it is, as often as it is there."""
    if isinstance(array.type, pa.BaseExtensionType):
        return _written_bytes(array.storage)
    if is_list(array.type):
        return _written_bytes(array.flatten())
    if not pa.types.is_dictionary(array.type):
        return 0
    words = array.dictionary
    if pa.types.is_primitive(words.type) or pa.types.is_decimal(words.type):
        return len(array) * max(1, int(words.type.bit_width) // 8)
    if pa.types.is_null(words.type):
        return 0
    words = words.cast(pa.large_string()) if pa.types.is_string_view(words.type) else words
    lengths = pc.binary_length(words).cast(pa.int64())
    return int(pc.sum(lengths.take(array.indices)).as_py() or 0)


def _check_footer(value: bytes, frames: Frames, num_batches: int) -> None:
    """The footer stands right behind the stream, up to the value's end, and names as many batches as there are.

    Raises:
        ValueError: it does not.
    """
    footer_bytes = int.from_bytes(value[-_FILE_END_BYTES:-6], "little")
    if frames.end + footer_bytes + _FILE_END_BYTES != len(value):
        raise ValueError("the footer is not where it should be")
    if pa.ipc.open_file(value).num_record_batches != num_batches:
        raise ValueError("the footer names other batches")


def arrow_row(value: bytes, row: int) -> bytes:
    """One row of a sound value, as a value."""
    table = pa.ipc.open_stream(value).read_all().slice(row, 1)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
