"""Leaders that die and return, in a real cluster of two brokers: every record comes once and in order, by both engines; in a whole job too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy.kafka.jars import resolved
from dtrain.stream.kafka import KafkaSource
from tests.support.audit import audit_spec, times_trained
from tests.support.following import Following, Writing
from tests.support.kafka import REPOSITORY
from tests.support.live import LiveJob
from tests.support.messages import json_object
from tests.support.pair import Pair, two_brokers

NUM_IDS = 100_000
"""More than are written in the time that the test may take."""

pytestmark = [
    pytest.mark.skipif(
        not resolved(REPOSITORY / "build" / "kafka").is_dir(), reason="needs brokers of its own, from Kafka's jars"
    ),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with two_brokers(tmp_path_factory.mktemp("brokers")) as pair:
        yield pair


@pytest.fixture
def pair(brokers: Pair) -> Iterator[Pair]:
    yield brokers
    if brokers.second.pid is None:
        brokers.second.restart()


@pytest.mark.parametrize("engine", ["kafka-python", "librdkafka"])
def test_records_come_once_and_in_order_while_their_leader_dies_and_leads_again(pair: Pair, engine: str) -> None:
    topic = pair.new_topic(nodes=[[2, 1]])
    pair.lead_back(topic)
    with Writing(pair, topic) as writing, closing(Following(topic, bootstrap=pair.bootstrap, engine=engine)) as following:
        assert following.read({0: 300}, for_s=90)
        pair.second.kill()
        pair.wait_for_leader(topic, 1)
        assert following.read({0: writing.num_written + 300}, for_s=90)
        pair.second.restart()
        pair.lead_back(topic)
        assert following.read({0: writing.num_written + 300}, for_s=90)
        assert following.read({0: writing.stop()}, for_s=90)
        assert following.num_read == writing.num_written
        assert following.num_feeds <= 3  # it waits, and does not begin again and again


@pytest.mark.parametrize("engine", ["kafka-python", "librdkafka"])
def test_job_trains_every_record_once_while_the_leader_dies_and_leads_again(pair: Pair, tmp_path: Path, engine: str) -> None:
    topic = pair.new_topic(nodes=[[2, 1]])
    pair.lead_back(topic)
    job = new_job(pair, topic, folder=tmp_path / "job", engine=engine).start()
    with Writing(pair, topic, message=lambda number: json_object(id=number)) as writing:
        job.wait_for_rows(300)
        pair.second.kill()
        pair.wait_for_leader(topic, 1)
        job.wait_for_rows(writing.num_written + 300)
        pair.second.restart()
        pair.lead_back(topic)
        job.wait_for_rows(writing.num_written + 300)
        num_written = writing.stop()
    job.wait_for_rows(num_written)
    job.stop()
    assert times_trained(job.store) == [1] * num_written + [0] * (NUM_IDS - num_written)
    assert job.replay().rows == num_written


@pytest.mark.parametrize("engine", ["kafka-python", "librdkafka"])
def test_partition_without_a_leader_keeps_a_new_feed_from_no_other(pair: Pair, engine: str) -> None:
    topic = pair.new_topic(nodes=[[1], [2]])
    write(pair, topic, 0, range(50))
    write(pair, topic, 1, range(50))
    with closing(Following(topic, bootstrap=pair.bootstrap, engine=engine)) as following:
        assert following.read({0: 50, 1: 30}, for_s=90)
        pair.second.kill()
        pair.wait_for_leader(topic, -1, partition=1)
        following.follow_anew()
        write(pair, topic, 0, range(50, 100))
        assert following.read({0: 100}, for_s=90)
        assert following.feed.news() == [f"no leader for {topic}:1: read as soon as there is one"]
        pair.second.restart()
        pair.wait_for_leader(topic, 2, partition=1)
        write(pair, topic, 1, range(50, 100))
        assert following.read({0: 100, 1: 100}, for_s=90)
        assert following.feed.news() == [f"{topic}:1 has a leader again"]
        assert following.num_feeds == 2


def test_job_that_begins_again_without_a_leader_trains_the_rest_and_then_all(pair: Pair, tmp_path: Path) -> None:
    topic = pair.new_topic(nodes=[[1], [2]])
    job = new_job(pair, topic, folder=tmp_path / "job", engine="kafka-python").start()
    write(pair, topic, 0, range(50), column="id")
    write(pair, topic, 1, range(50, 100), column="id")
    job.wait_for_rows(100)
    job.stop()
    write(pair, topic, 1, range(100, 150), column="id")
    pair.second.kill()
    pair.wait_for_leader(topic, -1, partition=1)
    write(pair, topic, 0, range(150, 200), column="id")
    job.start().wait_for_rows(150)
    assert job.told(f"no leader for {topic}:1: read as soon as there is one")
    pair.second.restart()
    job.wait_for_rows(200)
    assert job.told(f"{topic}:1 has a leader again")
    job.stop()
    assert times_trained(job.store)[:201] == [1] * 200 + [0]
    assert job.replay().rows == 200


def write(pair: Pair, topic: str, partition: int, numbers: range, *, column: str = "y") -> None:
    pair.produce(topic, partition, [json_object(**{column: number}) for number in numbers])


def new_job(pair: Pair, topic: str, *, folder: Path, engine: str) -> LiveJob:
    """It reads for ever."""
    source = {"format": "json", "engine": engine, "end": "never"}
    spec = audit_spec(topic=topic, bootstrap=pair.bootstrap, folder=folder, num_ids=NUM_IDS, ends={}, source=source)
    return LiveJob(spec, folder=folder, source=lambda: KafkaSource(spec.source))
