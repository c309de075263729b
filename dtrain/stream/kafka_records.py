"""Kafka's record batches to raw records, several times as fast as kafka-python does it record by record.

It stands in for one method of kafka-python's fetcher, and does the same but for headers and checks of single records, which
batches of format 2 have not. The version bound in `pyproject.toml` and the contract suite hold it in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

from dtrain.data.block import RawRecord


def read_by_batch(consumer: KafkaConsumer) -> None:
    """From now on `consumer.poll` gives `RawRecord`s."""
    consumer._fetcher.PartitionRecords = _PartitionRecords


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """What one fetch brought of a partition."""

    def _unpack_records(self, tp: Any, records: Any, *_deserializers: Any) -> Iterator[RawRecord]:
        while (batch := records.next_batch()) is not None:
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(f"the batch at offset {batch.base_offset} of {tp.topic}:{tp.partition}")
            found: Iterator[RawRecord] = iter(())
            if batch.magic < 2:
                found = (RawRecord(r.offset, r.key, r.value, r.timestamp) for r in batch)
            else:
                self.leader_epoch = batch.leader_epoch
                if not self._is_hidden(batch):
                    found = _records(batch)
            for record in found:
                self.next_fetch_offset = record.offset + 1
                yield record
            if batch.magic >= 2:  # compaction keeps a batch's last offset when the record is gone
                self.next_fetch_offset = batch.next_offset
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


def _records(batch: DefaultRecordBatch) -> Iterator[RawRecord]:
    """The records of a batch of format 2: length, attributes, timestamp, offset, key, value, headers (Kafka's `Record`)."""
    batch._maybe_uncompress()
    buffer, at = bytes(batch._buffer), batch._pos
    base_offset, first_ms = batch.base_offset, batch.first_timestamp
    appended_ms = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None
    try:
        for _ in range(batch.records_count):
            length, at = decode_varint(buffer, at)
            end = at + length
            delta_ms, at = decode_varint(buffer, at + 1)
            offset, at = decode_varint(buffer, at)
            size, at = decode_varint(buffer, at)
            key, at = (None, at) if size < 0 else (buffer[at : at + size], at + size)
            size, at = decode_varint(buffer, at)
            value, at = (None, at) if size < 0 else (buffer[at : at + size], at + size)
            if at > end:
                break
            at = end
            yield RawRecord(base_offset + offset, key, value, first_ms + delta_ms if appended_ms is None else appended_ms)
        else:
            if at == len(buffer):
                return
    except (ValueError, IndexError) as error:
        raise CorruptRecordError(f"the batch at offset {base_offset}: {error}") from error
    raise CorruptRecordError(f"the batch at offset {base_offset} is not as long as its records say")
