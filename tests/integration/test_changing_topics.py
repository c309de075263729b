"""Topics that change under a job (faults.md, rows 7, 8 and 11), on a real broker and in memory; each ends in both oracles."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deploy.kafka.broker import Broker
from deploy.kafka.jars import resolve_jars, resolved
from dtrain.clock import SystemClock
from dtrain.job.status import Outcome
from dtrain.spec.job import JobSpec
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.files import FileLog
from dtrain.stream.files_places import open_place
from dtrain.stream.files_source import FileSource
from dtrain.stream.memory import MemorySource, MemoryTopic
from dtrain.stream.source import Source
from dtrain.stream.sources import open_source
from tests.support.audit import audit_spec, times_trained
from tests.support.kafka import REPOSITORY, Kafka
from tests.support.live import LiveJob
from tests.support.messages import json_object

NUM_IDS = 400
CACHE = REPOSITORY / "build" / "kafka"


class Place:
    """A broker, and the jobs that read from it."""

    bootstrap = "memory:1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: list[LiveJob] = []
        self.topics: dict[str, MemoryTopic] = {}

    def new_topic(self, name: str = "", *, partitions: int = 1) -> str:
        name = name or f"t-{len(self.topics)}"
        self.topics[name] = MemoryTopic(name, partitions=partitions)
        return name

    def write(self, topic: str, ids: range, *, partition: int = 0, times_ms: Callable[[int], int] = lambda _: 0) -> None:
        for number in ids:
            self.topics[topic].append(json_object(id=number), partition=partition, timestamp_ms=times_ms(number))

    def add_partitions(self, topic: str, number: int) -> None:
        self.topics[topic].add_partitions(number)

    def delete_before(self, topic: str, offset: int) -> None:
        self.topics[topic].delete_before(offset)

    def delete(self, topic: str) -> None:
        del self.topics[topic]

    def recreate(self, topic: str, *, partitions: int = 1) -> None:
        self.topics[topic] = MemoryTopic(topic, partitions=partitions)

    def source(self, job: JobSpec) -> Source:
        live, history, clock = MemorySource(job.source, self.topics), job.source.backfill, SystemClock()
        if history is None:
            return live
        files = FileLog(history, open_place(history.files), letters=None, clock=clock)
        return FileSource(job.source, history, files, live=live, clock=clock)

    def job(self, topic: str, **changes: Any) -> LiveJob:
        """It reads JSON rows, from the first on, for ever."""
        folder = self._folder / f"job-{len(self._jobs)}"
        given = {"format": "json", "end": "never", **changes.pop("source", {})}
        spec = audit_spec(
            topic=topic, bootstrap=self.bootstrap, folder=folder, num_ids=NUM_IDS, ends={}, source=given, **changes
        )
        self._jobs.append(LiveJob(spec, folder=folder, source=lambda: self.source(spec)))
        return self._jobs[-1]

    def close(self) -> None:
        for job in self._jobs:
            job._stop.set()


class KafkaPlace(Place):
    def __init__(self, folder: Path, kafka: Kafka) -> None:
        super().__init__(folder)
        self.kafka, self.bootstrap = kafka, kafka.bootstrap

    def new_topic(self, name: str = "", *, partitions: int = 1) -> str:
        return self.kafka.new_topic(partitions=partitions, name=name or None)

    def write(self, topic: str, ids: range, *, partition: int = 0, times_ms: Callable[[int], int] = lambda _: 0) -> None:
        now_ms = int(time.time() * 1000)
        times = [times_ms(number) or now_ms for number in ids]
        self.kafka.produce(topic, partition, [json_object(id=number) for number in ids], timestamps_ms=times)

    def add_partitions(self, topic: str, number: int) -> None:
        self.kafka.add_partitions(topic, number)

    def delete_before(self, topic: str, offset: int) -> None:
        self.kafka.delete_before(topic, 0, offset)

    def delete(self, topic: str) -> None:
        self.kafka.delete(topic)

    def recreate(self, topic: str, *, partitions: int = 1) -> None:
        self.kafka.recreate(topic, partitions=partitions)

    def source(self, job: JobSpec) -> Source:
        return open_source(job)


@pytest.fixture(params=["memory", "kafka"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr("dtrain.stream.losses.GRACE_S", 0.1 if request.param == "memory" else 1.0)  # no broker returns here
    made = Place(tmp_path) if request.param == "memory" else KafkaPlace(tmp_path, request.getfixturevalue("kafka"))
    yield made
    made.close()


def trained(job: LiveJob) -> list[int]:
    """The ids that were trained once; none was trained more often."""
    times = times_trained(job.store)
    assert set(times) <= {0, 1}
    return [number for number, count in enumerate(times) if count]


@pytest.mark.parametrize(("order", "slack"), [("arrival", 0), ("strict", 20)])
def test_partitions_that_are_added_are_read_from_their_first_record_on(place: Place, order: str, slack: int) -> None:
    """In strict order the last rows wait for others of their step."""
    topic = place.new_topic()
    place.write(topic, range(100))
    job = place.job(topic, batch={"order": order, "rows": 10}).start()
    job.wait_for_rows(100)
    place.add_partitions(topic, 2)
    job.wait(lambda _: len(job.told("is read from offset 0 on")) == 2)
    for partition in range(3):
        first = 100 + 50 * partition
        place.write(topic, range(first, first + 50), partition=partition)
    job.wait_for_rows(250 - slack)
    job.stop()
    place.add_partitions(topic, 1)  # while nobody looks
    job.start().wait(lambda _: len(job.told("is read from offset 0 on")) == 3)
    for partition in range(4):
        first = 250 + 25 * partition
        place.write(topic, range(first, first + 25), partition=partition)
    job.wait_for_rows(350 - slack)
    job.stop()
    assert set(trained(job)) <= set(range(350))
    assert len(trained(job)) >= 350 - slack
    added = [move for entry in job.moves() for move in entry.moves]
    assert sorted((move.partition.number, move.start, move.end, move.reason) for move in added) == [
        (number, None, Position(0), "added") for number in (1, 2, 3)
    ]
    assert job.replay().rows == len(trained(job))


@pytest.mark.parametrize("order", ["arrival", "strict"])
def test_partitions_that_are_added_behind_files_are_read_from_their_first_record_on(
    place: Place, tmp_path: Path, order: str
) -> None:
    """While the job runs, and while nobody looks. In strict order a step takes ten rows of every partition."""
    for number in range(2):
        lines = (json_object(id=i) + b"\n" for i in range(60 * number, 60 * number + 60))
        (tmp_path / f"{number}.jsonl").write_bytes(b"".join(lines))
    topic = place.new_topic()
    history = {"files": f"{tmp_path}/*.jsonl"}
    job = place.job(topic, source={"history": history}, batch={"order": order, "rows": 60}).start()
    place.write(topic, range(120, 180))
    job.wait_for_rows(180)
    place.add_partitions(topic, 1)
    job.wait(lambda _: len(job.told("is read from offset 0 on")) == 1)
    for partition in range(2):
        place.write(topic, range(180 + 30 * partition, 210 + 30 * partition), partition=partition)
    job.wait_for_rows(240)
    job.stop()
    place.add_partitions(topic, 1)
    job.start().wait(lambda _: len(job.told("is read from offset 0 on")) == 2)
    for partition in range(3):
        place.write(topic, range(240 + 20 * partition, 260 + 20 * partition), partition=partition)
    job.wait_for_rows(300)
    job.stop()
    assert trained(job) == list(range(300))
    added = [move for entry in job.moves() for move in entry.moves]
    assert [(move.partition.number, move.start, move.end, move.reason) for move in added] == [
        (number, None, Position(0), "added") for number in (1, 2)
    ]
    assert job.replay().rows == 300


def test_partition_that_is_added_to_a_bounded_job_is_not_read(place: Place) -> None:
    topic = place.new_topic(partitions=2)
    place.write(topic, range(10))
    job = place.job(topic, source={"end": {0: 20, 1: 0}}).start()
    job.wait_for_rows(10)
    place.add_partitions(topic, 1)
    place.write(topic, range(100, 110), partition=2)
    time.sleep(2.5)
    place.write(topic, range(10, 20))
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    assert trained(job) == list(range(20))


def test_retention_that_overtakes_a_stopped_job_blocks_it_until_the_gap_is_allowed(place: Place) -> None:
    topic = place.new_topic()
    place.write(topic, range(100))
    job = place.job(topic).start()
    job.wait_for_rows(100)
    job.stop()
    place.write(topic, range(100, 200))
    place.delete_before(topic, 130)
    ended = job.start().wait_for_end()
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DATA_LOSS")
    assert f"{topic}:0: records from offset 100 to 129 were deleted before they were trained" in ended.message
    assert "--allow-gap" in ended.message
    assert "new job" in ended.message
    job.start(allow_gap=True).wait_for_rows(170)
    job.stop()
    assert trained(job) == [*range(100), *range(130, 200)]
    assert job.status.offsets_skipped == 30
    (entry,) = job.moves()
    assert [(move.start, move.end, move.reason) for move in entry.moves] == [(Position(100), Position(130), "deleted")]
    assert job.told(f"{topic}:0 goes from offset 100 to offset 130 (deleted)")
    after = next(ref for ref in job.store.history() if ref.plan_number >= entry.number)
    assert job.replay(start=after.name).rows == 170 - job.store.read_manifest(after).progress.rows_trained


def test_retention_that_overtakes_a_running_job_blocks_it_behind_a_checkpoint_of_all_that_it_trained(place: Place) -> None:
    topic = place.new_topic(partitions=2)
    place.write(topic, range(50))
    job = place.job(topic, batch={"order": "strict", "rows": 10}, checkpoint={"every": "1h"}).start()
    job.wait(lambda status: status.waits_for == (f"{topic}:1",))  # so the other partition is held back
    time.sleep(1.0)  # the broker answers what was asked of it before within 100 ms; it must not answer with what is written now
    place.write(topic, range(50, 300))
    place.delete_before(topic, 200)
    place.write(topic, range(300, 345), partition=1)
    ended = job.wait_for_end()
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DATA_LOSS")
    assert f"{topic}:0: records from offset 50 to 199 were deleted" in ended.message
    before = trained(job)
    assert before == [*range(len(before) // 2), *range(300, 300 + len(before) // 2)]
    assert len(before) >= 60
    job.start(allow_gap=True)
    place.write(topic, range(345, 400), partition=1)
    job.wait_for_rows(190)
    job.stop()
    assert [i for i in trained(job) if i < 300] == [*range(len(before) // 2), *range(200, 300)][: len(trained(job)) // 2]


def test_topic_that_is_made_anew_blocks_its_job_until_the_gap_is_allowed(place: Place) -> None:
    topic = place.new_topic(partitions=2)
    place.write(topic, range(50))
    place.write(topic, range(50, 100), partition=1)
    job = place.job(topic).start()
    job.wait_for_rows(100)
    job.stop()
    place.recreate(topic, partitions=3)
    for partition in range(3):
        first = 100 + 70 * partition
        place.write(topic, range(first, first + 70), partition=partition)
    ended = job.start().wait_for_end()
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DATA_LOSS")
    assert f"{topic}:1: the topic is not the one that the job read up to offset 50: it was made anew" in ended.message
    job.start(allow_gap=True).wait_for_rows(310)
    job.stop()
    assert trained(job) == list(range(310))
    moves = [(move.partition.number, move.start, move.end, move.reason) for e in job.moves() for move in e.moves]
    zero = Position(0)
    assert moves == [(0, Position(50), zero, "recreated"), (1, Position(50), zero, "recreated"), (2, None, zero, "added")]
    job.start()  # it knows the topic now, without permission
    place.write(topic, range(310, 320))
    job.wait_for_rows(320)
    job.stop()
    assert trained(job) == list(range(320))


def test_deleted_topic_leaves_a_job_nothing_to_go_on_with(place: Place) -> None:
    topic = place.new_topic()
    place.write(topic, range(10))
    job = place.job(topic).start()
    job.wait_for_rows(10)
    job.stop()
    place.delete(topic)
    for allow_gap in (False, True):
        ended = job.start(allow_gap=allow_gap).wait_for_end()
        assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DATA_LOSS")
        assert f"{topic}:0: the topic was deleted; the job was at offset 10" in ended.message


def test_one_deleted_topic_of_two_is_left_behind_when_that_is_allowed(place: Place) -> None:
    kept, lost = place.new_topic(), place.new_topic()
    place.write(kept, range(10))
    place.write(lost, range(10, 20))
    job = place.job("", source={"topics": [kept, lost]}).start()
    job.wait_for_rows(20)
    job.stop()
    place.delete(lost)
    place.write(kept, range(20, 30))
    assert job.start().wait_for_end().reason == "DATA_LOSS"
    job.start(allow_gap=True).wait_for_rows(30)
    job.stop()
    assert trained(job) == list(range(30))
    assert set(job.store.find(None).progress.positions) == {Partition(kept, 0)}


def test_topics_that_match_a_pattern_are_read_and_so_are_those_that_come_later(place: Place) -> None:
    stem = uuid.uuid4().hex[:8]
    names = [place.new_topic(f"{stem}.{name}") for name in ("a", "b")]
    place.new_topic(f"{stem}-other")
    place.write(names[0], range(100))
    place.write(names[1], range(100, 200))
    place.write(f"{stem}-other", range(390, 400))
    job = place.job("", source={"pattern": rf"{stem}\..*"}).start()
    job.wait_for_rows(200)
    names.append(place.new_topic(f"{stem}.c", partitions=2))
    place.write(names[2], range(200, 250))
    place.write(names[2], range(250, 300), partition=1)
    job.wait_for_rows(300)
    job.stop()
    for number, name in enumerate(names):
        place.write(name, range(300 + 10 * number, 310 + 10 * number))
    job.start().wait_for_rows(330)
    job.stop()
    assert trained(job) == list(range(330))
    assert set(job.store.find(None).progress.topics) == {names[2]}
    assert job.replay().rows == 330


def test_chosen_partitions_alone_are_read(place: Place) -> None:
    topic = place.new_topic(partitions=4)
    for partition in range(4):
        place.write(topic, range(100 * partition, 100 * partition + 50), partition=partition)
    job = place.job(topic, source={"partitions": [0, 3], "start": {0: 10, 3: 20}}).start()
    job.wait_for_rows(70)
    place.add_partitions(topic, 1)
    place.write(topic, range(200, 210), partition=4)
    time.sleep(2.5)
    job.stop()
    assert trained(job) == [*range(10, 50), *range(320, 350)]
    assert job.replay().rows == 70


def test_lag_is_shed_where_the_job_wants_that_and_only_there(place: Place) -> None:
    now_ms = int(time.time() * 1000)
    topic = place.new_topic(partitions=2)
    old = {"times_ms": lambda _: now_ms - 3_600_000}
    place.write(topic, range(200), **old)
    place.write(topic, range(200, 300), partition=1, times_ms=lambda _: now_ms)
    on_lag = {"over": "10m", "do": "skip_to_latest"}
    job = place.job(topic, source={"on_lag": on_lag}).start()
    job.wait(lambda status: status.rows_trained == 100 and status.offsets_skipped == 200)
    place.write(topic, range(300, 350), times_ms=lambda _: now_ms)
    job.wait_for_rows(150)
    job.stop()
    (move,) = [move for entry in job.moves() for move in entry.moves]
    assert (move.partition.number, move.start, move.end, move.reason) == (0, Position(0), Position(200), "lag")
    assert trained(job) == list(range(200, 350))
    assert job.replay().audit.offsets_skipped == 200


def test_aligned_partitions_are_trained_in_step_with_each_other(place: Place) -> None:
    """Two partitions over the same ten hours; the second is written later and could be read later."""
    t0_ms = int(time.time() * 1000) - 36_000_000
    topic = place.new_topic(partitions=2)
    for partition in range(2):
        first = 200 * partition
        place.write(topic, range(first, first + 200), partition=partition, times_ms=lambda i: t0_ms + (i % 200) * 180_000)
    job = place.job(topic, source={"align": "30m", "end": "latest"}, batch={"rows": 20, "max_wait": "5ms"}).start()
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    assert trained(job) == list(range(400))
    entries = list(job.store.entries(job.store.find(None).progress))
    at = {0: 0, 1: 0}
    for entry in entries:
        at |= {item.partition.number: item.end.offset for item in entry.ranges}
        if max(at.values()) < 200 and min(at.values()) > 0:
            assert abs(at[0] - at[1]) * 3 <= 30 + 3 * 20  # minutes; and what one step holds
    assert job.replay().rows == 400


def cut_log(folder: Path, topic: str, *, records: int) -> None:
    """The broker that keeps its data in `folder` has lost all but the first `records` records, each of which is a batch."""
    log = folder / "data" / f"{topic}-0" / "00000000000000000000.log"
    content, at = log.read_bytes(), 0
    for _ in range(records):
        at += 12 + int.from_bytes(content[at + 8 : at + 12], "big")
    assert at < len(content)
    log.write_bytes(content[:at])


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Path]]:
    """A broker that tests may end, and that compacts at once; its folder."""
    if not resolved(CACHE).is_dir():
        pytest.skip("needs a broker of its own, from Kafka's jars")
    folder = tmp_path_factory.mktemp("own") / "broker"
    with Broker.start(folder, libs=resolve_jars(CACHE), settings={"log.cleaner.backoff.ms": "100"}) as broker:
        yield broker, folder


@pytest.fixture
def own_place(own_broker: tuple[Broker, Path], tmp_path: Path) -> Iterator[KafkaPlace]:
    with closing(Kafka(own_broker[0])) as kafka, closing(KafkaPlace(tmp_path, kafka)) as place:
        yield place


@pytest.mark.parametrize("num_written", [0, 60])
def test_broker_that_has_lost_its_newest_records_blocks_a_job_that_trained_them(
    own_place: KafkaPlace, own_broker: tuple[Broker, Path], num_written: int
) -> None:
    """Other records may stand in their places by the time that the job comes back."""
    (broker, folder), place = own_broker, own_place
    topic = place.new_topic()
    for number in range(100):
        place.write(topic, range(number, number + 1))
    job = place.job(topic).start()
    job.wait_for_rows(100)
    job.stop()
    place.kafka.close()
    broker.kill()
    cut_log(folder, topic, records=60)
    broker.restart()
    place.write(topic, range(200, 200 + num_written))
    ended = job.start().wait_for_end()
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DATA_LOSS")
    words = "the record at offset 99 is another one" if num_written else "the topic ends at 60: it was cut short"
    assert words in ended.message
    job.start(allow_gap=True)
    job.wait(lambda _: bool(job.told("goes from offset 100")))
    place.write(topic, range(300, 320))
    job.wait_for_rows(140 if num_written else 120)
    job.stop()
    left = range(240, 260) if num_written else range(0)
    assert trained(job) == [*range(100), *left, *range(300, 320)]
    (move,) = [move for entry in job.moves() for move in entry.moves]
    expected = ("changed", Position(100)) if num_written else ("truncated", Position(60))
    assert (move.reason, move.end) == expected


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
def test_transactions_that_abort_are_trained_only_uncommitted_and_open_ones_wait(
    kafka: Kafka, tmp_path: Path, isolation: str
) -> None:
    place = KafkaPlace(tmp_path, kafka)
    topic = place.new_topic()
    place.write(topic, range(10))
    job = place.job(topic, source={"isolation": isolation}).start()
    job.wait_for_rows(10)
    with closing(kafka.producer(transactional_id=uuid.uuid4().hex)) as producer:
        producer.init_transactions()
        for first, end in ((10, producer.commit_transaction), (30, producer.abort_transaction)):
            producer.begin_transaction()
            for number in range(first, first + 10):
                producer.send(topic, json_object(id=number), partition=0)
            producer.flush()
            place.write(topic, range(first + 10, first + 20))
            if isolation == "read_committed":
                time.sleep(1)
                assert job.status.rows_trained == first
            else:
                job.wait_for_rows(first + 20)
            end()
            job.wait_for_rows(first + (20 if first == 10 else 10))
    job.stop()
    aborted = range(30, 40) if isolation == "read_committed" else range(0)
    assert trained(job) == sorted(set(range(50)) - set(aborted))
    assert job.replay().rows == 50 - len(aborted)
    place.close()


def test_compacted_topic_is_trained_as_it_stands_without_its_tombstones(own_place: KafkaPlace) -> None:
    place = own_place
    configs = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.01"}
    topic = place.kafka.new_topic(configs=configs)
    keys = [b"%d" % (number % 20) for number in range(100)]
    place.kafka.produce(topic, 0, [json_object(id=number) for number in range(100)], keys=keys)
    place.kafka.produce(topic, 0, [None] * 5, keys=keys[:5])
    deadline_s = time.monotonic() + 120
    while len(place.kafka.read(topic)) > 60 and time.monotonic() < deadline_s:
        time.sleep(0.2)  # a segment is closed when something is written behind it
        place.kafka.produce(topic, 0, [json_object(id=399)], keys=[b"last"])
    place.kafka.produce(topic, 0, [None], keys=[b"no such key"])
    before = place.kafka.read(topic)
    job = place.job(topic, source={"end": "latest"}).start()
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    assert any(record.value is None for record in before)
    assert len(before) < before[-1].offset
    assert ids_of(place.kafka.read(topic)) <= set(trained_or_more(job)) <= ids_of(before)
    assert job.status.rows_rejected == 0
    job.replay()


def ids_of(records: Sequence[Any]) -> set[int]:
    return {json.loads(record.value)["id"] for record in records if record.value is not None}


def trained_or_more(job: LiveJob) -> list[int]:
    """The ids that were trained."""
    return [number for number, count in enumerate(times_trained(job.store)) if count]


def test_idle_and_empty_partitions_hold_nobody_up_in_the_order_of_arrival(place: Place) -> None:
    topic = place.new_topic(partitions=4)
    place.write(topic, range(5), partition=1)
    job = place.job(topic).start()
    job.wait_for_rows(5)
    for number in range(5):
        place.write(topic, range(5 + 10 * number, 15 + 10 * number), partition=2)
        job.wait_for_rows(15 + 10 * number)
    assert job.status.waits_for == ()
    job.stop()
    assert trained(job) == list(range(55))
