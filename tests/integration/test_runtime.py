"""Whole jobs on a real broker and a real Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dtrain.job.status import Outcome
from tests.support.audit import audit_spec, id_messages
from tests.support.cluster import ClusterJob
from tests.support.kafka import Kafka

NUM_IDS = 30_000
WORKERS = {"min": 2, "max": 2, "cpus": 0.5}


MESSAGES = list(id_messages(NUM_IDS, rows=50))
HELD = {partition: MESSAGES[partition::4] for partition in range(4)}
pytestmark = pytest.mark.slow


@pytest.fixture
def job(kafka: Kafka, cluster: Path, tmp_path: Path) -> Iterator[ClusterJob]:
    """A job over a topic that holds nothing yet, and ends behind HELD."""
    topic = kafka.new_topic(partitions=4)
    spec = audit_spec(
        topic=topic,
        bootstrap=kafka.bootstrap,
        folder=tmp_path / "checkpoints",
        num_ids=NUM_IDS,
        ends={partition: len(messages) for partition, messages in HELD.items()},
        workers=WORKERS,
    )
    running = ClusterJob(spec, job_id=topic, logs=tmp_path / "logs")
    yield running
    running.close()


def test_job_each_kind_of_process_killed_every_record_is_in_the_weights_once(job: ClusterJob, kafka: Kafka) -> None:
    topic = job.record.job_id
    for part, role in enumerate(("trainer", "reader", "coordinator")):
        step = job.status.step
        kafka.produce_part(topic, HELD, part)
        job.wait_for_step(step + 20)
        job.kill(role)
    kafka.produce_part(topic, HELD, 3)
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    assert job.status.rows_trained == NUM_IDS
    job.launcher.remove(topic)  # as the control plane does at once: its last positions are in Kafka all the same
    assert kafka.committed(f"dtrain-{topic}") == {p.partition: p.end_offset for p in job.status.partitions}
    job.check()


def test_job_stopped_and_launched_again_goes_on_where_it_was(job: ClusterJob, kafka: Kafka) -> None:
    for part in range(3):
        kafka.produce_part(job.record.job_id, HELD, part)
    job.wait_for_step(40)
    job.launcher.stop(job.record.job_id, job.record.incarnation)
    assert job.wait_for_end().outcome is Outcome.STOPPED
    job.launcher.remove(job.record.job_id)
    job.observe()  # sees that it is gone, and launches it again
    kafka.produce_part(job.record.job_id, HELD, 3)
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    job.check()
