"""Kafka's topics: what there is, what they keep, how fast they grow; and how one is made and filled."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import kafka.errors
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.partitioner.default import murmur2

from dtrain.data.shaping import Message
from dtrain.errors import ConflictError, DtrainError, InputError
from dtrain.stream.kafka import Heard, KafkaLog

IN_FLIGHT_BYTES = 32 << 20
"""Most bytes that are sent and not acknowledged."""

_PATIENCE_S = 30.0
_CONFIGS = ("retention.ms", "retention.bytes", "cleanup.policy", "max.message.bytes", "message.timestamp.type")


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """A partition now: offsets [begin, end), not all of which need be records.

    Args:
        number: of it in its topic.
        leader: the broker that answers for it; -1 when none does now, and then nothing else is known.
        begin: its first offset.
        end: behind its last offset.
        newest_ms: the largest timestamp in it; None when it is empty, or when the broker does not tell.
    """

    number: int
    leader: int
    begin: int = 0
    end: int = 0
    newest_ms: int | None = None


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic now; of its settings those that matter to who reads it, as the broker writes them."""

    name: str
    topic_id: str
    partitions: tuple[PartitionFacts, ...]
    configs: Mapping[str, str]

    @property
    def num_offsets(self) -> int:
        """At most so many records can be read."""
        return sum(partition.end - partition.begin for partition in self.partitions)

    @property
    def retention_s(self) -> float | None:
        """How long records are kept; None for ever, or when the broker does not tell."""
        kept_ms = int(self.configs.get("retention.ms") or -1)
        return kept_ms / 1000 if kept_ms >= 0 and "delete" in self.configs.get("cleanup.policy", "delete") else None


class KafkaTopics(KafkaLog):
    """The topics of the broker that a spec names, its own topic one of them or not."""

    def names(self) -> list[str]:
        """Every topic that is not Kafka's own."""
        return sorted(name for name, found in self._retried(lambda: self._described(None)).items() if not found["is_internal"])

    def facts(self, names: Collection[str]) -> list[TopicFacts]:
        """What each of these topics is now, in this order.

        Raises:
            NotFoundError: one is not there.
        """
        return self._retried(lambda: self._facts(names)) if names else []

    def ends(self, topics: Iterable[TopicFacts]) -> dict[tuple[str, int], int]:
        """(Topic, partition) → its end now: asked twice, they tell a rate."""
        partitions = [
            TopicPartition(topic.name, each.number) for topic in topics for each in topic.partitions if each.leader >= 0
        ]
        return {
            (tp.topic, tp.partition): at.offset for tp, at in self._retried(lambda: self._asked(partitions, "LATEST")).items()
        }

    def create(self, name: str, *, num_partitions: int, configs: Mapping[str, str]) -> None:
        """A topic is there, empty, with a leader for every partition.

        Raises:
            ConflictError: there is one of this name.
            InputError: the broker does not take these settings.
        """
        wanted = {name: {"num_partitions": num_partitions, "configs": dict(configs)}}

        def create() -> None:
            try:
                self._connected_admin().create_topics(wanted, wait_for_metadata=True)
            except kafka.errors.TopicAlreadyExistsError as error:
                raise ConflictError(f"there is a topic {name!r}", fix="leave --create out, or choose another name") from error
            except (kafka.errors.InvalidPartitionsError, kafka.errors.InvalidConfigurationError) as error:
                raise InputError(f"the broker does not make {name!r}: {error}", fix="choose other settings") from error
            except kafka.errors.PolicyViolationError as error:
                raise InputError(f"the broker's policy forbids {name!r}: {error}", fix="ask who runs the broker") from error

        self._retried(create)

    def writer(self, topic: TopicFacts) -> KafkaWriter:
        """What fills `topic`; close it."""
        with self._heard.mapped():
            return KafkaWriter(self._new_producer(), topic, heard=self._heard)

    def _described(self, names: Collection[str] | None) -> dict[str, Any]:
        found = {each["name"]: each for each in self._connected_admin().describe_topics(None if names is None else list(names))}
        for name in names or ():
            if error_code := found[name]["error_code"]:
                raise kafka.errors.for_code(error_code)(name)
        return found

    def _facts(self, names: Collection[str]) -> list[TopicFacts]:
        described = self._described(names)
        partitions = [
            TopicPartition(name, each["partition_index"])
            for name in names
            for each in described[name]["partitions"]
            if each["leader_id"] >= 0
        ]
        begins, ends = self._asked(partitions, "EARLIEST"), self._asked(partitions, "LATEST")
        newest: Mapping[TopicPartition, Any] = {}
        with contextlib.suppress(kafka.errors.UnsupportedVersionError):  # before Kafka 3.0
            newest = self._asked(partitions, "MAX_TIMESTAMP")

        def partition(name: str, each: Mapping[str, Any]) -> PartitionFacts:
            tp = TopicPartition(name, each["partition_index"])
            if tp not in ends:
                return PartitionFacts(tp.partition, -1)
            newest_ms = newest[tp].timestamp if tp in newest and newest[tp].timestamp >= 0 else None
            return PartitionFacts(tp.partition, each["leader_id"], begins[tp].offset, ends[tp].offset, newest_ms)

        configs = self._configs(names)
        return [
            TopicFacts(
                name,
                str(described[name]["topic_id"]),
                tuple(
                    partition(name, each) for each in sorted(described[name]["partitions"], key=lambda p: p["partition_index"])
                ),
                configs[name],
            )
            for name in names
        ]

    def _asked(self, partitions: Iterable[TopicPartition], what: str) -> dict[TopicPartition, Any]:
        spec = dict.fromkeys(partitions, OffsetSpec[what])
        return self._connected_admin().list_partition_offsets(spec) if spec else {}

    def _configs(self, names: Collection[str]) -> dict[str, dict[str, str]]:
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, list(_CONFIGS)) for name in names]
        found = self._connected_admin().describe_configs(resources, config_filter="all").get("topic", {})
        return {name: {key: config["value"] for key, config in found.get(name, {}).items()} for name in names}


