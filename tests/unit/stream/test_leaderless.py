"""Partitions without a leader, over the twin in memory: they come later, and are looked at first."""

from __future__ import annotations

from contextlib import closing

import pytest

from dtrain.data.schema import Schema
from dtrain.errors import DataLossError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Mark, Partition, Position
from dtrain.stream.feed import Feed
from dtrain.stream.memory import MemorySource, MemoryTopic
from tests.support.messages import json_object

SPEC = SourceSpec.model_validate({"topic": "t", "bootstrap": "memory:1", "format": "json", "start": "earliest"})
SCHEMA = Schema({"y": "int64"})


@pytest.fixture
def topic() -> MemoryTopic:
    """Rows 0 to 9, the odd ones in partition 1, which has no leader."""
    topic = MemoryTopic("t", partitions=2)
    for y in range(10):
        topic.append(json_object(y=y), partition=y % 2)
    topic.leaderless.add(topic.partitions[1])
    return topic


def follow(topic: MemoryTopic, *, mark: Mark | None = None) -> Feed:
    source = MemorySource(SPEC, {"t": topic})
    marks = {topic.partitions[1]: mark} if mark is not None else {}
    return source.follow(dict.fromkeys(topic.partitions, Position(2)), schema=SCHEMA, ends=None, marks=marks)


def ys(feed: Feed) -> list[int]:
    return [y for block in feed.poll(max_wait_s=0.01) for y in block.batch["y"].to_pylist()]


def test_partition_without_a_leader_is_read_as_soon_as_it_has_one(topic: MemoryTopic) -> None:
    with closing(follow(topic)) as feed:
        assert ys(feed) == [4, 6, 8]
        assert feed.news() == ["no leader for t:1: read as soon as there is one"]
        assert ys(feed) == []
        topic.leaderless.clear()
        assert ys(feed) == [5, 7, 9]
        assert feed.news() == ["t:1 has a leader again"]
        assert feed.news() == []


def test_partition_that_is_held_when_it_gets_a_leader_stays_so(topic: MemoryTopic) -> None:
    with closing(follow(topic)) as feed:
        feed.hold(topic.partitions)
        topic.leaderless.clear()
        assert ys(feed) == []
        feed.hold(())
        assert sorted(ys(feed)) == [4, 5, 6, 7, 8, 9]


def test_what_a_partition_lost_is_found_when_it_has_a_leader(topic: MemoryTopic) -> None:
    with closing(follow(topic)) as feed:
        topic.delete_before(4, partition=1)
        assert ys(feed) == [4, 6, 8]
        topic.leaderless.clear()
        with pytest.raises(DataLossError, match="t:1: records from offset 2 to 3 were deleted"):
            ys(feed)


def test_record_that_is_another_one_is_found_when_it_has_a_leader(topic: MemoryTopic) -> None:
    with closing(follow(topic, mark=Mark(1, 12345))) as feed:
        assert ys(feed) == [4, 6, 8]
        topic.leaderless.clear()
        with pytest.raises(DataLossError, match="t:1: the record at offset 1 is another one"):
            ys(feed)


def test_topic_that_is_deleted_while_it_has_no_leader_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.stream.feed.GONE_S", 0.0)
    monkeypatch.setattr("dtrain.stream.losses.GRACE_S", 0.0)
    topics = {name: MemoryTopic(name) for name in "ab"}
    topics["a"].leaderless.add(Partition("a", 0))
    spec = SourceSpec.model_validate({"topics": ["a", "b"], "bootstrap": "memory:1", "format": "json", "start": "earliest"})
    source = MemorySource(spec, topics)
    places = {Partition(name, 0): Position(0) for name in "ab"}
    with closing(source.follow(places, schema=SCHEMA, ends=None, identity=source.identify())) as feed:
        assert ys(feed) == []
        del topics["a"]
        with pytest.raises(DataLossError, match="a:0: the topic was deleted"):
            ys(feed)


def test_gap_is_allowed_where_there_is_a_leader(topic: MemoryTopic) -> None:
    for partition in range(2):
        topic.delete_before(4, partition=partition)
    source = MemorySource(SPEC, {"t": topic})
    places, identity = dict.fromkeys(topic.partitions, Position(2)), source.identify()
    known = {"ends": None, "identity": identity, "marks": {}}
    assert [str(move.partition) for move in source.gaps(places, **known).moves] == ["t:0"]
    topic.leaderless.clear()
    assert [str(move.partition) for move in source.gaps(places, **known).moves] == ["t:0", "t:1"]


def test_job_cannot_begin_before_it_knows_where(topic: MemoryTopic) -> None:
    """Left out now, the partition would be read from its first record on later, whatever `start` says."""
    with pytest.raises(UnavailableError, match="t:1 has no leader"):
        MemorySource(SPEC, {"t": topic}).resolve_start()
