"""What the two engines make of a broker that is not well, over the clients' own classes; no broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import kafka.errors
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.consumer.subscription_state import SubscriptionState
from kafka.structs import OffsetAndTimestamp

from dtrain.clock import SystemClock
from dtrain.data.block import RawRecord
from dtrain.errors import UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition
from dtrain.stream import librdkafka
from dtrain.stream.broker_errors import broker_error
from dtrain.stream.kafka import Heard, KafkaLog, KafkaTail
from dtrain.stream.kafka_letters import KafkaLetters
from dtrain.stream.librdkafka import LibrdkafkaLog, LibrdkafkaTail
from dtrain.stream.log import Fetched, Identity, Letter
from dtrain.stream.patience import COMMIT_S
from tests.support.job_world import HandClock

LED, LEADERLESS = Partition("t", 0), Partition("t", 1)
SPEC = SourceSpec.model_validate({"topic": "t", "bootstrap": "127.0.0.1:1"})


class Cluster:
    """One partition has a leader, the other has none, or none that is known."""

    need_update = False
    no_leader: int | None = -1

    def leader_for_partition(self, partition: TopicPartition) -> int | None:
        return self.no_leader if partition.partition == LEADERLESS.number else 0

    def add_topic(self, topic: str) -> None: ...

    def request_update(self) -> Any:
        return asyncio.ensure_future(asyncio.sleep(0.01))


class Net:
    """Runs what kafka-python would run in its own thread."""

    def run(self, function: Any, *args: Any) -> Any:
        return asyncio.run(function(*args))

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)


class Manager:
    cluster = Cluster()
    _net = Net()

    def call_soon(self, function: Any, *args: Any) -> Any:
        return asyncio.ensure_future(function(*args))

    async def wait_for(self, future: Any, timeout_ms: float) -> Any:
        return await future


class FirstAlone:
    """A consumer whose fetcher is kafka-python's; a broker that has an offset for whatever it is asked."""

    def __init__(self) -> None:
        self._subscription = SubscriptionState(offset_reset_strategy="none")
        self._fetcher = Fetcher(SimpleNamespace(_manager=Manager()), self._subscription)

        async def send(node: int, timestamps: Mapping[TopicPartition, int]) -> Any:
            return {tp: OffsetAndTimestamp(7, 0, 0) for tp in timestamps}, set()

        self._fetcher._send_list_offsets_request = send
        self.num_sent = 0

        def send_fetches() -> None:
            self.num_sent += 1

        self._fetcher.send_fetches = send_fetches

    def offsets_for_times(self, timestamps: Mapping[TopicPartition, int], *, timeout_ms: int) -> Any:
        return self._fetcher.offsets_by_times(timestamps, timeout_ms)

    def end_offsets(self, partitions: list[TopicPartition], *, timeout_ms: int) -> Any:
        return self._fetcher.end_offsets(partitions, timeout_ms)

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._subscription.assign_from_user(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._subscription.seek(partition, offset)

    def poll(self, *, timeout_ms: int) -> Any:
        self.seek(TopicPartition(*LED), self._subscription.assignment[TopicPartition(*LED)].position.offset + 1)
        return {TopicPartition(*LED): [RawRecord(0, None, b"", 0)]}

    def position(self, partition: TopicPartition, *, timeout_ms: int) -> int:
        raise AssertionError("it waits for a partition without a leader")


def test_offset_by_time_of_a_partition_without_a_leader_is_not_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.stream.kafka.REQUEST_MS", 100)
    log = KafkaLog(SPEC, clock=SystemClock())
    monkeypatch.setattr(log, "_connected_consumer", FirstAlone)
    monkeypatch.setattr(log, "describe", lambda: Identity({"t": "id"}, {LED: 0}))
    assert log.offsets_at(1) == {LED: 7}
    monkeypatch.setattr(log, "describe", lambda: Identity({"t": "id"}, {LED: 0, LEADERLESS: 0}))
    with pytest.raises(UnavailableError):
        log.offsets_at(1)


@pytest.mark.parametrize("no_leader", [-1, None])
def test_partition_without_a_leader_keeps_kafka_pythons_tail_from_nothing(
    monkeypatch: pytest.MonkeyPatch, no_leader: int | None
) -> None:
    monkeypatch.setattr(Cluster, "no_leader", no_leader)
    clock = HandClock()
    client = SimpleNamespace(cluster=Manager.cluster)
    consumer = FirstAlone()
    tail = KafkaTail(consumer, client, {LED: 0, LEADERLESS: 5}, heard=Heard("h:1"), clock=clock)  # type: ignore[arg-type]
    for offset in range(1, 60):
        assert tail.poll(max_wait_s=0) == [Fetched(LED, [RawRecord(0, None, b"", 0)], offset)]
        clock.now_s += 1
    assert tail.end_offsets() == {LED: 7}
    assert consumer.num_sent == 59  # what comes next is asked for before what came is worked on


@pytest.fixture
def rd_tail() -> Iterator[LibrdkafkaTail]:
    settings = {"bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    tail = LibrdkafkaTail(
        Consumer(settings | {"group.id": "g"}),
        AdminClient(settings),
        {LED: 0, LEADERLESS: 5},
        spec=SPEC,
        heard=librdkafka.Heard("h:1", topics="t"),
        on_stall=lambda: None,
        clock=HandClock(),
    )
    yield tail
    tail.close()


def answer(offset: int | None) -> Future[Any]:
    future: Future[Any] = Future()
    if offset is None:
        future.set_exception(KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "no leader")))
    else:
        future.set_result(SimpleNamespace(offset=offset))
    return future


