"""A real broker for tests: topics of one's own, records at known places."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
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
                key=keys[i] if keys else b"-" if value is None else None,  # the client wants one of both
                timestamp_ms=timestamps_ms[i] if timestamps_ms else None,
            )
            for i, value in enumerate(values)
        ]
        self._producer.flush(timeout=30)
        return [future.get(timeout=30).offset for future in sent]

    def produce_aborted(self, topic: str, partition: int, values: Iterable[bytes]) -> None:
        """Write `values` in a transaction that is then aborted: offsets that nobody reads."""
        with closing(self.producer(transactional_id=uuid.uuid4().hex)) as producer:
            producer.init_transactions()
            producer.begin_transaction()
            for value in values:
                producer.send(topic, value, partition=partition)
            producer.flush(timeout=30)
            producer.abort_transaction()

    def read(self, topic: str) -> list[Any]:
        """Everything that `topic` holds now, as kafka-python's records, partition by partition."""
        options = {"group_id": None, "auto_offset_reset": "earliest", "enable_auto_commit": False}
        with KafkaConsumer(bootstrap_servers=self.bootstrap, isolation_level="read_committed", **options) as consumer:
            partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
            consumer.assign(partitions)
            ends = consumer.end_offsets(partitions)
            found: list[Any] = []
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                found += [record for records in consumer.poll(timeout_ms=200).values() for record in records]
        return sorted(found, key=lambda record: (record.partition, record.offset))

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Delete the records before `offset`."""
        with self.admin() as admin:
            admin.delete_records({TopicPartition(topic, partition): offset})

    def recreate(self, topic: str, *, partitions: int = 1) -> None:
        """Delete `topic` and make another one of its name."""
        with self.admin() as admin:
            admin.delete_topics([topic])
            while topic in admin.list_topics():
                time.sleep(0.05)
        self.new_topic(partitions=partitions, name=topic)

    def producer(self, **options: Any) -> KafkaProducer:
        """A producer of one's own; the caller closes it."""
        return KafkaProducer(
            bootstrap_servers=self.bootstrap, **({"acks": "all", "linger_ms": 1, "reconnect_backoff_max_ms": 500} | options)
        )

    def admin(self) -> KafkaAdminClient:
        """An admin client; a context manager."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=2)
            self._producer = None
