"""Whole jobs on a real broker and a real Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dtrain.checkpoint.store import CheckpointStore
from dtrain.job.status import Outcome
from dtrain.replay.replay import replay
from dtrain.stream.kafka import KafkaSource
from tests.support.audit import audit_spec, id_messages, times_trained
from tests.support.cluster import ClusterJob
from tests.support.kafka import Kafka

NUM_IDS = 30_000
WORKERS = {"min": 2, "max": 2, "cpus": 0.5}


@pytest.fixture
def job(kafka: Kafka, cluster: None, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ClusterJob]:
    topic = kafka.new_topic(partitions=4)
    messages = list(id_messages(NUM_IDS, rows=50))
    for partition in range(4):
        kafka.produce(topic, partition, messages[partition::4])
    spec = audit_spec(
        topic=topic,
        bootstrap=kafka.bootstrap,
        folder=tmp_path / "checkpoints",
        num_ids=NUM_IDS,
        ends={partition: len(messages[partition::4]) for partition in range(4)},
        workers=WORKERS,
    )
    running = ClusterJob(spec, job_id=topic, logs=tmp_path / "logs")
    yield running
    running.close()


def _store(job: ClusterJob, tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints" / job.record.job_id)


def _check(job: ClusterJob, tmp_path: Path) -> None:
    """Oracles 1 and 2."""
    from dtrain.spec.job import JobSpec

    store = _store(job, tmp_path)
    assert set(times_trained(store)) == {1}
    source = KafkaSource(JobSpec.from_json(job.record.spec_json).source)
    verdict = replay(store, source=source)
    source.close()
    assert verdict.is_equal, verdict.sentence
    assert (verdict.audit.lost, verdict.audit.doubled) == (0, 0)


def test_job_each_kind_of_process_killed_every_record_is_in_the_weights_once(job: ClusterJob, tmp_path: Path) -> None:
    step = 0
    for role in ("trainer", "reader", "coordinator"):
        step = job.wait_for_step(step + 40).status.step  # type: ignore[union-attr]
        job.kill(role)
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    assert job.status.rows_trained == NUM_IDS
    _check(job, tmp_path)


def test_job_stopped_and_launched_again_goes_on_where_it_was(job: ClusterJob, tmp_path: Path) -> None:
    job.wait_for_step(40)
    job.launcher.stop(job.record.job_id, job.record.incarnation)
    assert job.wait_for_end().outcome is Outcome.STOPPED
    job.launcher.remove(job.record.job_id)
    job.observe()  # sees that it is gone, and launches it again
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    _check(job, tmp_path)