def hear_for_a_minute(tail: LibrdkafkaTail, *ends: int | None) -> None:
    clock = tail._patience._clock
    assert isinstance(clock, HandClock)
    for _ in range(60):
        tail._patience.is_due()
        tail._hear_ends({partition: answer(end) for partition, end in zip((LED, LEADERLESS), ends, strict=True)})
        clock.now_s += 1


def test_partition_without_a_leader_keeps_librdkafkas_tail_from_nothing(rd_tail: LibrdkafkaTail) -> None:
    hear_for_a_minute(rd_tail, 0, None)
    assert rd_tail.end_offsets() == {LED: 0}
    with pytest.raises(UnavailableError, match="no leader"):
        hear_for_a_minute(rd_tail, None, None)


def test_broker_that_lets_every_question_wait_is_given_up_by_librdkafkas_tail(rd_tail: LibrdkafkaTail) -> None:
    def ask_in_vain(clock: HandClock) -> None:
        question: Future[Any] = Future()
        rd_tail._ask()
        rd_tail._described = [question]  # in place of the one that it asked, which takes eight seconds
        for _ in range(8):
            rd_tail._ask()
            clock.now_s += 1
        question.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer")))
        rd_tail._ask()

    clock = rd_tail._patience._clock
    assert isinstance(clock, HandClock)
    for _ in range(2):
        ask_in_vain(clock)
    with pytest.raises(UnavailableError, match="no Kafka answers"):
        ask_in_vain(clock)


class Come(SimpleNamespace):
    """A message of a partition, as confluent-kafka has them."""

    def __init__(self, offset: int, value: bytes | None, partition: int = LED.number) -> None:
        given = {
            "topic": LED.topic,
            "partition": partition,
            "offset": offset,
            "key": None,
            "value": value,
            "timestamp": (1, 0),
            "error": None,
        }
        super().__init__(**{name: lambda found=found: found for name, found in given.items()})


def test_bytes_that_wait_in_a_partition_are_counted_as_they_come_and_go(rd_tail: LibrdkafkaTail) -> None:
    stranger = Come(9, b"x", partition=77)
    rd_tail._take(
        [Come(0, b"abc"), stranger, Come(1, None), Come(7, b"12", LEADERLESS.number), Come(2, b"de"), Come(1, b"again")]
    )  # type: ignore[list-item]
    place, other = rd_tail._places[LED], rd_tail._places[LEADERLESS]
    assert (place.num_bytes, place.read_to, other.num_bytes, other.read_to) == (5, 3, 2, 8)
    given = place.give()
    assert (given.next_offset, [record.value for record in given.records]) == (3, [b"abc", None, b"de"])
    assert (place.num_bytes, place.given_to, place.records) == (0, 3, [])


