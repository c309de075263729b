"""The twin's own levers, and how a source bears what they do. The rest is in the contract suite."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest

from dtrain.data.decode import crc_of
from dtrain.data.schema import Schema
from dtrain.errors import DataLossError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Mark, Partition, Position
from dtrain.steplog.ranges import RowRange
from dtrain.stream import cursor as cursors
from dtrain.stream import feed as feeds
from dtrain.stream.log import Identity
from dtrain.stream.memory import POLL_RECORDS, MemorySource, MemoryTopic
from dtrain.stream.source import SILENCE_S
from tests.support.job_world import HandClock
from tests.support.messages import json_object

SCHEMA = Schema({"y": "int64"})
PARTITION = Partition("t", 0)


class LeapingClock:
    """Sleeps at once; its time goes on by itself, too, so that no wait is for ever."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += 0.1
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


@pytest.fixture
def topic() -> MemoryTopic:
    topic = MemoryTopic("t")
    for y in range(5):
        topic.append(json_object(y=y), gap=y % 2)
    return topic


def source(topic: MemoryTopic) -> MemorySource:
    spec = SourceSpec.model_validate({"topic": "t", "bootstrap": "memory:1", "format": "json", "start": "earliest"})
    return MemorySource(spec, {"t": topic}, clock=LeapingClock())


def test_append_leaves_gaps_where_told(topic: MemoryTopic) -> None:
    assert [record.offset for record in topic.records[PARTITION]] == [0, 2, 3, 5, 6]
    assert topic.bounds[PARTITION] == (0, 7)


def test_delete_before_and_truncate_cut_both_ends(topic: MemoryTopic) -> None:
    topic.delete_before(2)
    topic.truncate(5)
    assert [record.offset for record in topic.records[PARTITION]] == [2, 3]
    assert topic.bounds[PARTITION] == (2, 5)


@pytest.mark.parametrize("most_bytes", [1, 40, 10**6])
def test_feed_decodes_so_much_at_a_time_and_gives_all_in_order(monkeypatch: pytest.MonkeyPatch, most_bytes: int) -> None:
    monkeypatch.setattr(feeds, "BLOCK_BYTES", most_bytes)
    monkeypatch.setattr(cursors, "BLOCK_BYTES", 1)
    topic = MemoryTopic("t", partitions=2)
    for y in range(20):
        topic.append(json_object(y=y), partition=y % 2)
    one, other = sorted(topic.records)
    feed = source(topic).follow(
        dict.fromkeys(topic.records, Position(0)), schema=SCHEMA, ends={one: Position(8), other: Position(9)}
    )
    found = list(feed.poll(max_wait_s=0))
    if most_bytes == 1:
        assert len(found) == 1
    feed.hold({one})
    while blocks := feed.poll(max_wait_s=0):
        assert {block.meta.partition for block in blocks} == {other}
        assert sum(block.meta.num_bytes for block in blocks[:-1]) < most_bytes
        found += blocks
    feed.hold(())
    while blocks := feed.poll(max_wait_s=0):
        found += blocks
    for partition, ys in ((one, range(0, 16, 2)), (other, range(1, 19, 2))):
        assert [y for b in found if b.meta.partition == partition for y in b.batch["y"].to_pylist()] == list(ys)


def test_feed_on_a_topic_that_is_cut_short_is_a_data_loss(topic: MemoryTopic) -> None:
    feed = source(topic).follow({PARTITION: Position(7)}, schema=SCHEMA, ends=None)
    topic.truncate(5)
    with pytest.raises(DataLossError, match="at offset 7, but the topic ends at 5"):
        feed.poll(max_wait_s=0)


def test_feed_on_a_topic_that_is_short_for_a_moment_asks_for_another_feed(topic: MemoryTopic) -> None:
    """A broker may come back before it knows again all that it has: nothing is lost then."""
    feed = source(topic).follow({PARTITION: Position(7)}, schema=SCHEMA, ends=None)
    topic.truncate(5)
    heal = feed._log.bounds

    def bounds(partitions: Collection[Partition] | None = None) -> object:
        topic.extend(1)
        return heal(partitions)

    feed._log.bounds = bounds  # type: ignore[method-assign,assignment]
    with pytest.raises(UnavailableError, match="for a moment"):
        feed.poll(max_wait_s=0)


def test_fetch_of_what_never_comes_says_that_the_broker_is_silent(topic: MemoryTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.stream.memory.MemoryTail.poll", lambda tail, max_wait_s: [])
    with pytest.raises(UnavailableError, match="nothing comes from offset 0 on"):
        source(topic).fetch([RowRange(PARTITION, Position(0), Position(1), 1)], schema=SCHEMA)


def test_time_that_a_reader_takes_for_what_came_is_not_the_logs() -> None:
    topic, clock = MemoryTopic("t"), HandClock()
    for y in range(3 * POLL_RECORDS):
        topic.append(json_object(y=y))
    spec = SourceSpec.model_validate({"topic": "t", "bootstrap": "memory:1", "format": "json"})
    num_records = 0
    for fetched in MemorySource(spec, {"t": topic}, clock=clock)._read(PARTITION, 0, 3 * POLL_RECORDS):
        num_records += len(fetched.records)
        clock.now_s += 2 * SILENCE_S
    assert num_records == 3 * POLL_RECORDS


def test_follow_asks_once_for_the_bounds_of_all_marks_and_reads_them_by_one_tail() -> None:
    topic = MemoryTopic("t", partitions=20)
    for number in range(20):
        topic.append(json_object(y=number), partition=number)
    source = MemorySource(SourceSpec(topic="t", bootstrap="memory:1", format="json"), {"t": topic})
    asked: Counter[str] = Counter()

    def counted(name: str) -> None:
        method = getattr(source.log, name)

        def ask(*args: object, **options: object) -> object:
            asked[name] += 1
            return method(*args, **options)

        setattr(source.log, name, ask)

    for name in ("describe", "bounds", "tail"):
        counted(name)
    identity = Identity({"t": topic.topic_id})
    positions = dict.fromkeys(topic.partitions, Position(1))
    marks = {p: Mark(0, crc_of(topic.records[p][0])) for p in topic.partitions}
    source.follow(positions, schema=SCHEMA, ends=None, identity=identity, marks=marks)
    assert asked == {"describe": 1, "bounds": 2, "tail": 2}
    marks[topic.partitions[7]] = Mark(0, 1)
    with pytest.raises(DataLossError, match="t:7: the record at offset 0 is another one"):
        source.follow(positions, schema=SCHEMA, ends=None, identity=identity, marks=marks)


def test_fetch_of_a_topic_made_anew_with_other_rows_is_a_data_loss(topic: MemoryTopic) -> None:
    found = source(topic)
    (block,) = found.follow({PARTITION: Position(0)}, schema=SCHEMA, ends={PARTITION: Position(7)}).poll(max_wait_s=0)
    topic.recreate()
    for _ in range(7):
        topic.append(json_object(y=9))
    with pytest.raises(DataLossError, match="there are now 7 rows in place of 5"):
        found.fetch([block.meta.range_to_end(Position(0))], schema=SCHEMA)
