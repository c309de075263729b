"""Kafka, by librdkafka (confluent-kafka): a log over topics, read by threads in C."""

from __future__ import annotations

import base64
import contextlib
import uuid
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ListOffsetsResultInfo, NewTopic, OffsetSpec, TopicDescription

from dtrain.clock import Clock
from dtrain.data.block import RawRecord, new_record
from dtrain.errors import ConflictError, NotFoundError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition
from dtrain.stream.broker_errors import Kind, broker_error
from dtrain.stream.credentials import Credentials, credentials_of
from dtrain.stream.log import Bounds, Fetched, Identity, Letter, OutOfRangeError
from dtrain.stream.patience import BRIEF_BYTES, COMMIT_S, CONNECT_MS, REFRESH_S, REQUEST_MS, Patience
from dtrain.stream.selection import is_chosen, topics_of

POLL_BYTES = 8 << 20
POLL_RECORDS = 8192
"""About how much a poll gives at most."""

FIRST_RECORDS = 64
"""How many a poll gives at most while nobody knows how large they are."""

HELD_BYTES = 8 << 20
"""How much of a paused partition waits here before the client is told to stop, upon which it forgets what it has fetched."""

FETCH_BYTES, FEWEST_BYTES = 8 << 20, 64 << 10
"""How much a fetch brings at most, and how little where the network is so slow that this does not come in time."""

_REQUEST_S = REQUEST_MS / 1000

_CLIENT = {
    "socket.timeout.ms": REQUEST_MS,
    "socket.connection.setup.timeout.ms": CONNECT_MS,
    "socket.keepalive.enable": True,
    "reconnect.backoff.max.ms": 1_000,
    "topic.metadata.refresh.interval.ms": int(REFRESH_S * 1000),
    "topic.metadata.refresh.sparse": True,
    "log_level": 0,  # it says every lost connection on standard error; what matters comes as an error
}
_CONSUMER = _CLIENT | {
    "group.id": "dtrain",  # it wants one; nothing is asked of it or given to it
    "max.poll.interval.ms": 86_400_000,
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "enable.partition.eof": True,  # says where a partition ends, gaps passed over
    "check.crcs": True,
    "fetch.wait.max.ms": 100,
    "queued.max.messages.kbytes": 32 << 10,
    "fetch.queue.backoff.ms": 20,
}
_PRODUCER = _CLIENT | {
    "acks": "all",
    "linger.ms": 5,
    "message.timeout.ms": 2 * REQUEST_MS,
    "message.max.bytes": 64 << 20,
    "partitioner": "murmur2_random",  # as Kafka's own clients
}

_UNREADY = {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.NOT_CONTROLLER,
    KafkaError.REQUEST_TIMED_OUT,
}
"""What a broker answers that will answer properly soon."""

_KINDS: dict[int, Kind] = {
    KafkaError._LOG_TRUNCATION: "truncated",
    KafkaError._AUTHENTICATION: "login",
    KafkaError._SSL: "login",
    KafkaError.SASL_AUTHENTICATION_FAILED: "login",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "login",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "refused",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "refused",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "refused",
    KafkaError._BAD_COMPRESSION: "codec",
    KafkaError._NOT_IMPLEMENTED: "codec",
    KafkaError.UNSUPPORTED_COMPRESSION_TYPE: "codec",
    KafkaError._BAD_MSG: "corrupt",
    KafkaError.INVALID_MSG: "corrupt",
    KafkaError.MSG_SIZE_TOO_LARGE: "size",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "topic",
    KafkaError._UNKNOWN_TOPIC: "topic",
    KafkaError._UNKNOWN_PARTITION: "topic",
    KafkaError.TOPIC_EXCEPTION: "topic",
    KafkaError._TIMED_OUT: "silent",
    KafkaError._TRANSPORT: "silent",
    KafkaError._RESOLVE: "silent",
    KafkaError._ALL_BROKERS_DOWN: "silent",
}
_FATAL = {
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError.OFFSET_OUT_OF_RANGE,
    *(code for code, kind in _KINDS.items() if kind in ("truncated", "refused", "codec", "corrupt")),
}
"""What of a partition ends a tail at once; the rest may pass."""

