"""Two brokers as one cluster: node 2 leads what is read, and may die."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kafka.errors import KafkaError

from deploy.kafka.broker import Broker
from deploy.kafka.jars import resolve_jars
from tests.support.kafka import REPOSITORY, Kafka

_TIMEOUT_S = 60


class Pair(Kafka):
    """What tests do to a cluster of two brokers.

    Args:
        first: node 1, a broker and the controller.
        second: node 2, a broker.
    """

    def __init__(self, first: Broker, second: Broker) -> None:
        super().__init__(first)
        self.second = second

    @property
    def bootstrap(self) -> str:
        return f"{self.broker.bootstrap},{self.second.bootstrap}"

    def leader(self, topic: str, partition: int = 0) -> int | None:
        """The node that leads a partition; -1 for none, None where one was asked that is just dying."""
        try:
            with self.admin() as admin:
                (found,) = admin.describe_topics([topic])
        except KafkaError:
            return None
        return int(next(each["leader_id"] for each in found["partitions"] if each["partition_index"] == partition))

    def wait_for_leader(self, topic: str, node: int, partition: int = 0) -> None:
        """`node` leads the partition."""
        deadline_s = time.monotonic() + _TIMEOUT_S
        while (leader := self.leader(topic, partition)) != node:
            assert time.monotonic() < deadline_s, (topic, partition, leader)
            time.sleep(0.1)

    def lead_back(self, topic: str) -> None:
        """Node 2 leads the topic's first partition, as soon as it has all that node 1 has."""
        deadline_s = time.monotonic() + _TIMEOUT_S
        while (leader := self.leader(topic)) != 2:
            assert time.monotonic() < deadline_s, (topic, leader)
            with suppress(KafkaError), self.admin() as admin:
                admin.elect_leaders(0, {topic: [0]}, raise_errors=False)
            time.sleep(0.2)


@contextmanager
def two_brokers(folder: Path) -> Iterator[Pair]:
    libs = resolve_jars(REPOSITORY / "build" / "kafka")
    with Broker.start(folder / "1", libs=libs) as first, Broker.start(folder / "2", libs=libs, join=first) as second:
        pair = Pair(first, second)
        yield pair
        pair.close()
