"""What a call brings: whole blocks in their order, bounded, those that are wanted, and together with what comes soon after."""

from __future__ import annotations

import threading

from dtrain.clock import SystemClock
from dtrain.data.block import Block
from dtrain.data.schema import Schema
from dtrain.policy.blocking import Size
from dtrain.runtime.gatherer import Gatherer
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Position
from dtrain.stream.memory import MemorySource, MemoryTopic
from tests.support.messages import json_object

SCHEMA = Schema({"y": "int64"})
PLENTY = Size(rows=1000, num_bytes=1 << 20)


class StoppedClock(SystemClock):
    """Time does not go on."""

    def monotonic_s(self) -> float:
        return 0.0


def new(topic: MemoryTopic, clock: SystemClock | None = None) -> Gatherer:
    spec = SourceSpec.model_validate({"topic": topic.name, "bootstrap": "localhost:9092", "format": "json"})
    source = MemorySource(spec, {topic.name: topic})
    feed = source.follow(dict.fromkeys(topic.partitions, Position(0)), schema=SCHEMA, ends=None)
    return Gatherer(feed, clock or SystemClock())


def filled(*, partitions: int, rows: int) -> MemoryTopic:
    topic = MemoryTopic("t", partitions=partitions)
    for number in range(rows * partitions):
        topic.append(json_object(y=number), partition=number % partitions)
    return topic


def rows_of(blocks: list[Block]) -> list[int]:
    return [y for block in blocks for y in block.batch["y"].to_pylist()]


def test_gather_of_a_backlog_stops_at_the_size_and_keeps_the_rest_in_order() -> None:
    gatherer = new(filled(partitions=3, rows=10))
    size = Size(rows=15, num_bytes=1 << 20)
    first, second = (gatherer.gather(size, sated=(), max_wait_s=1.0) for _ in range(2))
    assert [block.meta.partition.number for block in first + second] == [0, 1, 2]
    assert len(rows_of(first)) == 20, "beyond the size by one block at most"
    assert sorted(rows_of(first + second)) == list(range(30))


def test_gather_is_bounded_in_bytes() -> None:
    gatherer = new(filled(partitions=3, rows=10))
    assert len(gatherer.gather(Size(rows=1000, num_bytes=1), sated=(), max_wait_s=1.0)) == 1


def test_gather_leaves_sated_partitions_for_later() -> None:
    topic = filled(partitions=2, rows=10)
    gatherer = new(topic)
    gatherer.gather(Size(rows=1, num_bytes=1 << 20), sated=(), max_wait_s=1.0)
    assert gatherer.gather(PLENTY, sated=topic.partitions[1:], max_wait_s=0.0) == []
    assert rows_of(gatherer.gather(PLENTY, sated=(), max_wait_s=0.0)) == list(range(1, 20, 2))


def test_gather_of_nothing_gives_nothing() -> None:
    assert new(MemoryTopic("t")).gather(PLENTY, sated=(), max_wait_s=0.0) == []


def test_gather_waits_for_what_comes_within_the_linger() -> None:
    topic = filled(partitions=1, rows=1)
    gatherer = new(topic, StoppedClock())  # something has just left, and the linger never ends: only the size does
    late = threading.Timer(0.02, topic.append, [json_object(y=7)])
    late.start()
    assert rows_of(gatherer.gather(Size(rows=2, num_bytes=1 << 20), sated=(), max_wait_s=30.0)) == [0, 7]
    late.join()


def test_gather_of_rows_that_come_alone_does_not_wait() -> None:
    class LaterClock(SystemClock):
        """Each look is a second later."""

        now_s = 0.0

        def monotonic_s(self) -> float:
            self.now_s += 1.0
            return self.now_s

    gatherer = new(filled(partitions=1, rows=1), LaterClock())
    assert rows_of(gatherer.gather(PLENTY, sated=(), max_wait_s=1.0)) == [0]
