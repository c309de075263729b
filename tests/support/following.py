"""A feed that is checked row by row, and a producer that writes all the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Event, Thread
from typing import Any, Self

from kafka.errors import KafkaError

from dtrain.data.block import Block
from dtrain.data.schema import Schema
from dtrain.errors import UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.feed import Feed
from dtrain.stream.kafka import KafkaSource
from tests.support.kafka import Kafka
from tests.support.messages import json_object

SCHEMA = Schema({"y": "int64"})


class Following:
    """A feed of a topic, in each of whose partitions the rows 0, 1, … are written: they come in order, each once.

    Args:
        topic: its messages are JSON objects with the row's number as `y`.
        bootstrap: where the feed's source asks.
        engine: of the source.
    """

    def __init__(self, topic: str, *, bootstrap: str, engine: str) -> None:
        self.topic = topic
        self.num_feeds = 0
        fields = {"topic": topic, "bootstrap": bootstrap, "format": "json", "start": "earliest", "engine": engine}
        self._source = KafkaSource(SourceSpec.model_validate(fields))
        self._positions: dict[Partition, Position] = self._source.resolve_start()
        self.rows = {partition.number: 0 for partition in self._positions}
        """By partition, how many have come."""
        self.feed = self._follow()

    @property
    def num_read(self) -> int:
        return sum(self.rows.values())

    def read(self, until: Mapping[int, int], *, for_s: float) -> bool:
        """Poll until so many rows have come of these partitions, or for so long; whether they have."""
        deadline_s = time.monotonic() + for_s
        while not (is_there := all(self.rows[number] >= rows for number, rows in until.items())):
            if time.monotonic() > deadline_s:
                break
            try:
                self._take(self.feed.poll(max_wait_s=0.2))
            except UnavailableError:  # what the coordinator does then
                self.feed.close()
                self.feed = self._follow_again(deadline_s)
        return is_there

    def follow_anew(self) -> None:
        """Another feed goes on, as after a reader's death."""
        self.feed.close()
        self.feed = self._follow()

    def close(self) -> None:
        self.feed.close()
        self._source.close()

    def _follow_again(self, deadline_s: float) -> Feed:
        while True:
            try:
                return self._follow()
            except UnavailableError:
                assert time.monotonic() < deadline_s
                time.sleep(0.2)

    def _follow(self) -> Feed:
        self.num_feeds += 1
        return self._source.follow(self._positions, schema=SCHEMA, ends=None)

    def _take(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            partition, found = block.meta.partition, block.batch["y"].to_pylist()
            first = self.rows[partition.number]
            assert found == list(range(first, first + len(found)))
            self.rows[partition.number] += len(found)
            self._positions[partition] = block.meta.end


class Writing:
    """Messages 0, 1, … are written to a partition, one every some milliseconds, whoever leads it, until `stop`.

    Args:
        kafka: where.
        topic: whose.
        message: the value of each.
    """

    def __init__(
        self,
        kafka: Kafka,
        topic: str,
        *,
        message: Callable[[int], bytes] = lambda number: json_object(y=number),
    ) -> None:
        self._topic = topic
        self._message = message
        self._producer = kafka.producer()
        self._sent: list[Any] = []
        self._stop = Event()
        self._thread = Thread(target=self._write, daemon=True)

    @property
    def num_written(self) -> int:
        return len(self._sent)

    def stop(self) -> int:
        """Every message is acknowledged, at the offset of its number; how many there are."""
        self._stop.set()
        self._thread.join()
        self._producer.flush(timeout=90)
        assert [future.get(timeout=1).offset for future in self._sent] == list(range(self.num_written))
        return self.num_written

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(KafkaError):
            self._producer.close(timeout=2)

    def _write(self) -> None:
        while not self._stop.wait(0.004):
            self._sent.append(self._producer.send(self._topic, self._message(self.num_written), partition=0))
