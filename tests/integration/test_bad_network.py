"""Both engines over a network that is slow, cuts connections, or forgets them: they wait, and lose and double nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from deploy.kafka.broker import resolved
from dtrain.data.block import Block
from dtrain.data.schema import Schema
from dtrain.errors import DataLossError, UnavailableError
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition
from dtrain.stream.feed import Feed
from dtrain.stream.kafka import KafkaSource
from tests.support.kafka import REPOSITORY
from tests.support.messages import json_object
from tests.support.proxy import Behind, Proxy, broker_behind_a_proxy

CACHE = REPOSITORY / "build" / "kafka"
SCHEMA = Schema({"y": "int64"})
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


class Following:
    """A feed of a topic that is being written, checked row by row."""

    def __init__(self, behind: Behind, *, engine: str) -> None:
        self._kafka = behind.kafka
        self._num_written = self.num_read = self.num_feeds = 0
        self.topic = behind.kafka.new_topic()
        fields = {"topic": self.topic, "bootstrap": behind.proxy.address, "format": "json", "start": "earliest"}
        self._source = KafkaSource(SourceSpec.model_validate(fields | {"engine": engine}))
        (self._position,) = self._source.resolve_start().values()
        self._feed = self._follow()

    def write(self, num_rows: int, *, padding: int = 0) -> None:
        rows = range(self._num_written, self._num_written + num_rows)
        self._kafka.produce(self.topic, 0, [json_object(y=y, padding="." * padding) for y in rows])
        self._num_written += num_rows

    def read(self, *, for_s: float) -> int:
        """Poll until all that was written is there, or for so long; how many rows came. They are the next ones, each once."""
        first, deadline = self.num_read, time.monotonic() + for_s
        while self.num_read < self._num_written and time.monotonic() < deadline:
            try:
                self._take(self._feed.poll(max_wait_s=0.2))
            except UnavailableError:  # what the coordinator does then
                self._feed.close()
                self._feed = self._follow()
        return self.num_read - first

    def _follow(self) -> Feed:
        self.num_feeds += 1
        return self._source.follow({Partition(self.topic, 0): self._position}, schema=SCHEMA, ends=None)

    def _take(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            found = block.batch["y"].to_pylist()
            assert found == list(range(self.num_read, self.num_read + len(found)))
            self.num_read += len(found)
            self._position = block.meta.end

    def close(self) -> None:
        self._feed.close()
        self._source.close()


@pytest.fixture(params=["kafka-python", "librdkafka"])
def following(request: pytest.FixtureRequest, behind: Behind, proxy: Proxy) -> Iterator[Following]:
    with closing(Following(behind, engine=request.param)) as following:
        following.write(100)
        assert following.read(for_s=90) == 100
        yield following


def test_slow_network_slows_and_loses_nothing(following: Following, proxy: Proxy) -> None:
    proxy.delay_s, proxy.bytes_a_s = 0.05, 100_000
    following.write(200, padding=1000)
    assert following.read(for_s=90) == 200
    assert following.num_feeds == 1


def test_network_too_slow_for_a_whole_fetch_in_time_gets_on(following: Following, proxy: Proxy) -> None:
    following.write(1200, padding=1000)
    proxy.bytes_a_s = 100_000
    assert following.read(for_s=100) == 1200
    assert following.num_feeds <= 6


def test_connections_that_are_reset_are_made_anew(following: Following, proxy: Proxy) -> None:
    accepted = proxy.num_accepted
    for _ in range(5):
        following.write(20)
        proxy.reset()
        assert following.read(for_s=90) == 20
    assert accepted < proxy.num_accepted < accepted + 60


def test_reset_in_the_middle_of_a_fetch_doubles_nothing(following: Following, proxy: Proxy) -> None:
    proxy.bytes_a_s = 300_000
    following.write(600, padding=1000)
    for _ in range(4):
        following.read(for_s=0.7)
        proxy.reset()
    proxy.bytes_a_s = 0
    following.read(for_s=90)
    assert following.num_read == 700


def test_half_open_connections_are_given_up_and_made_anew(following: Following, proxy: Proxy) -> None:
    proxy.half_open()
    following.write(50)
    assert following.read(for_s=90) == 50


def test_network_that_is_gone_for_a_while_is_waited_for(following: Following, proxy: Proxy) -> None:
    proxy.is_black = True
    following.write(50)
    accepted = proxy.num_accepted
    assert following.read(for_s=9) == 0
    assert proxy.num_accepted < accepted + 40
    proxy.is_black = False
    assert following.read(for_s=90) == 50


def test_retention_that_overtakes_behind_a_dead_network_is_a_data_loss(
    following: Following, behind: Behind, proxy: Proxy
) -> None:
    proxy.is_black = True
    following.write(50)
    proxy.reset()  # what was on its way is lost
    behind.kafka.delete_before(following.topic, 0, 130)
    proxy.is_black = False
    with pytest.raises(DataLossError, match="offset 100 to 129 were deleted"):
        following.read(for_s=90)
