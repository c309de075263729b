"""Kafka's record batches to raw records, several times as fast as kafka-python does it record by record.

It stands in for what one fetch brought in kafka-python's fetcher, and does the same but for headers and checks of single records, which
batches of format 2 have not. The version bound in `pyproject.toml` and the contract suite hold it in place.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import decode_varint

from dtrain.data.block import RawRecord, new_record

_PREFIX = struct.Struct(">qi")
"""Of a batch: its first offset, and how many bytes follow."""

LARGE_BYTES = 4096
"""A batch whose records are larger than this on average is not copied as a whole before its values are."""

_MAGIC = 16
"""Where its format's number stands."""


def read_by_batch(consumer: KafkaConsumer) -> None:
    """From now on `consumer.poll` gives `RawRecord`s, about as many as it is asked for: batches are not divided."""
    consumer._fetcher.PartitionRecords = _PartitionRecords


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """What one fetch brought of a partition."""

    def take(self, n: int | None = None) -> list[RawRecord]:
        """The next records, of whole batches."""
        self._maybe_raise_next_inline_exception()
        found: list[RawRecord] = []
        try:
            for records in self.record_iterator:
                found += records
                if n is not None and len(found) >= n:
                    break
        except CorruptRecordError as error:
            if not found:
                raise
            self._next_inline_exception = error  # behind what came before it
        return found

    def _maybe_skip_record(self, _: list[RawRecord]) -> bool:
        return False

    def _unpack_records(self, tp: Any, records: MemoryRecords, *_deserializers: Any) -> Iterator[list[RawRecord]]:
        buffer, at = records._buffer or b"", 0
        while end := _end_of_batch(buffer, at):
            batch = _batch(buffer[at:end])
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(f"the batch at offset {batch.base_offset} of {tp.topic}:{tp.partition}")
            if batch.magic < 2:
                found = [RawRecord(r.offset, r.key, r.value, r.timestamp) for r in batch]
                self.next_fetch_offset = found[-1].offset + 1
            else:
                self.leader_epoch = batch.leader_epoch
                found = [] if self._is_hidden(batch) else records_of(batch)
                self.next_fetch_offset = batch.next_offset  # compaction keeps a batch's last offset when the record is gone
            if found and found[0].offset < self.fetch_offset:
                found = [record for record in found if record.offset >= self.fetch_offset]
            self.bytes_read += end - at
            at = end
            with contextlib.suppress(CorruptRecordError):  # the next turn raises it, behind these
                if not _end_of_batch(buffer, at):
                    self.drain()  # already now, so that the next fetch is under way while these are worked on
            yield found
        self.drain()

    def _is_hidden(self, batch: DefaultRecordBatch) -> bool:
        """Whether it is a transaction's marker, or of an aborted transaction and those are not to be read."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


class Batch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch of format 2, over bytes that are not copied again."""

    def __init__(self, buffer: bytes) -> None:
        self._buffer = buffer
        self._header_data = self.HEADER_STRUCT.unpack_from(buffer)
        self._pos = self.HEADER_STRUCT.size
        self._num_records = self._header_data[12]
        self._next_record_index = 0
        self._decompressed = False


def records_of(batch: Batch) -> list[RawRecord]:
    """The records of a batch: length, attributes, timestamp, offset, key, value, headers (Kafka's `Record`).

    Raises:
        CorruptRecordError: they are not as the batch says.
    """
    batch._maybe_uncompress()
    # Large values are copied once, one by one; of small ones, a slice of bytes takes a third of the time of one of a view.
    is_large = len(batch._buffer) > LARGE_BYTES * batch.records_count
    buffer: Any = memoryview(batch._buffer) if is_large else bytes(batch._buffer)
    at = batch._pos
    base_offset, first_ms = batch.base_offset, batch.first_timestamp
    appended_ms = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None
    found: list[RawRecord] = []
    try:
        for _ in range(batch.records_count):
            # Numbers of one byte, and of two where they are frequent, are read in place: a call for each is half of the time.
            if (low := buffer[at]) < 128:
                length, at = (low >> 1) ^ -(low & 1), at + 1
            elif (high := buffer[at + 1]) < 128:
                length, at = (low & 127 | high << 7) >> 1 ^ -(low & 1), at + 2
            else:
                length, at = decode_varint(buffer, at)
            end = at + length
            if (low := buffer[at + 1]) < 128:
                delta_ms, at = (low >> 1) ^ -(low & 1), at + 2
            else:
                delta_ms, at = decode_varint(buffer, at + 1)
            if (low := buffer[at]) < 128:
                offset, at = (low >> 1) ^ -(low & 1), at + 1
            elif (high := buffer[at + 1]) < 128:
                offset, at = (low & 127 | high << 7) >> 1 ^ -(low & 1), at + 2
            else:
                offset, at = decode_varint(buffer, at)
            if buffer[at] == 1:
                key, at = None, at + 1
            else:
                size, at = decode_varint(buffer, at)
                key, at = (None, at) if size < 0 else (bytes(buffer[at : at + size]), at + size)
            if (low := buffer[at]) < 128:
                size, at = (low >> 1) ^ -(low & 1), at + 1
            elif (high := buffer[at + 1]) < 128:
                size, at = (low & 127 | high << 7) >> 1 ^ -(low & 1), at + 2
            else:
                size, at = decode_varint(buffer, at)
            stop = at + max(size, 0)
            value, at = None if size < 0 else bytes(buffer[at:stop]) if is_large else buffer[at:stop], stop
            if at > end:
                break
            at = end
            ms = first_ms + delta_ms if appended_ms is None else appended_ms
            found.append(new_record((base_offset + offset, key, value, ms, None)))
        else:
            if at == len(buffer):
                return found
    except (ValueError, IndexError) as error:
        raise CorruptRecordError(f"the batch at offset {base_offset}: {error}") from error
    raise CorruptRecordError(f"the batch at offset {base_offset} is not as long as its records say")


def _end_of_batch(buffer: bytes, at: int) -> int:
    """Where the batch at `at` ends; 0 when there is none, or a part of one, which a fetch may end with."""
    if len(buffer) < at + _PREFIX.size:
        return 0
    size = _PREFIX.size + int(_PREFIX.unpack_from(buffer, at)[1])
    if size < MemoryRecords.MIN_SLICE:
        raise CorruptRecordError(f"a batch of {size} bytes")
    return at + size if at + size <= len(buffer) else 0


def _batch(buffer: bytes) -> Any:
    if buffer[_MAGIC] < 2:
        return MemoryRecords(buffer).next_batch()
    if len(buffer) < Batch.HEADER_STRUCT.size:
        raise CorruptRecordError(f"a batch of {len(buffer)} bytes")
    return Batch(buffer)
