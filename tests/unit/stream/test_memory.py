"""The twin's own levers, and how a source bears what they do. The rest is in the contract suite."""

from __future__ import annotations

import pytest

from dtrain.data.schema import Schema
from dtrain.errors import DataLossError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import RowRange
from dtrain.stream.memory import MemorySource, MemoryTopic
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

    def bounds() -> object:
        topic.extend(1)
        return heal()

    feed._log.bounds = bounds  # type: ignore[method-assign,assignment]
    with pytest.raises(UnavailableError, match="for a moment"):
        feed.poll(max_wait_s=0)


def test_fetch_of_what_never_comes_says_that_the_broker_is_silent(topic: MemoryTopic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.stream.memory.MemoryTail._fetch", lambda tail: [])
    monkeypatch.setattr(topic.changed, "wait", lambda timeout: None)
    with pytest.raises(UnavailableError, match="nothing comes from offset 0 on"):
        source(topic).fetch([RowRange(PARTITION, Position(0), Position(1), 1)], schema=SCHEMA)


def test_fetch_of_a_topic_made_anew_with_other_rows_is_a_data_loss(topic: MemoryTopic) -> None:
    found = source(topic)
    (block,) = found.follow({PARTITION: Position(0)}, schema=SCHEMA, ends={PARTITION: Position(7)}).poll(max_wait_s=0)
    topic.recreate()
    for _ in range(7):
        topic.append(json_object(y=9))
    with pytest.raises(DataLossError, match="there are now 7 rows in place of 5"):
        found.fetch([block.meta.range_to_end(Position(0))], schema=SCHEMA)
