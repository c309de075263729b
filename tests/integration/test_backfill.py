"""Files and then a topic, on a real broker and a real Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from dtrain.job.status import Outcome
from tests.support.audit import audit_spec, id_messages
from tests.support.cluster import ClusterJob
from tests.support.files import arrow_file
from tests.support.kafka import Kafka

NUM_IDS, IN_FILES = 24_000, 16_000
WORKERS = {"min": 2, "max": 2, "cpus": 0.5}
pytestmark = pytest.mark.slow


@pytest.fixture
def launched(cluster: Path, tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as stack:

        def launch(**fields: Any) -> ClusterJob:
            spec = audit_spec(folder=tmp_path / "checkpoints", num_ids=NUM_IDS, workers=WORKERS, **fields)
            job = ClusterJob(spec, job_id=f"files-{uuid4().hex[:8]}", logs=tmp_path / "logs")
            stack.callback(job.close)
            return job

        yield launch


def _ids(first: int, stop: int) -> pa.Table:
    return pa.table({"id": pa.array(range(first, stop), pa.int64())})


def test_partitions_that_are_added_behind_the_files_are_trained_too(kafka: Kafka, tmp_path: Path, launched: Any) -> None:
    topic = kafka.new_topic()
    messages = list(id_messages(NUM_IDS, rows=50))[IN_FILES // 50 :]
    for number, first in enumerate(range(0, IN_FILES, 4000)):
        (tmp_path / f"{number}.arrow").write_bytes(arrow_file(_ids(first, first + 4000), rows=1000))
    source = {"history": {"files": f"{tmp_path}/*.arrow"}, "end": "never"}
    job = launched(topic=topic, bootstrap=kafka.bootstrap, ends={}, source=source)
    kafka.produce(topic, 0, messages[:40])
    job.wait(lambda seen: seen.status is not None and seen.status.rows_trained >= IN_FILES + 2000)
    kafka.add_partitions(topic, 1)
    kafka.produce(topic, 1, messages[40:80])
    job.wait(lambda seen: seen.status is not None and seen.status.rows_trained >= IN_FILES + 4000)
    job.kill("coordinator")
    for partition in range(2):
        kafka.produce(topic, partition, messages[80 + partition :: 2])
    job.wait(lambda seen: seen.status is not None and seen.status.rows_trained >= NUM_IDS)
    job.launcher.stop(job.record.job_id, job.record.incarnation)
    assert job.wait_for_end().outcome is Outcome.STOPPED
    job.check()


def test_history_then_live_each_kind_of_process_killed_every_record_is_in_the_weights_once(
    kafka: Kafka, tmp_path: Path, launched: Any
) -> None:
    topic = kafka.new_topic(partitions=2)
    messages = list(id_messages(NUM_IDS, rows=50))[IN_FILES // 50 :]
    held = {partition: messages[partition::2] for partition in range(2)}
    for number, first in enumerate(range(0, IN_FILES, 4000)):
        (tmp_path / f"{number}.arrow").write_bytes(arrow_file(_ids(first, first + 4000), rows=1000))
    job = launched(
        topic=topic,
        bootstrap=kafka.bootstrap,
        ends={partition: len(mine) for partition, mine in held.items()},
        source={"history": {"files": f"{tmp_path}/*.arrow", "at_a_time": 2}},
    )
    for part, role in enumerate(("reader", "trainer", "coordinator")):
        step = job.status.step
        kafka.produce_part(topic, held, part)
        job.wait_for_step(step + 20)
        job.kill(role)
    kafka.produce_part(topic, held, 3)
    assert job.wait_for_end().outcome is Outcome.SUCCEEDED
    assert job.status.rows_trained == NUM_IDS
    job.check()