class KafkaWriter:
    """Messages on their way to a topic; every one is acknowledged by all replicas, or `close` says how many were not.

    Args:
        producer: its own.
        topic: that it fills.
        heard: for errors.
    """

    def __init__(self, producer: KafkaProducer, topic: TopicFacts, *, heard: Heard) -> None:
        self._producer = producer
        self._topic = topic
        self._heard = heard
        self._in_flight: deque[tuple[Any, Message]] = deque()
        self._bytes_in_flight = 0
        self.num_rows = self.num_messages = self.num_bytes = 0
        """Acknowledged."""

    def partition_of(self, key: bytes) -> int:
        """Where Kafka's own producers would put this key."""
        return int((murmur2(key) & 0x7FFFFFFF) % len(self._topic.partitions))

    def send(self, message: Message) -> None:
        """Send it behind those before it; waits while too much is in flight.

        Raises:
            InputError: the broker does not take such a message; this one or one before it.
            UnavailableError: no broker.
        """
        with self._mapped_errors():
            future = self._producer.send(
                self._topic.name,
                message.value,
                key=message.key,
                partition=message.partition,
                timestamp_ms=message.timestamp_ms,
            )
        self._in_flight.append((future, message))
        self._bytes_in_flight += len(message.value)
        while self._in_flight and (self._bytes_in_flight > IN_FLIGHT_BYTES or self._in_flight[0][0].is_done):
            self._settle()

    def flush(self) -> None:
        """Everything sent is acknowledged. Raises as `send` does."""
        with self._mapped_errors():
            self._producer.flush(timeout=_PATIENCE_S)
        while self._in_flight:
            self._settle()

    def close(self) -> None:
        """Send no more, and wait for nothing. May be called twice."""
        with contextlib.suppress(kafka.errors.KafkaError):
            self._producer.close(timeout=0)

    def _settle(self) -> None:
        """The oldest message in flight is acknowledged, and counted."""
        future, message = self._in_flight[0]
        with self._mapped_errors():
            future.get(timeout=_PATIENCE_S)
        self._in_flight.popleft()
        self._bytes_in_flight -= len(message.value)
        self.num_rows += message.num_rows
        self.num_messages += 1
        self.num_bytes += len(message.value)

    @contextlib.contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            with self._heard.mapped():
                yield
        except DtrainError as error:
            match error.__cause__:
                case kafka.errors.MessageSizeTooLargeError():
                    raise InputError(
                        error.reason, fix="use a smaller --rows, or raise the topic's max.message.bytes"
                    ) from error
                case kafka.errors.InvalidTimestampError():
                    reason = f"topic {self._topic.name!r} takes no such timestamps: {error.__cause__}"
                    raise InputError(reason, fix="correct that column, or raise message.timestamp.after.max.ms") from error
            raise
