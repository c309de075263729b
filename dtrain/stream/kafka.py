"""Kafka, by kafka-python: a log over topics; and the source over it, or over the other engine's."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import kafka.errors
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.net.compat import KafkaNetClient
from kafka.net.sasl.oauth import AbstractTokenProvider
from kafka.structs import OffsetAndMetadata

from dtrain.clock import Clock, SystemClock
from dtrain.errors import StateError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition
from dtrain.stream.broker_errors import Kind, broker_error
from dtrain.stream.credentials import Credentials, credentials_of
from dtrain.stream.kafka_receive import is_receiving, receive_in_bulk
from dtrain.stream.kafka_records import read_by_batch
from dtrain.stream.log import Bounds, Fetched, Identity, Letter, Log, OutOfRangeError
from dtrain.stream.patience import BRIEF_BYTES, COMMIT_S, CONNECT_MS, REFRESH_S, REQUEST_MS, Patience
from dtrain.stream.selection import is_chosen, topics_of
from dtrain.stream.source import Source
from dtrain.stream.tokens import Tokens

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
    "max_partition_fetch_bytes": 8 << 20,
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


class KafkaSource(Source):
    """Kafka topics as a `Source`, by the engine of the spec. Connects at first use.

    Raises:
        StateError: the engine is not installed here.
    """

    def __init__(self, spec: SourceSpec, *, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        super().__init__(spec, new_log(spec, clock=clock), clock=clock)


def new_log(spec: SourceSpec, *, clock: Clock) -> Log:
    """The log of the spec's topic, by its engine; see `KafkaSource`."""
    if spec.engine == "kafka-python":
        return KafkaLog(spec, clock=clock)
    try:
        from dtrain.stream.librdkafka import LibrdkafkaLog  # an extra, which need not be installed
    except ModuleNotFoundError as error:
        words = f"`source.engine: librdkafka` needs a package that is not installed here: {error.name}"
        fix = "run `pip install 'dtrain[librdkafka]'` wherever the job's processes run, or leave `source.engine` out"
        raise StateError(words, fix=fix) from error
    return LibrdkafkaLog(spec, clock=clock)


