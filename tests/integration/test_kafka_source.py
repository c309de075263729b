"""What only a real Kafka does: transactions, restarts, brokers that are not there, topics that vanish."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from deploy.kafka.broker import Broker
from deploy.kafka.jars import resolve_jars, resolved
from dtrain.data.schema import Schema
from dtrain.errors import DataLossError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import Reject, RowRange
from dtrain.stream.feed import Feed
from dtrain.stream.kafka import KafkaSource
from tests.support.kafka import REPOSITORY, Kafka
from tests.support.messages import json_object

SCHEMA = Schema({"y": "int64"})
CACHE = REPOSITORY / "build" / "kafka"


ENGINES = ("kafka-python", "librdkafka")


@pytest.fixture
def by_engine() -> Iterator[Any]:
    """Makes sources, by the engine that is named, and closes them."""
    sources: list[KafkaSource] = []

    def make(topic: str, *, bootstrap: str, engine: str, **fields: Any) -> KafkaSource:
        values = {"topic": topic, "bootstrap": bootstrap, "engine": engine, "format": "json"}
        sources.append(KafkaSource(SourceSpec.model_validate(values | {"start": "earliest", "end": "latest"} | fields)))
        return sources[-1]

    yield make
    for source in sources:
        source.close()


@pytest.fixture(params=ENGINES)
def own(request: pytest.FixtureRequest, by_engine: Any) -> Any:
    """Makes sources, by each engine."""
    return partial(by_engine, engine=request.param)


@contextmanager
def followed(topic: str, by_engine: Any, *, bootstrap: str) -> Iterator[dict[str, Feed]]:
    """A feed by each engine, so that one broker's death is enough for both."""
    with ExitStack() as stack:
        sources = {engine: by_engine(topic, bootstrap=bootstrap, engine=engine) for engine in ENGINES}
        feeds = {name: source.follow(source.resolve_start(), schema=SCHEMA, ends=None) for name, source in sources.items()}
        for feed in feeds.values():
            stack.enter_context(closing(feed))
        yield feeds


def read(feed: Feed, *, until: int, timeout_s: float = 60) -> list[int]:
    """The rows of one partition that come until there are `until`."""
    rows: list[int] = []
    deadline = time.monotonic() + timeout_s
    while len(rows) < until and time.monotonic() < deadline:
        rows += [y for block in feed.poll(max_wait_s=0.2) for y in block.batch["y"].to_pylist()]
    return rows


def numbers(first: int, last: int) -> list[bytes]:
    return [json_object(y=y) for y in range(first, last)]


def test_open_transaction_holds_back_the_end_and_its_rows(kafka: Kafka, own: Any) -> None:
    topic = kafka.new_topic()
    kafka.produce(topic, 0, numbers(0, 2))
    committed = own(topic, bootstrap=kafka.bootstrap)
    uncommitted = own(topic, bootstrap=kafka.bootstrap, isolation="read_uncommitted")
    partition = Partition(topic, 0)
    with closing(kafka.producer(transactional_id=uuid.uuid4().hex)) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, json_object(y=2), partition=0)
        producer.flush()
        kafka.produce(topic, 0, numbers(3, 4))
        assert committed.resolve_end() == {partition: Position(2)}
        assert uncommitted.resolve_end() == {partition: Position(4)}
        with closing(committed.follow(committed.resolve_start(), schema=SCHEMA, ends=None)) as feed:
            assert read(feed, until=2) == [0, 1]
            assert read(feed, until=1, timeout_s=1) == []
            assert feed.end_offsets() == {partition: 2}
            producer.commit_transaction()
            assert read(feed, until=2) == [2, 3]


def test_aborted_rows_come_only_uncommitted(kafka: Kafka, own: Any) -> None:
    topic = kafka.new_topic()
    kafka.produce(topic, 0, numbers(0, 1))
    kafka.produce_aborted(topic, 0, numbers(1, 2))
    kafka.produce(topic, 0, numbers(2, 3))
    for isolation, expected in (("read_committed", [0, 2]), ("read_uncommitted", [0, 1, 2])):
        source = own(topic, bootstrap=kafka.bootstrap, isolation=isolation)
        with closing(source.follow(source.resolve_start(), schema=SCHEMA, ends=source.resolve_end())) as feed:
            assert read(feed, until=len(expected)) == expected


