"""Topics that change under a job of several processes, some of which die meanwhile (faults.md, rows 7 and 11)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtrain.job.status import Outcome
from dtrain.steplog.entries import StepKind
from tests.support.audit import audit_spec, id_messages, times_trained
from tests.support.cluster import ClusterJob
from tests.support.kafka import Kafka

NUM_IDS = 6_000
MESSAGES = list(id_messages(NUM_IDS, rows=10))
"""A message's ids are its place in this list, times ten, and the nine that follow."""

pytestmark = pytest.mark.slow


@pytest.fixture
def topic(kafka: Kafka) -> str:
    return kafka.new_topic(partitions=2)


@pytest.fixture
def job(kafka: Kafka, cluster: Path, tmp_path: Path, topic: str, request: pytest.FixtureRequest) -> Iterator[ClusterJob]:
    changes: dict[str, Any] = {"workers": {"min": 2, "max": 2, "cpus": 0.5}, "batch": {"order": request.param, "rows": 20}}
    spec = audit_spec(
        topic=topic, bootstrap=kafka.bootstrap, folder=tmp_path, num_ids=NUM_IDS, ends={}, source={"end": "never"}, **changes
    )
    running = ClusterJob(spec, job_id=topic, logs=tmp_path / "logs")
    yield running
    running.close()


def wait_for_rows(job: ClusterJob, number: int) -> None:
    job.wait(lambda seen: seen.status is not None and seen.status.rows_trained >= number)


def stop(job: ClusterJob) -> None:
    job.launcher.stop(job.record.job_id, job.record.incarnation)
    assert job.wait_for_end().outcome is Outcome.STOPPED
    job.close()


@pytest.mark.parametrize("job", ["arrival", "strict"], indirect=True)
def test_partitions_added_while_processes_die_are_trained_once(kafka: Kafka, job: ClusterJob, topic: str) -> None:
    for partition in range(2):
        kafka.produce(topic, partition, MESSAGES[partition:200:2])
    wait_for_rows(job, 2_000)
    kafka.add_partitions(topic, 2)
    job.wait(lambda _: len(job.told("is read from offset 0 on")) == 2)  # in strict order they wait for rows of the others
    for partition in range(4):
        kafka.produce(topic, partition, MESSAGES[200 + partition : 400 : 4])
    wait_for_rows(job, 3_000)
    job.kill("coordinator")
    wait_for_rows(job, 4_000)
    job.kill("trainer")
    job.wait(lambda _: bool(job.pids("reader")))  # the one of the new coordinator may be starting
    job.kill("reader")
    for partition in range(4):
        kafka.produce(topic, partition, MESSAGES[400 + partition :: 4])
    wait_for_rows(job, NUM_IDS)
    stop(job)
    added = [move for e in job.store.entries(job.store.find(None).progress) for move in e.moves]
    assert sorted(str(move) for move in added) == [f"{topic}:{number} is read from offset 0 on" for number in (2, 3)]
    job.check()


@pytest.mark.parametrize("job", ["arrival"], indirect=True)
def test_gap_that_is_allowed_is_passed_over_once_whoever_dies(kafka: Kafka, job: ClusterJob, topic: str) -> None:
    for partition in range(2):
        kafka.produce(topic, partition, MESSAGES[partition:200:2])
    wait_for_rows(job, 2_000)
    stop(job)
    for partition in range(2):
        kafka.produce(topic, partition, MESSAGES[200 + partition : 400 : 2])
    kafka.delete_before(topic, 0, 150)
    job.launch_next()
    ended = job.wait_for_end()
    assert (ended.outcome, ended.reason) == (Outcome.BLOCKED, "DATA_LOSS")
    assert f"{topic}:0: records from offset 100 to 149 were deleted before they were trained" in ended.message
    job.close()
    job.launch_next(allow_gap=True)
    wait_for_rows(job, 2_100)
    job.kill("coordinator")
    for partition in range(2):
        kafka.produce(topic, partition, MESSAGES[400 + partition :: 2])
    wait_for_rows(job, NUM_IDS - 500)
    assert job.status.offsets_skipped == 50
    stop(job)
    lost = {10 * (200 + 2 * message) + row for message in range(50) for row in range(10)}
    assert times_trained(job.store) == [int(number not in lost) for number in range(NUM_IDS)]
    moves = [e for e in job.store.entries(job.store.find(None).progress) if e.kind is StepKind.MOVE]
    assert [str(move) for e in moves for move in e.moves] == [f"{topic}:0 goes from offset 100 to offset 150 (deleted)"]