class Deaf:
    """A producer of which nobody hears whether what it took has come."""

    def produce(self, topic: str, **_: Any) -> None: ...

    def flush(self, timeout_s: float) -> int:
        return 1


def test_letters_that_librdkafka_cannot_vouch_for_are_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    log = LibrdkafkaLog(SPEC, clock=SystemClock())
    monkeypatch.setattr(log, "_ensure", lambda topic: None)
    monkeypatch.setattr(log, "_producer", Deaf())
    with pytest.raises(UnavailableError, match="1 letters are not acknowledged"):
        log.send([Letter(b"k", b"v", ())], to_topic="bad")


class Unready:
    """An admin client whose groups' coordinator is loading."""

    def __init__(self) -> None:
        self.num_asked = 0

    def alter_group_offsets(self, group: str, offsets: Mapping[Any, Any]) -> dict[Any, Any]:
        self.num_asked += 1
        return dict.fromkeys(offsets, kafka.errors.CoordinatorLoadInProgressError)


class Mute:
    """A consumer that never hears whether what it has committed has come."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.group = settings["group.id"]

    def commit(self, *, offsets: list[Any], asynchronous: bool) -> None: ...

    def poll(self, timeout_s: float) -> None:
        CLOCK.sleep(timeout_s)


CLOCK = HandClock()


@pytest.mark.parametrize("engine", [KafkaLog, LibrdkafkaLog])
def test_advisory_commit_waits_a_little_for_the_groups_coordinator(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    log, admin, began_s = engine(SPEC, clock=CLOCK), Unready(), CLOCK.now_s
    monkeypatch.setattr(log, "_connected_admin", lambda: admin)
    monkeypatch.setattr(librdkafka, "Consumer", Mute)
    with pytest.raises(UnavailableError):
        log.commit({LED: 1}, group="g")
    assert COMMIT_S < CLOCK.now_s - began_s < COMMIT_S + 0.5
    assert engine is LibrdkafkaLog or 1 < admin.num_asked < 100  # librdkafka asks again by itself


@pytest.mark.parametrize("told", [(None, [SimpleNamespace(error=None)]), (KafkaError(KafkaError._NO_OFFSET, ""), [])])
def test_commit_by_librdkafka_is_what_its_group_says(monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    class Answering(Mute):
        def __init__(self, settings: Mapping[str, Any]) -> None:
            super().__init__(settings)
            self.on_commit = settings["on_commit"]

        def poll(self, timeout_s: float) -> None:
            self.on_commit(*told)

    monkeypatch.setattr(librdkafka, "Consumer", Answering)
    with pytest.raises(UnavailableError) if told[0] is not None else nullcontext():
        LibrdkafkaLog(SPEC, clock=CLOCK).commit({LED: 1}, group="g")


class Overtaken(FirstAlone):
    """Retention takes the letters between the question where they begin and the first fetch."""

    _client: Any = None

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0}

    def beginning_offsets(self, partitions: list[TopicPartition], *, timeout_ms: int) -> Any:
        return dict.fromkeys(partitions, 0)

    def position(self, partition: TopicPartition, *, timeout_ms: int = 0) -> int:
        return 0

    def poll(self, *, timeout_ms: int) -> Any:
        raise kafka.errors.OffsetOutOfRangeError({})

    def close(self) -> None: ...


def test_letters_that_retention_takes_while_they_are_read_are_said_to_be_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    box = KafkaLetters(SPEC, clock=SystemClock())
    monkeypatch.setattr(box, "_plain_consumer", Overtaken)
    with pytest.raises(UnavailableError, match="bad: letters were deleted while they were read"):
        list(box.letters("bad"))


def test_records_that_a_broker_lost_may_be_passed_over() -> None:
    assert "--allow-gap" in str(broker_error("truncated", place="h:1", text="x"))
    assert "topic or group" in str(broker_error("refused", place="h:1", text="x"))