class KafkaLog:
    """The `Log` of Kafka topics."""

    def __init__(self, spec: SourceSpec, *, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._heard = Heard(spec.bootstrap)
        self._settings: dict[str, Any] | None = None
        self._admin: KafkaAdminClient | None = None
        self._consumer: KafkaConsumer | None = None
        self._producer: KafkaProducer | None = None

    def describe(self) -> Identity:
        """See `Log.describe`."""
        found = self._retried(self._describe)
        chosen = {
            partition: each
            for topic in found
            for each in topic["partitions"]
            if is_chosen(self._spec, partition := Partition(topic["name"], each["partition_index"]))
        }
        return Identity(
            {topic["name"]: str(topic["topic_id"]) for topic in found},
            {partition: each["leader_epoch"] for partition, each in chosen.items()},
            leaderless=frozenset(partition for partition, each in chosen.items() if each["leader_id"] < 0),
        )

    def bounds(self, partitions: Collection[Partition] | None = None) -> dict[Partition, Bounds]:
        """See `Log.bounds`."""
        there = self.describe().leader_epochs
        meant = [_to_kafka(partition) for partition in there if partitions is None or partition in partitions]
        if not meant:
            return {}

        def ask() -> dict[Partition, Bounds]:
            consumer = self._connected_consumer()
            try:
                begins = consumer.beginning_offsets(meant, timeout_ms=REQUEST_MS)
                ends = consumer.end_offsets(meant, timeout_ms=REQUEST_MS)
            except KeyError as error:  # so it says that it knows no leader yet: the partition is new
                raise kafka.errors.LeaderNotAvailableError(str(error)) from error
            return {_from_kafka(tp): Bounds(begins[tp], ends[tp]) for tp in meant}

        return self._retried(ask)

    def offsets_at(self, time_ms: int) -> dict[Partition, int | None]:
        """See `Log.offsets_at`."""
        partitions = [_to_kafka(partition) for partition in self.describe().leader_epochs]

        def ask(some: Sequence[TopicPartition]) -> dict[TopicPartition, Any]:
            found = self._connected_consumer().offsets_for_times(dict.fromkeys(some, time_ms), timeout_ms=REQUEST_MS)
            return dict(found)

        found = self._retried(lambda: ask(partitions)) if partitions else {}
        for tp in [tp for tp, at in found.items() if at is None]:
            # None may mean that no leader of it is known, and not that it has no such record; asked for alone, that is an error.
            found |= self._retried(partial(ask, [tp]))
        return {_from_kafka(tp): None if at is None else at.offset for tp, at in found.items()}

    def tail(self, offsets: Mapping[Partition, int], *, is_brief: bool = False) -> KafkaTail:
        """See `Log.tail`."""
        with self._heard.mapped():
            settings = {"max_partition_fetch_bytes": BRIEF_BYTES} if is_brief else {}
            return KafkaTail(*self._new_consumer(**settings), offsets, heard=self._heard, clock=self._clock)

    def send(self, letters: Sequence[Letter], *, to_topic: str) -> None:
        """See `Log.send`. A topic that is missing is made, with the broker's defaults."""
        self._retried(lambda: self._ensure(to_topic))
        with self._heard.mapped():
            if self._producer is None:
                self._producer = self._new_producer()
            sent = [
                self._producer.send(
                    to_topic, letter.value, key=letter.key, headers=list(letter.headers), partition=letter.partition
                )
                for letter in letters
            ]
            self._producer.flush(timeout=2 * REQUEST_MS / 1000)
            for future in sent:
                future.get(timeout=1)

    def commit(self, offsets: Mapping[Partition, int], *, group: str) -> None:
        """See `Log.commit`. A broker's first group has no coordinator for a moment; one that has none for longer is not waited for."""
        stored = {_to_kafka(partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}

        def store() -> None:
            for error in self._connected_admin().alter_group_offsets(group, stored).values():
                _raise(error, group)

        self._retried(store, for_s=COMMIT_S)

    def close(self) -> None:
        """See `Log.close`."""
        for client in (self._admin, self._consumer, self._producer):
            if client is not None:
                with contextlib.suppress(kafka.errors.KafkaError):
                    client.close()
        self._admin = self._consumer = self._producer = None

    def _describe(self) -> list[dict[str, Any]]:
        """The topics that the spec means and that are there."""
        admin = self._connected_admin()
        names = topics_of(self._spec, admin.list_topics()) if self._spec.pattern else self._spec.named_topics
        found = []
        for topic in admin.describe_topics(list(names)) if names else []:
            error = kafka.errors.for_code(topic["error_code"])
            if error is not kafka.errors.UnknownTopicOrPartitionError:
                _raise(error, topic["name"])
                found.append(topic)
        return found

    def _ensure(self, topic: str) -> None:
        """`topic` is there."""
        admin = self._connected_admin()
        (found,) = admin.describe_topics([topic])
        if found["error_code"] == kafka.errors.UnknownTopicOrPartitionError.errno:
            with contextlib.suppress(kafka.errors.TopicAlreadyExistsError):
                admin.create_topics({topic: {}}, wait_for_metadata=True)
        else:
            _raise(kafka.errors.for_code(found["error_code"]), topic)

    def _retried(self, ask: Callable[[], Answer], *, for_s: float = REQUEST_MS / 1000) -> Answer:
        """What `ask` answers; asked again, for so long, while the broker says that it is not ready yet."""
        deadline_s = self._clock.monotonic_s() + for_s
        with self._heard.mapped():
            while True:
                try:
                    answer = ask()
                    self._heard.well()
                    return answer
                except (kafka.errors.UnknownTopicOrPartitionError, kafka.errors.KafkaTimeoutError):
                    raise
                except kafka.errors.RetriableError:
                    if self._clock.monotonic_s() > deadline_s:
                        raise
                    self._clock.sleep(0.1)

    def _connection(self) -> dict[str, Any]:
        """Where the brokers are, and what they want to know."""
        if self._settings is None:
            servers = [address.strip() for address in self._spec.bootstrap.split(",")]
            security = _security(credentials_of(self._spec.security, clock=self._clock))
            self._settings = {"bootstrap_servers": servers, "kafka_client": self._connect} | security
        return self._settings

    def _connected_admin(self) -> KafkaAdminClient:
        if self._admin is None:
            self._admin = KafkaAdminClient(**self._connection(), **_CLIENT)
        return self._admin

    def _new_producer(self) -> KafkaProducer:
        return KafkaProducer(**self._connection(), **_PRODUCER)

    def _connected_consumer(self) -> KafkaConsumer:
        if self._consumer is None:
            self._consumer, _ = self._new_consumer()
        return self._consumer

    def _new_consumer(self, **settings: int) -> tuple[KafkaConsumer, KafkaNetClient]:
        consumer = self._plain_consumer(**settings)
        read_by_batch(consumer)
        return consumer, consumer._client

    def _connect(self, **options: Any) -> KafkaNetClient:
        """What is below each of the clients."""
        client = KafkaNetClient(**options)
        # The consumer's own option of this name does not reach its metadata requests, which would make a missing topic.
        client.cluster.config["allow_auto_create_topics"] = False
        receive_in_bulk(client, on_error=self._heard)
        return client

    def _plain_consumer(self, **settings: int) -> KafkaConsumer:
        """One that gives kafka-python's own records, with their headers."""
        return KafkaConsumer(**self._connection(), isolation_level=self._spec.isolation, **_CONSUMER | settings)


class KafkaTail:
    """The `Tail` of Kafka topics: one consumer, assigned by hand."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        client: KafkaNetClient,
        offsets: Mapping[Partition, int],
        *,
        heard: Heard,
        clock: Clock,
    ) -> None:
        self._consumer = consumer
        self._client = client
        self._heard = heard
        self._topics = {partition.topic for partition in offsets}
        self._next = dict(offsets)
        self._paused: set[Partition] = set()
        self._patience = Patience(offsets, bootstrap=heard.place, clock=clock)
        consumer.assign([_to_kafka(partition) for partition in offsets])
        for partition, offset in offsets.items():
            consumer.seek(_to_kafka(partition), offset)

    def poll(self, *, max_wait_s: float) -> Sequence[Fetched]:
        """See `Tail.poll`."""
        with self._heard.mapped():
            found = self._consumer.poll(timeout_ms=int(max_wait_s * 1000))
            if found:  # by itself it fetches what comes next only when it is asked for it, if it has waited for these
                self._consumer._fetcher.send_fetches()
        # `position` of the consumer would walk all partitions for each, and wait for those without a leader.
        places = self._consumer._subscription.assignment
        fetched = []
        for partition, offset in self._next.items():
            tp = _to_kafka(partition)
            if partition not in self._paused and (position := places[tp].position.offset) != offset:
                fetched.append(Fetched(partition, found.get(tp, ()), position))
        for partition, _, position in fetched:
            self._next[partition] = position
            self._patience.moved(partition, position)
        if self._patience.is_due():
            self._ask()
        return fetched

    def pause(self, partition: Partition) -> None:
        """See `Tail.pause`."""
        self._paused.add(partition)
        self._consumer.pause(_to_kafka(partition))

    def resume(self, partition: Partition) -> None:
        """See `Tail.resume`."""
        self._paused.discard(partition)
        self._patience.resumed(partition)
        self._consumer.resume(_to_kafka(partition))

    def end_offsets(self) -> Mapping[Partition, int]:
        """See `Tail.end_offsets`."""
        return dict(self._patience.ends)

    def topic_ids(self) -> Mapping[str, str]:
        """See `Tail.topic_ids`."""
        found = {topic: self._client.cluster.topic_id(topic) for topic in self._topics}
        return {topic: str(topic_id) for topic, topic_id in found.items() if topic_id is not None}

    def close(self) -> None:
        """See `Tail.close`."""
        with contextlib.suppress(kafka.errors.KafkaError):
            self._consumer.close(timeout_ms=500)

    def _ask(self) -> None:
        """Learn the ends anew; see `Patience` for what it raises."""
        try:
            try:
                ends = self._ends(without=(-1,))
            except KeyError:  # it has asked now, and knows of some that they have no leader, or nothing at all
                ends = self._ends(without=(-1, None))
        except kafka.errors.KafkaError as error:
            if not is_receiving(
                self._client, within_s=REQUEST_MS / 1000
            ):  # else the answer waits behind records, which are coming
                self._patience.unanswered(self._heard.error_of(error))
            return
        if not ends:
            self._patience.unanswered(self._heard.error_of(kafka.errors.KafkaTimeoutError("no partition has a leader")))
            return
        self._heard.well()
        wanted = {partition: offset for partition, offset in self._next.items() if partition not in self._paused}
        self._patience.answered({_from_kafka(tp): end for tp, end in ends.items()}, wanted=wanted)

    def _ends(self, *, without: Collection[int | None]) -> dict[TopicPartition, int]:
        """Of all partitions but those with such leaders: -1 for none, None for one that is not known (yet)."""
        leader = self._client.cluster.leader_for_partition
        led = [tp for tp in map(_to_kafka, self._next) if leader(tp) not in without]
        return dict(self._consumer.end_offsets(led, timeout_ms=500))


class _TokenProvider(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens as kafka-python wants them."""

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        self._tokens = tokens

    def token(self) -> str:
        return self._tokens.token().text


def _security(found: Credentials) -> dict[str, Any]:
    """Credentials as kafka-python's settings."""
    settings: dict[str, Any] = {"security_protocol": found.protocol, "ssl_context": found.tls}
    if found.username:
        settings |= {"sasl_plain_username": found.username, "sasl_plain_password": found.password}
    if found.tokens is not None:
        settings |= {"sasl_oauth_token_provider": _TokenProvider(found.tokens)}
    return settings | ({"sasl_mechanism": found.mechanism} if found.mechanism != "NONE" else {})


class Heard:
    """Why connections ended, which kafka-python itself keeps for its log; and what its errors mean.

    Threads: any; the clients call it from theirs.

    Args:
        place: the broker's address.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self._refusal: Exception | None = None

    def __call__(self, error: Exception | None) -> None:
        """A connection was not made, or has ended."""
        is_login = isinstance(error, kafka.errors.SaslAuthenticationFailedError | kafka.errors.UnsupportedSaslMechanismError)
        if is_login or "certificate" in str(error):
            self._refusal = error

    def well(self) -> None:
        """The broker has answered: whatever was wrong is over."""
        self._refusal = None

    @contextlib.contextmanager
    def mapped(self) -> Iterator[None]:
        """Every error of kafka-python leaves as one of ours, or as `OutOfRangeError`."""
        try:
            yield
        except kafka.errors.KafkaError as error:
            raise self.error_of(error) from error

    def error_of(self, error: kafka.errors.KafkaError) -> Exception:
        """`error` as one of ours, or as `OutOfRangeError`; where nobody answers, the reason that was heard."""
        kind, text = _kind(error), str(error.args[0]) if error.args else type(error).__name__
        if isinstance(error, kafka.errors.OffsetOutOfRangeError):
            return OutOfRangeError(text)
        if kind == "silent" and self._refusal is not None:
            kind, text = "login", str(self._refusal)
        return broker_error(kind, place=self.place, text=f"{type(error).__name__}: {text}" if kind == "ill" else text)


def _kind(error: kafka.errors.KafkaError) -> Kind:
    match error:
        case kafka.errors.LogTruncationError():
            return "truncated"
        case kafka.errors.SaslAuthenticationFailedError() | kafka.errors.UnsupportedSaslMechanismError():
            return "login"
        case kafka.errors.AuthorizationError():
            return "refused"
        case kafka.errors.UnsupportedCodecError():
            return "codec"
        case kafka.errors.CorruptRecordError():
            return "corrupt"
        case kafka.errors.MessageSizeTooLargeError():
            return "size"
        case kafka.errors.UnknownTopicOrPartitionError() | kafka.errors.InvalidTopicError():
            return "topic"
        case kafka.errors.KafkaTimeoutError() | kafka.errors.KafkaConnectionError() | kafka.errors.NodeNotReadyError():
            return "silent"
    return "ill"


def _raise(error: type[kafka.errors.BrokerResponseError], what: str) -> None:
    if error is not kafka.errors.NoError:
        raise error(what)


def _to_kafka(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)


def _from_kafka(partition: TopicPartition) -> Partition:
    return Partition(partition.topic, partition.partition)
