"""Record batches read in one go, against kafka-python's own reader of single records."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords

from dtrain.data.block import RawRecord
from dtrain.stream.kafka_records import Batch, _PartitionRecords, records_of

Rows = list[tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]


def batch(rows: Rows, *, compression: int = 0) -> Batch:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=compression,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for offset, timestamp_ms, key, value, headers in rows:
        builder.append(offset, timestamp_ms, key, value, headers)
    return Batch(builder.build())


rows_of = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2**41),
        st.none() | st.binary(max_size=200),
        st.none() | st.binary(max_size=20_000),
        st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=2),
    ),
    min_size=1,
    max_size=20,
)


@given(rows_of, st.sampled_from([0, 1, 3, 4]))
def test_records_are_those_of_kafka_python(drawn: Rows, compression: int) -> None:
    rows = [(sum(row[0] for row in drawn[: i + 1]) + i, *row[1:]) for i, row in enumerate(drawn)]
    expected = [RawRecord(r.offset, r.key, r.value, r.timestamp) for r in batch(rows, compression=compression)]
    assert [r.offset for r in expected] == [row[0] for row in rows]
    assert records_of(batch(rows, compression=compression)) == expected


@pytest.mark.parametrize("count", [1, 3])
def test_records_of_a_batch_that_counts_wrongly_are_corrupt(count: int) -> None:
    found = batch([(0, 0, None, b"a", []), (1, 0, None, b"b", [])])
    found._header_data = (*found._header_data[:12], count)
    with pytest.raises(CorruptRecordError, match="at offset 0"):
        records_of(found)


def test_records_before_a_damaged_batch_come_before_its_error() -> None:
    """Else the position were behind them, and they would be a gap."""
    first, second, damaged = (bytearray(batch([(0, 0, None, b"%d" % n, [])])._buffer) for n in range(3))
    for number, one in enumerate((first, second, damaged)):
        one[0:8] = number.to_bytes(8)
    damaged[8:12] = (5).to_bytes(4)
    found = _PartitionRecords(0, TopicPartition("t", 0), MemoryRecords(bytes(first + second + damaged)))
    assert [record.offset for record in found.take(100)] == [0, 1]
    assert found.next_fetch_offset == 2
    with pytest.raises(CorruptRecordError):
        found.take(100)


@given(st.data())
def test_records_of_flipped_bits_raise_nothing_else(data: st.DataObject) -> None:
    found = batch([(i, i, b"key", b"value" * i, []) for i in range(5)])
    at = data.draw(st.integers(found._pos, len(found._buffer) - 1))
    found._buffer[at] ^= 1 << data.draw(st.integers(0, 7))
    with contextlib.suppress(CorruptRecordError):
        assert len(records_of(found)) == 5
