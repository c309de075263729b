"""A real broker for tests: topics of one's own, records at known places."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewPartitions, NewTopic

from deploy.kafka.broker import Broker, find_broker

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
        self._aborting: KafkaProducer | None = None

    @property
    def bootstrap(self) -> str:
        return self.broker.bootstrap

    def new_topic(
        self,
        *,
        partitions: int = 1,
        name: str | None = None,
        configs: Mapping[str, str] | None = None,
        nodes: Sequence[Sequence[int]] = (),
    ) -> str:
        """A fresh topic that can be written and read; `nodes`, where they matter, are those of each partition, its leader first."""
        name = name or f"t-{uuid.uuid4().hex[:12]}"
        sizes = {} if nodes else {"num_partitions": partitions, "replication_factor": 1}
        topic = NewTopic(name, **sizes, replica_assignments=dict(enumerate(nodes)), topic_configs=dict(configs or {}))
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
        self._producer.flush(timeout=90)
        return [future.get(timeout=90).offset for future in sent]

    def produce_part(self, topic: str, held: Mapping[int, Sequence[bytes]], part: int, *, of: int = 4) -> None:
        """Write the `part`-th of `of` equal parts of what is held for each partition: a job that ends behind all does not end before."""
        for partition, values in held.items():
            self.produce(topic, partition, values[len(values) * part // of : len(values) * (part + 1) // of])

    def produce_aborted(self, topic: str, partition: int, values: Iterable[bytes]) -> None:
        """Write `values` in a transaction that is then aborted: offsets that nobody reads."""
        if self._aborting is None:
            self._aborting = self.producer(transactional_id=uuid.uuid4().hex)
            self._aborting.init_transactions()
        self._aborting.begin_transaction()
        for value in values:
            self._aborting.send(topic, value, partition=partition)
        self._aborting.flush(timeout=90)
        self._aborting.abort_transaction()

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

    def committed(self, group: str) -> dict[str, int]:
        """What a consumer group has given back: `topic:partition` → offset."""
        with self.admin() as admin:
            found = admin.list_group_offsets(group)[group]
        return {f"{tp.topic}:{tp.partition}": at.offset for tp, at in found.items()}

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Delete the records before `offset`."""
        with self.admin() as admin:
            admin.delete_records({TopicPartition(topic, partition): offset})

    def delete(self, topic: str) -> None:
        """Delete `topic`."""
        with self.admin() as admin:
            admin.delete_topics([topic])
            while topic in admin.list_topics():
                time.sleep(0.05)
        self.close()  # the producer would learn late of another one of its name

    def recreate(self, topic: str, *, partitions: int = 1) -> None:
        """Delete `topic` and make another one of its name."""
        self.delete(topic)
        self.new_topic(partitions=partitions, name=topic)

    def add_partitions(self, topic: str, number: int) -> None:
        """Make so many more partitions of `topic`, and wait until they can be written."""
        with self.admin() as admin:
            total = len(admin.describe_topics([topic])[0]["partitions"]) + number
            admin.create_partitions({topic: NewPartitions(total)})
            while len(admin.describe_topics([topic])[0]["partitions"]) < total:
                time.sleep(0.05)
        self.close()  # the producer would learn of them late

    def producer(self, **options: Any) -> KafkaProducer:
        """A producer of one's own; the caller closes it."""
        return KafkaProducer(
            bootstrap_servers=self.bootstrap, **({"acks": "all", "linger_ms": 1, "reconnect_backoff_max_ms": 500} | options)
        )

    def admin(self) -> KafkaAdminClient:
        """An admin client; a context manager."""
        return KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def close(self) -> None:
        for producer in (self._producer, self._aborting):
            if producer is not None:
                producer.close(timeout=2)
        self._producer = self._aborting = None
