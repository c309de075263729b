"""Shaping: the rows of a table as messages for a topic, many rows to one, each an Arrow IPC stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from dtrain.errors import InputError

PartitionOf = Callable[[bytes], int]
"""Key → partition."""

_FIRST_MS = 100_000_000_000
"""March 1973. A whole number of milliseconds before it was seconds, as a rule."""


class Message(NamedTuple):
    """A value on its way to a partition. `timestamp_ms` is None for the time at which it is sent."""

    partition: int
    key: bytes | None
    value: bytes
    timestamp_ms: int | None
    num_rows: int


@dataclass(frozen=True, slots=True)
class Shape:
    """How rows become messages.

    Args:
        rows: of a message; the last one of a partition may have fewer.
        key: column whose value, as text, decides the partition, as Kafka's own producers would have it; with one row a message it
            is the message's key too. Empty: messages go round all partitions.
        timestamp: column of the rows' times; a message has the newest of its rows. Empty: the time of sending.
    """

    rows: int = 1024
    key: str = ""
    timestamp: str = ""

    def check(self, schema: pa.Schema) -> None:
        """Raise `InputError` where a column is missing or of a type that will not do."""
        for what, name in (("key", self.key), ("timestamp", self.timestamp)):
            if name and len(schema.get_all_field_indices(name)) != 1:
                raise InputError(f"there is no one column {name!r}", fix=f"use for --{what} one of {', '.join(schema.names)}")
        if self.key and pa.types.is_nested(schema.field(self.key).type):
            kind = schema.field(self.key).type
            raise InputError(f"column {self.key!r} is {kind}, which is no key", fix="use a column of texts or numbers")
        if self.timestamp and not _is_time(schema.field(self.timestamp).type):
            kind = schema.field(self.timestamp).type
            fix = "use a column of timestamps, or of whole milliseconds since 1970"
            raise InputError(f"column {self.timestamp!r} is {kind}, which is no time", fix=fix)


def messages(
    batches: Iterable[pa.RecordBatch], shape: Shape, *, num_partitions: int, partition_of: PartitionOf
) -> Iterator[Message]:
    """The rows of `batches` as messages: without a key in the file's order, with one in that order for each partition.

    Raises:
        InputError: a time is plainly not in milliseconds.
    """
    if shape.key:
        yield from _by_key(batches, shape, num_partitions=num_partitions, partition_of=partition_of)
        return
    pile, number = _Pile(), 0
    for batch in batches:
        pile.add(batch)
        while pile.num_rows >= shape.rows:
            yield _message(pile.take(shape.rows), shape, partition=number % num_partitions)
            number += 1
    if pile.num_rows:
        yield _message(pile.take(pile.num_rows), shape, partition=number % num_partitions)


def _by_key(
    batches: Iterable[pa.RecordBatch], shape: Shape, *, num_partitions: int, partition_of: PartitionOf
) -> Iterator[Message]:
    piles = [_Pile() for _ in range(num_partitions)]
    for batch in batches:
        places = _places(batch.column(shape.key), partition_of)
        for partition, pile in enumerate(piles):
            pile.add(batch.filter(pc.equal(places, partition)))
            while pile.num_rows >= shape.rows:
                yield _message(pile.take(shape.rows), shape, partition=partition)
    for partition, pile in enumerate(piles):
        if pile.num_rows:
            yield _message(pile.take(pile.num_rows), shape, partition=partition)


def _places(keys: pa.Array, partition_of: PartitionOf) -> pa.Array:
    """The partition of each row."""
    encoded = _plain(keys).dictionary_encode(null_encoding="encode")
    places = [partition_of(_key_bytes(key)) for key in encoded.dictionary.to_pylist()]
    return pa.array(places, pa.int32()).take(encoded.indices)


def _key_bytes(key: object) -> bytes:
    """A value as a key: its text; none counts as empty."""
    return key if isinstance(key, bytes) else b"" if key is None else str(key).encode()


class _Pile:
    """Rows that wait for others to make a message with."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self.num_rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._batches.append(batch)
            self.num_rows += batch.num_rows

    def take(self, num_rows: int) -> pa.RecordBatch:
        """The first so many, in one piece."""
        first = self._batches[0]
        if first.num_rows < num_rows:
            first = pa.concat_batches(self._batches)
            self._batches = [first]
        self._batches[0] = first.slice(num_rows)
        if not self._batches[0].num_rows:
            del self._batches[0]
        self.num_rows -= num_rows
        return first.slice(0, num_rows)


def _message(rows: pa.RecordBatch, shape: Shape, *, partition: int) -> Message:
    key = _key_bytes(rows.column(shape.key)[0].as_py()) if shape.key and shape.rows == 1 else None
    timestamp_ms = _newest_ms(rows.column(shape.timestamp), shape.timestamp) if shape.timestamp else None
    return Message(partition, key, ipc_stream(rows), timestamp_ms, rows.num_rows)


def ipc_stream(rows: pa.RecordBatch) -> bytes:
    """An Arrow IPC stream of `rows`; dictionaries as what they stand for, because each message would repeat the whole of them."""
    plain = pa.RecordBatch.from_arrays([_plain(column) for column in rows.columns], names=rows.schema.names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, plain.schema) as writer:
        writer.write_batch(plain)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind))


def _newest_ms(times: pa.Array, name: str) -> int | None:
    is_number = pa.types.is_integer(times.type)
    numbers = times if is_number else times.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    newest_ms: int | None = pc.max(numbers).as_py()
    if newest_ms is not None and is_number and newest_ms < _FIRST_MS:
        raise InputError(
            f"column {name!r}: {newest_ms} is a time in {1970 + newest_ms // 31_557_600_000}, if it is milliseconds since 1970",
            fix="multiply seconds by 1000",
        )
    return newest_ms
