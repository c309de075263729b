"""Kafka, by kafka-python: a log over a topic, and the source over that log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import kafka.errors
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.cluster import ClusterMetadata
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata

from dtrain.clock import Clock, SystemClock
from dtrain.errors import AuthError, CorruptError, DataLossError, NotFoundError, StateError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition
from dtrain.stream.kafka_records import read_by_batch
from dtrain.stream.log import Bounds, Fetched, Letter, OutOfRangeError
from dtrain.stream.log_source import LogSource
from dtrain.stream.source import Identity

CONNECT_MS = 6_000
REQUEST_MS = 8_000
"""How long a broker may take to answer at first, and to answer one question."""

PATIENCE_S = 20.0
"""How long a tail waits for a broker that has gone, or for records that the broker has but does not send."""

REFRESH_S = 1.0
"""How often a tail asks for ends and for the topic's id."""

_CLIENT = {
    "bootstrap_timeout_ms": CONNECT_MS,
    "request_timeout_ms": REQUEST_MS,
    "reconnect_backoff_max_ms": 1_000,
    "retry_backoff_ms": 20,
    "metadata_max_age_ms": int(REFRESH_S * 1000),
}
_CONSUMER = _CLIENT | {
    "group_id": None,
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "fetch_max_wait_ms": 100,
    "max_partition_fetch_bytes": 2 << 20,
    "fetch_max_bytes": 16 << 20,
    "max_poll_records": 8192,
    "metrics_enabled": False,
}
_PRODUCER = _CLIENT | {
    "acks": "all",
    "linger_ms": 5,
    "max_block_ms": REQUEST_MS,
    "delivery_timeout_ms": 2 * REQUEST_MS,
    "max_request_size": 64 << 20,
    "allow_auto_create_topics": False,
    "metrics_enabled": False,
}

Answer = TypeVar("Answer")

# It says every lost connection as an error on standard error; what matters comes out of it as an exception.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


