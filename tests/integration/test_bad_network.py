"""Both engines, and whole jobs, over a network that is slow, cuts connections, or forgets them: they wait, and lose and double nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest

from deploy.kafka.jars import resolved
from dtrain.errors import DataLossError
from dtrain.job.status import Outcome
from dtrain.stream.kafka import KafkaSource
from tests.support.audit import audit_spec, times_trained
from tests.support.following import Following
from tests.support.kafka import REPOSITORY
from tests.support.live import LiveJob
from tests.support.messages import json_object
from tests.support.proxy import Behind, Proxy, broker_behind_a_proxy

CACHE = REPOSITORY / "build" / "kafka"
NUM_IDS = 2_000
pytestmark = [
    pytest.mark.skipif(not resolved(CACHE).is_dir(), reason="needs a broker of its own, from Kafka's jars"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with broker_behind_a_proxy(tmp_path_factory.mktemp("behind") / "broker") as behind:
        yield behind


@pytest.fixture
def proxy(behind: Behind) -> Iterator[Proxy]:
    yield behind.proxy
    behind.proxy.delay_s, behind.proxy.bytes_a_s, behind.proxy.is_black = 0.0, 0, False


class Written(Following):
    """A feed, over the bad network, of a topic that is written over the good one."""

    def __init__(self, behind: Behind, *, engine: str) -> None:
        self._kafka = behind.kafka
        self.num_written = 0
        super().__init__(behind.kafka.new_topic(), bootstrap=behind.proxy.address, engine=engine)

    def write(self, num_rows: int, *, padding: int = 0) -> None:
        rows = range(self.num_written, self.num_written + num_rows)
        self._kafka.produce(self.topic, 0, [json_object(y=y, padding="." * padding) for y in rows])
        self.num_written += num_rows

    def read_all(self, *, for_s: float) -> int:
        """Poll until all that was written is there, or for so long; how many rows came."""
        first = self.num_read
        self.read({0: self.num_written}, for_s=for_s)
        return self.num_read - first


@pytest.fixture(params=["kafka-python", "librdkafka"])
def following(request: pytest.FixtureRequest, behind: Behind, proxy: Proxy) -> Iterator[Written]:
    with closing(Written(behind, engine=request.param)) as following:
        following.write(100)
        assert following.read_all(for_s=90) == 100
        yield following


def test_slow_network_slows_and_loses_nothing(following: Written, proxy: Proxy) -> None:
    proxy.delay_s, proxy.bytes_a_s = 0.05, 100_000
    following.write(200, padding=1000)
    assert following.read_all(for_s=90) == 200
    assert following.num_feeds == 1


def test_network_too_slow_for_a_whole_fetch_in_time_gets_on(following: Written, proxy: Proxy) -> None:
    following.write(1200, padding=1000)
    proxy.bytes_a_s = 100_000
    assert following.read_all(for_s=100) == 1200
    assert following.num_feeds <= 6


def test_connections_that_are_reset_are_made_anew(following: Written, proxy: Proxy) -> None:
    accepted = proxy.num_accepted
    for _ in range(5):
        following.write(20)
        proxy.reset()
        assert following.read_all(for_s=90) == 20
    assert accepted < proxy.num_accepted < accepted + 60


def test_reset_in_the_middle_of_a_fetch_doubles_nothing(following: Written, proxy: Proxy) -> None:
    proxy.bytes_a_s = 300_000
    following.write(600, padding=1000)
    for _ in range(4):
        following.read_all(for_s=0.7)
        proxy.reset()
    proxy.bytes_a_s = 0
    following.read_all(for_s=90)
    assert following.num_read == 700


def test_half_open_connections_are_given_up_and_made_anew(following: Written, proxy: Proxy) -> None:
    proxy.half_open()
    following.write(50)
    assert following.read_all(for_s=90) == 50


def test_network_that_is_gone_for_a_while_is_waited_for(following: Written, proxy: Proxy) -> None:
    proxy.is_black = True
    following.write(50)
    accepted = proxy.num_accepted
    assert following.read_all(for_s=9) == 0
    assert proxy.num_accepted < accepted + 40
    proxy.is_black = False
    assert following.read_all(for_s=90) == 50


def test_retention_that_overtakes_behind_a_dead_network_is_a_data_loss(
    following: Written, behind: Behind, proxy: Proxy
) -> None:
    proxy.is_black = True
    following.write(50)
    proxy.reset()  # what was on its way is lost
    behind.kafka.delete_before(following.topic, 0, 130)
    proxy.is_black = False
    with pytest.raises(DataLossError, match="offset 100 to 129 were deleted"):
        following.read_all(for_s=90)


@pytest.mark.parametrize("engine", ["kafka-python", "librdkafka"])
def test_job_on_a_bad_network_trains_every_record_once(behind: Behind, proxy: Proxy, tmp_path: Path, engine: str) -> None:
    """Slow, reset in the middle of fetches, half-open, gone for so long that the job says so: one after the other."""
    kafka, topic = behind.kafka, behind.kafka.new_topic(partitions=2)
    rows = iter(range(NUM_IDS))

    def write(num_rows: int, *, padding: int = 0) -> int:
        """To both partitions; how many there are now."""
        numbers = list(islice(rows, num_rows))
        for partition in range(2):
            kafka.produce(topic, partition, [json_object(id=n, padding="." * padding) for n in numbers[partition::2]])
        return numbers[-1] + 1

    source = {"format": "json", "engine": engine}
    ends = dict.fromkeys(range(2), NUM_IDS // 2)
    folder = tmp_path / "job"
    spec = audit_spec(topic=topic, bootstrap=proxy.address, folder=folder, num_ids=NUM_IDS, ends=ends, source=source)
    job = LiveJob(spec, folder=folder, source=lambda: KafkaSource(spec.source)).start()
    job.wait_for_rows(write(200))
    proxy.delay_s, proxy.bytes_a_s = 0.05, 100_000
    job.wait_for_rows(write(200, padding=1000))
    proxy.delay_s, proxy.bytes_a_s = 0.0, 150_000
    written = write(1000, padding=1000)
    for _ in range(4):
        passed, accepted = proxy.num_bytes, proxy.num_accepted
        job.wait(lambda _, passed=passed: proxy.num_bytes > passed + 50_000)
        proxy.reset()
        job.wait(lambda _, accepted=accepted: proxy.num_accepted > accepted)
    assert job.status.rows_trained < written  # it was in the middle of them
    proxy.bytes_a_s = 0
    job.wait_for_rows(written)
    proxy.half_open()
    job.wait_for_rows(write(200))
    proxy.is_black = True
    written = write(200)
    job.wait(lambda _: bool(job.told("no Kafka answers")))
    proxy.is_black = False
    job.wait_for_rows(written)
    assert write(NUM_IDS) == NUM_IDS
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    assert times_trained(job.store) == [1] * NUM_IDS
    assert job.replay().rows == NUM_IDS