Futures = Mapping[Any, Future[Any]]
Answer = TypeVar("Answer")


class LibrdkafkaLog:
    """The `Log` of Kafka topics."""

    def __init__(self, spec: SourceSpec, *, clock: Clock) -> None:
        self._spec = spec
        self._clock = clock
        self._settings: dict[str, Any] | None = None
        self._admin: AdminClient | None = None
        self._producer: Producer | None = None
        self._committer: _Committer | None = None
        self._heard = Heard(spec.bootstrap, topics=", ".join(spec.named_topics) or str(spec.pattern))
        self._fetch_bytes = FETCH_BYTES

    def describe(self) -> Identity:
        """See `Log.describe`."""
        found = self._described()
        chosen = self._chosen(found)
        leaderless = frozenset(chosen) - _led(found)
        return Identity(_ids_of(found), dict.fromkeys(chosen, -1), leaderless=leaderless)  # it does not tell leader epochs here

    def bounds(self, partitions: Collection[Partition] | None = None) -> dict[Partition, Bounds]:
        """See `Log.bounds`."""
        found = [p for p in self._chosen(self._described()) if partitions is None or p in partitions]
        begins, ends = self._offsets(found, OffsetSpec.earliest()), self._offsets(found, OffsetSpec.latest())
        return {partition: Bounds(begins[partition].offset, ends[partition].offset) for partition in begins}

    def offsets_at(self, time_ms: int) -> dict[Partition, int | None]:
        """See `Log.offsets_at`."""
        found = self._offsets(self._chosen(self._described()), OffsetSpec.for_timestamp(time_ms))
        return {partition: at.offset if at.offset >= 0 else None for partition, at in found.items()}

    def tail(self, offsets: Mapping[Partition, int], *, is_brief: bool = False) -> LibrdkafkaTail:
        """See `Log.tail`."""
        each = min(self._fetch_bytes // 4, BRIEF_BYTES if is_brief else self._fetch_bytes)
        sizes = {"fetch.max.bytes": self._fetch_bytes, "fetch.message.max.bytes": each}
        settings = _CONSUMER | sizes | self._connection() | {"isolation.level": self._spec.isolation}
        with self._heard.mapped():
            return LibrdkafkaTail(
                Consumer(settings),
                self._connected_admin(),
                offsets,
                spec=self._spec,
                heard=self._heard,
                on_stall=self._fetch_less,
                clock=self._clock,
            )

    def send(self, letters: Sequence[Letter], *, to_topic: str) -> None:
        """See `Log.send`. A topic that is missing is made, with the broker's defaults."""
        self._ensure(to_topic)
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        with self._heard.mapped():
            if self._producer is None:
                self._producer = Producer(_PRODUCER | self._connection())
            for letter in letters:
                message: dict[str, Any] = {"key": letter.key, "value": letter.value, "headers": list(letter.headers)}
                message |= {} if letter.partition is None else {"partition": letter.partition}
                while not _is_queued(self._producer, to_topic, message, delivered):
                    self._producer.poll(0.1)
            num_left = self._producer.flush(3 * _REQUEST_S)
            if failures:
                raise KafkaException(failures[0])
            if num_left:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{num_left} letters are not acknowledged"))

    def commit(self, offsets: Mapping[Partition, int], *, group: str) -> None:
        """See `Log.commit`. A broker's first group has no coordinator for a moment; one that has none for longer is not waited for."""
        with self._heard.mapped():
            if self._committer is None or self._committer.group != group:
                self._committer = _Committer(_CLIENT | self._connection(), group, clock=self._clock)
            self._committer.commit([_to_kafka(partition, offset) for partition, offset in offsets.items()])

    def close(self) -> None:
        """See `Log.close`."""
        self._admin = self._producer = self._committer = None  # they end when nobody refers to them

    def _fetch_less(self) -> None:
        """The next tail shall ask for less at a time: the client gives up a fetch that is not whole in time, also while it is coming."""
        self._fetch_bytes = max(self._fetch_bytes // 8, FEWEST_BYTES)

    def _described(self) -> list[TopicDescription]:
        """The topics that the spec means and that are there."""
        names: Sequence[str] = self._spec.named_topics
        if self._spec.pattern:
            with self._heard.mapped():
                names = topics_of(self._spec, self._connected_admin().list_topics(timeout=_REQUEST_S).topics)
        if not names:
            return []
        return self._answered(lambda admin: _descriptions(admin, names), missing={KafkaError.UNKNOWN_TOPIC_OR_PART})

    def _chosen(self, found: Iterable[TopicDescription]) -> list[Partition]:
        """The partitions of these topics that the spec means."""
        named = [Partition(topic.name, each.id) for topic in found for each in topic.partitions]
        return [partition for partition in named if is_chosen(self._spec, partition)]

    def _offsets(self, partitions: Sequence[Partition], at: OffsetSpec) -> dict[Partition, ListOffsetsResultInfo]:
        if not partitions:
            return {}
        offsets = self._answered(lambda admin: _offsets(admin, partitions, at, self._spec.isolation))
        return dict(zip(partitions, offsets, strict=True))

    def _ensure(self, topic: str) -> None:
        """`topic` is there."""
        try:
            self._answered(lambda admin: _descriptions(admin, [topic]))
        except NotFoundError:
            with contextlib.suppress(ConflictError):
                self._answered(lambda admin: admin.create_topics([NewTopic(topic)], request_timeout=_REQUEST_S))

    def _answered(
        self, ask: Callable[[AdminClient], Futures], *, missing: Container[int] = (), for_s: float = _REQUEST_S
    ) -> list[Any]:
        """What `ask` is answered, errors that say `missing` left out; asked again, for so long, while the broker says that it is not ready."""
        deadline_s = self._clock.monotonic_s() + for_s
        with self._heard.mapped():
            while True:
                try:
                    return self._heard.well(_results(self._connected_admin(), ask(self._connected_admin()), missing=missing))
                except KafkaException as error:
                    if error.args[0].code() not in _UNREADY or self._clock.monotonic_s() > deadline_s:
                        raise
                self._clock.sleep(0.1)

    def _connection(self) -> dict[str, Any]:
        """Where the brokers are, and what they want to know."""
        if self._settings is None:
            security = _security(credentials_of(self._spec.security, clock=self._clock))
            self._settings = {"bootstrap.servers": self._spec.bootstrap, "error_cb": self._heard} | security
        return self._settings

    def _connected_admin(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient(_CLIENT | self._connection())
        return self._admin


class Heard:
    """What a client says besides its answers: as a rule, why it has none.

    Threads: any; the clients call it from theirs.

    Args:
        place: the broker's address.
        topics: the log's.
    """

    def __init__(self, place: str, *, topics: str) -> None:
        self._place = place
        self._topics = topics
        self._refusal: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """A client has a trouble, which it goes on trying to overcome."""
        is_login = error.code() != KafkaError._SSL and _KINDS.get(error.code()) == "login"
        if is_login or "certificate" in error.str():  # others of TLS may be those of a broker that dies
            self._refusal = error

    def well(self, answer: Answer) -> Answer:
        """`answer`, which the broker gave: whatever was wrong is over."""
        self._refusal = None
        return answer

    def error_of(self, error: KafkaError) -> Exception:
        """`error` as one of ours, or as `OutOfRangeError`; where nobody answers, the reason that was heard."""
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            return OutOfRangeError(error.str())
        if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return ConflictError(error.str())
        kind, text = _KINDS.get(error.code(), "ill"), error.str()
        if kind == "silent" and self._refusal is not None:
            kind, text = "login", self._refusal.str()
        return broker_error(kind, place=self._place, text=self._topics if kind == "topic" else text)

    @contextlib.contextmanager
    def mapped(self) -> Iterator[None]:
        """Every error of librdkafka leaves as one of ours, or as `OutOfRangeError`."""
        try:
            yield
        except KafkaException as error:
            raise self.error_of(error.args[0]) from error


class _Committer:
    """A consumer that reads nothing, and gives positions back to its group.

    Why: the admin client's way (`alter_consumer_group_offsets`) ends this process, where the group's coordinator dies meanwhile, by a failed
    assertion in librdkafka 2.16 (`rd_kafka_enq_once_del_source_return`).
    """

    def __init__(self, settings: Mapping[str, Any], group: str, *, clock: Clock) -> None:
        self.group = group
        self._clock = clock
        self._answers: list[tuple[KafkaError | None, Sequence[TopicPartition]]] = []
        own = {"group.id": group, "enable.auto.commit": False, "on_commit": lambda *answer: self._answers.append(answer)}
        self._consumer = Consumer({**settings, **own})

    def commit(self, offsets: Sequence[TopicPartition]) -> None:
        """The group has them; raises `KafkaException` otherwise."""
        self._answers.clear()
        self._consumer.commit(offsets=list(offsets), asynchronous=True)
        deadline_s = self._clock.monotonic_s() + COMMIT_S
        while not self._answers:
            if self._clock.monotonic_s() > deadline_s:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"the group {self.group} has not answered"))
            self._consumer.poll(0.05)
        error, stored = self._answers[-1]
        for failed in filter(None, (error, *(each.error for each in stored))):
            raise KafkaException(failed)


@dataclass(slots=True)
class _Place:
    """Where a tail stands in a partition.

    Args:
        partition: which.
        given_to: where what was given out ends.
        read_to: where `records`, which have come and were not given out, end.
        is_paused: whether nothing is wanted of it.
        is_stopped: whether the client was told so.
        num_bytes: of what waits here.
    """

    partition: Partition
    given_to: int
    read_to: int
    records: list[RawRecord] = field(default_factory=list)
    is_paused: bool = False
    is_stopped: bool = False
    num_bytes: int = 0

    @property
    def has_news(self) -> bool:
        """Whether something can be given out."""
        return self.read_to > self.given_to and not self.is_paused

    def give(self) -> Fetched:
        """All that waited here."""
        fetched = Fetched(self.partition, self.records, self.read_to)
        self.records, self.given_to, self.num_bytes = [], self.read_to, 0
        return fetched


class LibrdkafkaTail:
    """The `Tail` of Kafka topics: one consumer, assigned by hand.

    Args:
        consumer: owned from now on.
        admin: answers questions behind the tail's back.
        offsets: where to begin.
        spec: of the source.
        heard: what both clients say.
        on_stall: told when nothing comes of what is there.
        clock: the log's.
    """

    def __init__(
        self,
        consumer: Consumer,
        admin: AdminClient,
        offsets: Mapping[Partition, int],
        *,
        spec: SourceSpec,
        heard: Heard,
        on_stall: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._on_stall = on_stall
        self._consumer = consumer
        self._admin = admin
        self._spec = spec
        self._heard = heard
        self._places: dict[tuple[str, int], _Place] = {p: _Place(p, offset, offset) for p, offset in offsets.items()}
        self._patience = Patience(offsets, bootstrap=spec.bootstrap, clock=clock)
        self._topics = sorted({partition.topic for partition in offsets})
        self._topic_ids: dict[str, str] = {}
        self._described: list[Future[TopicDescription]] = []
        self._asked: dict[Partition, Future[ListOffsetsResultInfo]] = {}
        self._num_records = FIRST_RECORDS
        self._is_open = True
        consumer.assign([_to_kafka(partition, offset) for partition, offset in offsets.items()])

    def poll(self, *, max_wait_s: float) -> Sequence[Fetched]:
        """See `Tail.poll`."""
        with self._heard.mapped():
            messages = self._consume(max_wait_s)
        self._take(messages)
        for place in self._places.values():
            if place.is_paused and not place.is_stopped and place.num_bytes > HELD_BYTES:
                self._consumer.pause([_to_kafka(place.partition)])
                place.is_stopped = True
        fetched = [place.give() for place in self._places.values() if place.has_news]
        for partition, _, next_offset in fetched:
            self._patience.moved(partition, next_offset)
        self._ask()
        return fetched

    def pause(self, partition: Partition) -> None:
        """See `Tail.pause`. The client goes on for a while: to stop it would make it forget what it has fetched."""
        self._places[partition].is_paused = True

    def resume(self, partition: Partition) -> None:
        """See `Tail.resume`."""
        place = self._places[partition]
        place.is_paused = False
        self._patience.resumed(partition)
        if place.is_stopped:
            place.is_stopped = False
            with self._heard.mapped():
                self._consumer.resume([_to_kafka(partition)])
                self._consumer.seek(_to_kafka(partition, place.read_to))

    def end_offsets(self) -> Mapping[Partition, int]:
        """See `Tail.end_offsets`."""
        return dict(self._patience.ends)

    def topic_ids(self) -> Mapping[str, str]:
        """See `Tail.topic_ids`."""
        return dict(self._topic_ids)

    def close(self) -> None:
        """See `Tail.close`."""
        if self._is_open:
            self._is_open = False
            with contextlib.suppress(KafkaException):
                self._consumer.close()

    def _consume(self, max_wait_s: float) -> list[Message]:
        """What is there; else the first that comes, with what came with it. (Asked for many, the client waits for as many.)"""
        messages: list[Message] = self._consumer.consume(self._num_records, 0)
        if not messages and not any(place.has_news for place in self._places.values()):
            messages = self._consumer.consume(1, max_wait_s)
            if messages:
                messages += self._consumer.consume(self._num_records, 0)
        if num_bytes := sum(map(len, messages)):
            self._num_records = min(max(POLL_BYTES * len(messages) // num_bytes, 1), POLL_RECORDS)
        return messages

    def _take(self, messages: Sequence[Message]) -> None:
        """Each waits at its place. Written out, and not as a call for each: it is what a message of one row takes most of its time for."""
        partition, topic, place = -1, None, None
        for message in messages:
            if message.partition() != partition or message.topic() != topic:
                topic, partition = message.topic(), message.partition()
                place = self._places.get((topic, partition))
            if place is None:  # a trouble of no partition, as with the group, of which nothing is asked
                continue
            offset = message.offset()
            if (error := message.error()) is None:
                if offset >= place.read_to:
                    value = message.value()
                    place.records.append(new_record((offset, message.key(), value, message.timestamp()[1], None)))
                    place.num_bytes += 0 if value is None else len(value)
                    place.read_to = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # its offset is the end, behind gaps
                place.read_to = max(place.read_to, offset)
            elif error.code() in _FATAL:
                raise self._heard.error_of(error)

    def _ask(self) -> None:
        """Learn topics and ends anew, without waiting for the answers, save for the first; see `Patience` for what it raises.

        Nothing is asked of partitions without a leader: the client would wait for one, and say nothing of the others meanwhile.
        """
        is_due = self._patience.is_due()  # asked while an answer is awaited too: it takes silence for its own if nobody asks it
        if is_due and not (self._described or self._asked):
            self._described = list(_descriptions(self._admin, self._topics).values())
            self._wait_at_first(self._described)
        self._admin.poll(0)  # it says here why no answer comes
        if self._described and all(future.done() for future in self._described):
            described, self._described = self._described, []
            self._hear_topics(described)
        if self._asked and all(future.done() for future in self._asked.values()):
            asked, self._asked = self._asked, {}
            self._hear_ends(asked)

    def _wait_at_first(self, futures: Collection[Future[Any]]) -> None:
        if not self._patience.ends:
            wait(futures, timeout=0.5)

    def _hear_topics(self, answers: Sequence[Future[TopicDescription]]) -> None:
        """Topics are what they are said to be; of their partitions that have a leader the ends are asked."""
        found: list[TopicDescription] = []
        errors = [KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "no partition has a leader")]
        for topic, answer in zip(self._topics, answers, strict=True):
            try:
                found.append(answer.result())
            except KafkaException as error:
                errors.append(error.args[0])
                if errors[-1].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    self._topic_ids.pop(topic, None)
        self._topic_ids |= _ids_of(found)
        led = _led(found)
        partitions = [place.partition for place in self._places.values() if place.partition in led]
        if not partitions:
            self._patience.unanswered(self._heard.error_of(errors[-1]))
            return
        ends = _offsets(self._admin, partitions, OffsetSpec.latest(), self._spec.isolation)
        self._asked = dict(zip(partitions, ends.values(), strict=True))
        self._wait_at_first(self._asked.values())

    def _hear_ends(self, answers: Mapping[Partition, Future[ListOffsetsResultInfo]]) -> None:
        known: dict[Partition, int] = {}
        errors: list[KafkaError] = []
        for partition, answer in answers.items():
            try:
                known[partition] = max(self._heard.well(answer.result()).offset, self._places[partition].given_to)
            except KafkaException as error:
                errors.append(error.args[0])
        if not known:
            self._patience.unanswered(self._heard.error_of(errors[0]))
            return
        wanted = {place.partition: place.given_to for place in self._places.values() if not place.is_paused}
        try:
            self._patience.answered(known, wanted=wanted)
        except UnavailableError:
            self._on_stall()
            raise


def _security(found: Credentials) -> dict[str, Any]:
    """Credentials as librdkafka's settings."""
    settings: dict[str, Any] = {
        "security.protocol": found.protocol,
        "ssl.ca.location": found.ca,
        "ssl.certificate.location": found.cert,
        "ssl.key.location": found.key,
        "sasl.mechanisms": found.mechanism if found.mechanism != "NONE" else "",
        "sasl.username": found.username,
        "sasl.password": found.password,
    }
    if (tokens := found.tokens) is not None:
        settings["oauth_cb"] = lambda _: tuple(tokens.token())
    return {name: value for name, value in settings.items() if value}


def _results(admin: AdminClient, asked: Futures, *, missing: Container[int]) -> list[Any]:
    """The answers, errors that say `missing` left out; meanwhile the client is let say why none comes."""
    while wait(asked.values(), timeout=0.05).not_done:
        admin.poll(0)
    admin.poll(0)
    errors = {future: future.exception() for future in asked.values()}
    known = [f for f, e in errors.items() if not isinstance(e, KafkaException) or e.args[0].code() not in missing]
    return [future.result() for future in known]


def _descriptions(admin: AdminClient, topics: Sequence[str]) -> Futures:
    """What each of `topics` is, in their order."""
    found: Futures = admin.describe_topics(TopicCollection(list(topics)), request_timeout=_REQUEST_S)
    return found


def _led(found: Iterable[TopicDescription]) -> set[Partition]:
    """The partitions of these topics that have a leader."""
    return {
        Partition(topic.name, each.id)
        for topic in found
        for each in topic.partitions
        if each.leader is not None and each.leader.id >= 0
    }


def _offsets(admin: AdminClient, partitions: Iterable[Partition], at: OffsetSpec, isolation: str) -> Futures:
    """The offsets `at` of `partitions`, in their order."""
    wanted = {_to_kafka(partition): at for partition in partitions}
    level = IsolationLevel[isolation.upper()]
    found: Futures = admin.list_offsets(wanted, isolation_level=level, request_timeout=_REQUEST_S)
    return found


def _is_queued(producer: Producer, topic: str, message: Mapping[str, Any], on_delivery: Callable[..., None]) -> bool:
    """Whether the producer has room for `message`, and took it."""
    try:
        producer.produce(topic, on_delivery=on_delivery, **message)
    except BufferError:
        return False
    return True


def _ids_of(found: Iterable[TopicDescription]) -> dict[str, str]:
    """Topic → its id as Kafka's other clients write it."""
    return {topic.name: str(uuid.UUID(bytes=base64.urlsafe_b64decode(f"{topic.topic_id}=="))) for topic in found}


def _to_kafka(partition: Partition, offset: int = OFFSET_INVALID) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number, offset)