class KafkaSource(LogSource):
    """A Kafka topic as a `Source`. Connects at first use.

    Args:
        spec: what to read.
        clock: for waiting.
    """

    def __init__(self, spec: SourceSpec, *, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        super().__init__(spec, KafkaLog(spec, clock=clock), clock=clock)


class KafkaLog:
    """The `Log` of a Kafka topic."""

    def __init__(self, spec: SourceSpec, *, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._servers = [address.strip() for address in spec.bootstrap.split(",")]
        self._admin: KafkaAdminClient | None = None
        self._consumer: KafkaConsumer | None = None
        self._producer: KafkaProducer | None = None

    def describe(self) -> Identity:
        """See `Log.describe`."""
        found = self._retried(self._describe)
        epochs = {Partition(self._spec.topic, each["partition_index"]): each["leader_epoch"] for each in found["partitions"]}
        return Identity(str(found["topic_id"]), epochs)

    def bounds(self) -> dict[Partition, Bounds]:
        """See `Log.bounds`."""
        partitions = [_to_kafka(partition) for partition in self.describe().leader_epochs]
        with mapped_errors(self._spec.bootstrap):
            consumer = self._connected_consumer()
            begins = consumer.beginning_offsets(partitions, timeout_ms=REQUEST_MS)
            ends = consumer.end_offsets(partitions, timeout_ms=REQUEST_MS)
        return {_from_kafka(tp): Bounds(begins[tp], ends[tp]) for tp in partitions}

    def offsets_at(self, time_ms: int) -> dict[Partition, int | None]:
        """See `Log.offsets_at`."""
        partitions = [_to_kafka(partition) for partition in self.describe().leader_epochs]
        with mapped_errors(self._spec.bootstrap):
            found = self._connected_consumer().offsets_for_times(dict.fromkeys(partitions, time_ms), timeout_ms=REQUEST_MS)
        return {_from_kafka(tp): None if at is None else at.offset for tp, at in found.items()}

    def tail(self, offsets: Mapping[Partition, int]) -> KafkaTail:
        """See `Log.tail`."""
        with mapped_errors(self._spec.bootstrap):
            return KafkaTail(*self._new_consumer(), offsets, bootstrap=self._spec.bootstrap, clock=self._clock)

    def send(self, letters: Sequence[Letter], *, to_topic: str) -> None:
        """See `Log.send`. A topic that is missing is made, with the broker's defaults."""
        self._retried(lambda: self._ensure(to_topic))
        with mapped_errors(self._spec.bootstrap):
            if self._producer is None:
                self._producer = KafkaProducer(bootstrap_servers=self._servers, **_PRODUCER)
            sent = [
                self._producer.send(to_topic, letter.value, key=letter.key, headers=list(letter.headers)) for letter in letters
            ]
            self._producer.flush(timeout=2 * REQUEST_MS / 1000)
            for future in sent:
                future.get(timeout=1)

    def commit(self, offsets: Mapping[Partition, int], *, group: str) -> None:
        """See `Log.commit`."""
        stored = {_to_kafka(partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}

        def store() -> None:
            for error in self._connected_admin().alter_group_offsets(group, stored).values():
                _raise(error, group)

        self._retried(store)

    def close(self) -> None:
        """See `Log.close`."""
        for client in (self._admin, self._consumer, self._producer):
            if client is not None:
                with contextlib.suppress(kafka.errors.KafkaError):
                    client.close()
        self._admin = self._consumer = self._producer = None

    def _describe(self) -> dict[str, Any]:
        (found,) = self._connected_admin().describe_topics([self._spec.topic])
        _raise(kafka.errors.for_code(found["error_code"]), self._spec.topic)
        return dict(found)

    def _ensure(self, topic: str) -> None:
        """`topic` is there."""
        admin = self._connected_admin()
        (found,) = admin.describe_topics([topic])
        if found["error_code"] == kafka.errors.UnknownTopicOrPartitionError.errno:
            with contextlib.suppress(kafka.errors.TopicAlreadyExistsError):
                admin.create_topics({topic: {}}, wait_for_metadata=True)
        else:
            _raise(kafka.errors.for_code(found["error_code"]), topic)

    def _retried(self, ask: Callable[[], Answer]) -> Answer:
        """What `ask` answers; asked again while the broker says that it is not ready yet."""
        deadline_s = self._clock.monotonic_s() + REQUEST_MS / 1000
        with mapped_errors(self._spec.bootstrap):
            while True:
                try:
                    return ask()
                except (kafka.errors.UnknownTopicOrPartitionError, kafka.errors.KafkaTimeoutError):
                    raise
                except kafka.errors.RetriableError:
                    if self._clock.monotonic_s() > deadline_s:
                        raise
                    self._clock.sleep(0.1)

    def _connected_admin(self) -> KafkaAdminClient:
        if self._admin is None:
            self._admin = KafkaAdminClient(bootstrap_servers=self._servers, **_CLIENT)
        return self._admin

    def _connected_consumer(self) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer, _ = self._new_consumer()
        return self._consumer

    def _new_consumer(self) -> tuple[KafkaConsumer, ClusterMetadata]:
        clients = []

        def connect(**options: Any) -> KafkaNetClient:
            clients.append(KafkaNetClient(**options))
            # The consumer's own option of this name does not reach its metadata requests, which would make a missing topic.
            clients[0].cluster.config["allow_auto_create_topics"] = False
            return clients[0]

        isolation = self._spec.isolation
        consumer = KafkaConsumer(bootstrap_servers=self._servers, isolation_level=isolation, kafka_client=connect, **_CONSUMER)
        read_by_batch(consumer)
        return consumer, clients[0].cluster


class KafkaTail:
    """The `Tail` of a Kafka topic: one consumer, assigned by hand.

    Args:
        consumer: connected, and this tail's own.
        cluster: what the consumer knows of the cluster.
        offsets: where to begin in each partition of one topic.
        bootstrap: for messages.
        clock: for patience.
    """

    def __init__(
        self,
        consumer: KafkaConsumer,
        cluster: ClusterMetadata,
        offsets: Mapping[Partition, int],
        *,
        bootstrap: str,
        clock: Clock,
    ) -> None:
        self._consumer = consumer
        self._cluster = cluster
        self._bootstrap = bootstrap
        self._clock = clock
        self._topic = next(iter(offsets)).topic
        self._next = dict(offsets)
        self._paused: set[Partition] = set()
        self._ends: dict[Partition, int] = {}
        self._answered_at_s = now_s = clock.monotonic_s()
        self._asked_at_s = now_s - REFRESH_S
        self._moved_at_s = dict.fromkeys(offsets, now_s)
        consumer.assign([_to_kafka(partition) for partition in offsets])
        for partition, offset in offsets.items():
            consumer.seek(_to_kafka(partition), offset)

    def poll(self, *, max_wait_s: float) -> Sequence[Fetched]:
        """See `Tail.poll`."""
        fetched = []
        with mapped_errors(self._bootstrap):
            found = self._consumer.poll(timeout_ms=int(max_wait_s * 1000))
            for partition, offset in self._next.items():
                tp = _to_kafka(partition)
                if partition in self._paused or (position := self._consumer.position(tp, timeout_ms=REQUEST_MS)) == offset:
                    continue
                fetched.append(Fetched(partition, found.get(tp, ()), position))
        now_s = self._clock.monotonic_s()
        for partition, _, position in fetched:
            self._next[partition], self._moved_at_s[partition] = position, now_s
            self._ends[partition] = max(position, self._ends.get(partition, 0))
        if now_s - self._asked_at_s >= REFRESH_S:
            self._ask()
        return fetched

    def pause(self, partition: Partition) -> None:
        """See `Tail.pause`."""
        self._paused.add(partition)
        self._consumer.pause(_to_kafka(partition))

    def resume(self, partition: Partition) -> None:
        """See `Tail.resume`."""
        self._paused.discard(partition)
        self._moved_at_s[partition] = self._clock.monotonic_s()
        self._consumer.resume(_to_kafka(partition))

    def end_offsets(self) -> Mapping[Partition, int]:
        """See `Tail.end_offsets`."""
        return dict(self._ends)

    def topic_id(self) -> str | None:
        """See `Tail.topic_id`."""
        found = self._cluster.topic_id(self._topic)
        return None if found is None else str(found)

    def close(self) -> None:
        """See `Tail.close`."""
        with contextlib.suppress(kafka.errors.KafkaError):
            self._consumer.close(timeout_ms=500)

    def _ask(self) -> None:
        """Learn the ends anew; notice a broker that does not answer, or that has records and does not send them.

        Raises:
            UnavailableError: it has been so for `PATIENCE_S`.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._asked_at_s > 5 * REFRESH_S:  # nobody polled for so long, which is not the broker's fault
            self._answered_at_s = now_s
            self._moved_at_s = dict.fromkeys(self._next, now_s)
        self._asked_at_s = now_s
        try:
            ends = self._consumer.end_offsets([_to_kafka(partition) for partition in self._next], timeout_ms=500)
        except kafka.errors.KafkaError as error:
            if now_s - self._answered_at_s > PATIENCE_S:
                raise _mapped(error, self._bootstrap) from error
            return
        self._answered_at_s = now_s
        self._ends = {_from_kafka(tp): end for tp, end in ends.items()}
        for partition, offset in self._next.items():
            if partition in self._paused or self._ends[partition] <= offset:
                self._moved_at_s[partition] = now_s
            elif now_s - self._moved_at_s[partition] > PATIENCE_S:
                raise UnavailableError(
                    f"{partition}: Kafka at {self._bootstrap} has records from offset {offset} on, but sends none",
                    fix="see whether the broker is well",
                )


@contextlib.contextmanager
def mapped_errors(bootstrap: str) -> Iterator[None]:
    """Every error of kafka-python leaves as one of ours, or as `OutOfRangeError`."""
    try:
        yield
    except kafka.errors.KafkaError as error:
        raise _mapped(error, bootstrap) from error


def _mapped(error: kafka.errors.KafkaError, bootstrap: str) -> Exception:
    place = f"Kafka at {bootstrap}"
    text = str(error.args[0]) if error.args else type(error).__name__
    match error:
        case kafka.errors.OffsetOutOfRangeError():
            return OutOfRangeError(text)
        case kafka.errors.LogTruncationError():
            return DataLossError(f"{place} lost records that were read before: {text}", fix="start a new job on the topic")
        case kafka.errors.AuthorizationError() | kafka.errors.SaslAuthenticationFailedError():
            return AuthError(f"{place} refuses: {text}", fix="ask for the right to read the topic")
        case kafka.errors.UnsupportedCodecError():
            return StateError(f"{place} sends records that cannot be unpacked here: {text}", fix="install that codec's package")
        case kafka.errors.CorruptRecordError():
            return CorruptError(
                f"{place} sends records whose checksum does not verify: {text}", fix="look into the broker's disk"
            )
        case kafka.errors.MessageSizeTooLargeError():
            return StateError(f"{place} takes no message of this size: {text}", fix="raise the topic's max.message.bytes")
        case kafka.errors.UnknownTopicOrPartitionError() | kafka.errors.InvalidTopicError():
            return NotFoundError(f"{place} has no topic {text!r}", fix="create it, or correct its name")
        case kafka.errors.KafkaTimeoutError() | kafka.errors.KafkaConnectionError() | kafka.errors.NodeNotReadyError():
            return UnavailableError(f"no Kafka answers at {bootstrap} ({text})", fix="start it, or correct `source.bootstrap`")
    return UnavailableError(f"{place}: {type(error).__name__}: {text}", fix="see the broker's log")


def _raise(error: type[kafka.errors.BrokerResponseError], what: str) -> None:
    if error is not kafka.errors.NoError:
        raise error(what)


def _to_kafka(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)


def _from_kafka(partition: TopicPartition) -> Partition:
    return Partition(partition.topic, partition.partition)
