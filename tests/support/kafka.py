"""A real broker for tests: topics of one's own, records at known places."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from dtrain.stream.broker import Broker, find_broker

REPOSITORY = Path(__file__).parents[2]


def broker_from_environment(folder: Path) -> Broker:
    """The broker of KAFKA_BOOTSTRAP, or one that ends when its `close` is called."""
    return find_broker(
        bootstrap=os.environ.get("KAFKA_BOOTSTRAP"),
        home=os.environ.get("KAFKA_HOME"),
        cache=REPOSITORY / "build" / "kafka",
        folder=folder,
    )


class Kafka:
    """What tests do to a broker. Every topic has a name of its own, so that tests do not see each other."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._producer: KafkaProducer | None = None

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    def new_topic(self, *, partitions: int = 1, name: str | None = None, configs: Mapping[str, str] | None = None) -> str:
        """A fresh topic that can be written and read."""
        name = name or f"t-{uuid.uuid4().hex[:12]}"
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, topic_configs=dict(configs or {}))
        with self.admin() as admin:
            admin.create_topics([topic], wait_for_metadata=True)
        return name

    def produce(
        self,
        topic: str,
        partition: int,
        values: Iterable[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        timestamps_ms: Sequence[int] | None = None,
    ) -> list[int]:
        """Write `values` in their order; the offsets that they got."""
        if self._producer is None:
            self._producer = self.producer()
        sent = [
            self._producer.send(
                topic,
                value,
                partition=partition,
                key=keys[i] if keys else None,
                timestamp_ms=timestamps_ms[i] if timestamps_ms else None,
            )
            for i, value in enumerate(values)
        ]
        self._producer.flush(timeout=30)
        return [future.get(timeout=30).offset for future in sent]

    def producer(self, **options: Any) -> KafkaProducer:
        """A producer of one's own; the caller closes it."""
        return KafkaProducer(bootstrap_servers=self.bootstrap, **({"acks": "all", "linger_ms": 1} | options))

    def admin(self) -> KafkaAdminClient:
        """An admin client; a context manager."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=2)
