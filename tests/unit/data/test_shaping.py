"""Rows to messages: every row once, as many to a message and in the partition that was asked for."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.shaping import Message, Shape, messages
from dtrain.errors import InputError

NUM_PARTITIONS = 3


def partition_of(key: bytes) -> int:
    return zlib.crc32(key) % NUM_PARTITIONS


def shaped(batches: Sequence[pa.RecordBatch], shape: Shape) -> list[Message]:
    return list(messages(batches, shape, num_partitions=NUM_PARTITIONS, partition_of=partition_of))


def rows_of(message: Message) -> pa.Table:
    return pa.ipc.open_stream(message.value).read_all()


def batches_of(keys: Sequence[int | None], *, at_a_time: int) -> list[pa.RecordBatch]:
    table = pa.table({"key": pa.array(keys, pa.int64()), "row": range(len(keys))})
    return table.to_batches(max_chunksize=at_a_time)


@given(num_rows=st.integers(0, 60), at_a_time=st.integers(1, 20), rows=st.integers(1, 25))
def test_messages_without_a_key_hold_every_row_in_order_and_go_round_the_partitions(
    num_rows: int, at_a_time: int, rows: int
) -> None:
    found = shaped(batches_of([None] * num_rows, at_a_time=at_a_time), Shape(rows))
    assert [row for message in found for row in rows_of(message)["row"].to_pylist()] == list(range(num_rows))
    assert [message.num_rows for message in found[:-1]] == [rows] * (len(found) - 1)
    assert [message.partition for message in found] == [number % NUM_PARTITIONS for number in range(len(found))]
    assert sum(message.num_rows for message in found) == num_rows


@given(keys=st.lists(st.none() | st.integers(0, 9), max_size=60), at_a_time=st.integers(1, 20), rows=st.integers(1, 9))
def test_messages_by_key_hold_every_row_once_in_its_keys_partition_and_order(
    keys: list[int | None], at_a_time: int, rows: int
) -> None:
    found = shaped(batches_of(keys, at_a_time=at_a_time), Shape(rows, key="key"))
    seen: dict[int, list[int]] = {}
    for message in found:
        table = rows_of(message)
        seen.setdefault(message.partition, []).extend(table["row"].to_pylist())
        texts = ["" if key is None else str(key) for key in table["key"].to_pylist()]
        assert {partition_of(text.encode()) for text in texts} == {message.partition}
        assert message.key == (texts[0].encode() if rows == 1 else None)
    assert sorted(row for part in seen.values() for row in part) == list(range(len(keys)))
    assert all(part == sorted(part) for part in seen.values())
    short = Counter(message.partition for message in found if message.num_rows < rows)
    assert all(count == 1 for count in short.values())


def test_dictionaries_are_written_as_what_they_stand_for_and_can_be_keys() -> None:
    words = pa.DictionaryArray.from_arrays([0, None, 1], ["a", "b"])
    found = shaped([pa.record_batch({"word": words})], Shape(1, key="word"))
    assert sorted((message.key, rows_of(message)["word"].to_pylist()[0]) for message in found if message.key) == [
        (b"a", "a"),
        (b"b", "b"),
    ]
    assert len(found) == 3
    assert rows_of(found[0]).schema.field("word").type == pa.string()


@pytest.mark.parametrize(
    ("times", "newest_ms"),
    [
        (pa.array([1_700_000_000_000, None, 1_600_000_000_000]), 1_700_000_000_000),
        (pa.array([datetime(2013, 1, 1, tzinfo=UTC), datetime(2012, 1, 1, tzinfo=UTC)]), 1_356_998_400_000),
        (pa.array([datetime(1971, 1, 1, tzinfo=UTC)]), 31_536_000_000),
        (pa.array([date(2013, 1, 1)]), 1_356_998_400_000),
        (pa.array([None], pa.int64()), None),
    ],
)
def test_message_has_the_time_of_its_newest_row(times: pa.Array, newest_ms: int | None) -> None:
    shape = Shape(timestamp="at")
    shape.check(pa.schema({"at": times.type}))
    (message,) = shaped([pa.record_batch({"at": times})], shape)
    assert message.timestamp_ms == newest_ms


def test_seconds_for_milliseconds_are_refused() -> None:
    with pytest.raises(InputError, match="1970") as raised:
        shaped([pa.record_batch({"at": [1_700_000_000]})], Shape(timestamp="at"))
    assert "1000" in raised.value.fix


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (Shape(key="absent"), "no one column 'absent'"),
        (Shape(timestamp="absent"), "no one column 'absent'"),
        (Shape(key="list"), "is no key"),
        (Shape(timestamp="text"), "is no time"),
    ],
)
def test_columns_that_will_not_do_are_refused_before_anything_is_sent(shape: Shape, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        shape.check(pa.schema({"list": pa.list_(pa.int64()), "text": pa.string()}))
    assert raised.value.fix