@pytest.mark.parametrize("compression", ["gzip", "lz4", "zstd"])
def test_compressed_batches_are_read_from_their_middle(kafka: Kafka, own: Any, compression: str) -> None:
    topic = kafka.new_topic()
    with closing(kafka.producer(compression_type=compression, linger_ms=50)) as producer:
        for value in numbers(0, 100):
            producer.send(topic, value, partition=0)
        producer.flush()
    source = own(topic, bootstrap=kafka.bootstrap)
    with closing(source.follow({Partition(topic, 0): Position(37)}, schema=SCHEMA, ends=source.resolve_end())) as feed:
        assert read(feed, until=63) == list(range(37, 100))


def test_deleted_topic_stops_its_feed_and_is_not_made_anew(kafka: Kafka, own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.stream.feed.GONE_S", 1.0)
    topic = kafka.new_topic()
    source = own(topic, bootstrap=kafka.bootstrap)
    with closing(source.follow(source.resolve_start(), schema=SCHEMA, ends=None)) as feed, kafka.admin() as admin:
        admin.delete_topics([topic])
        with pytest.raises(DataLossError, match=f"{topic}:0: the topic was deleted"):
            read(feed, until=1, timeout_s=60)
        assert topic not in admin.list_topics()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:9092"])
def test_unreachable_broker_is_named_soon(own: Any, address: str) -> None:
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=f"no Kafka answers at {address}.*source.bootstrap"):
        own("t", bootstrap=address).identify()
    assert time.monotonic() - began < 20


def test_server_that_is_no_kafka_is_named_soon(own: Any) -> None:
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=f"no Kafka answers at 127.0.0.1:{server.server_port}"):
        own("t", bootstrap=f"127.0.0.1:{server.server_port}").resolve_start()
    assert time.monotonic() - began < 20
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that makes no topics by itself."""
    if not resolved(CACHE).is_dir():
        pytest.skip("needs a broker of its own, from Kafka's jars")
    settings = {"auto.create.topics.enable": "false"}
    with Broker.start(tmp_path_factory.mktemp("own") / "broker", libs=resolve_jars(CACHE), settings=settings) as broker:
        yield broker


@pytest.fixture
def mortal(own_broker: Broker) -> Iterator[Kafka]:
    """A broker that a test may end."""
    if own_broker.pid is None:
        own_broker.restart()
    with closing(Kafka(own_broker)) as kafka:
        yield kafka


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "stop"])
def test_restart_of_the_broker_loses_and_doubles_nothing(
    mortal: Kafka, by_engine: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtrain.stream.patience.PATIENCE_S", 120.0)  # a broker may take long to start
    topic = mortal.new_topic()
    mortal.produce(topic, 0, numbers(0, 100))
    with followed(topic, by_engine, bootstrap=mortal.bootstrap) as feeds:
        rows = {engine: read(feed, until=100) for engine, feed in feeds.items()}
        getattr(mortal.broker, how)()
        assert [read(feed, until=1, timeout_s=1.5) for feed in feeds.values()] == [[], []]
        mortal.broker.restart()
        mortal.produce(topic, 0, numbers(100, 200))
        for engine, feed in feeds.items():
            rows[engine] += read(feed, until=100, timeout_s=120)
    assert rows == {engine: list(range(200)) for engine in ENGINES}


@pytest.mark.slow
def test_broker_that_stays_away_is_said_by_the_feed(mortal: Kafka, by_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.stream.patience.PATIENCE_S", 2.0)
    with followed(mortal.new_topic(), by_engine, bootstrap=mortal.bootstrap) as feeds:
        for feed in feeds.values():
            read(feed, until=1, timeout_s=0.5)
        mortal.close()
        mortal.broker.kill()
        for feed in feeds.values():
            with pytest.raises(UnavailableError, match=mortal.bootstrap):
                read(feed, until=1, timeout_s=60)


@pytest.mark.slow
def test_dead_letters_to_a_broker_that_makes_no_topics_make_theirs(mortal: Kafka, own: Any) -> None:
    topic, letters = mortal.new_topic(), f"letters-{uuid.uuid4().hex[:8]}"
    mortal.produce(topic, 0, [b"bad"])
    source = own(topic, bootstrap=mortal.bootstrap)
    reject = RowRange(Partition(topic, 0), Position(0), Position(1), 0, rejects=(Reject(0, 0, "bad"),))
    for _ in range(2):
        assert source.send_rejects([reject], to_topic=letters, job_id="j") == 1
    assert [record.value for record in mortal.read(letters)] == [b"bad", b"bad"]
