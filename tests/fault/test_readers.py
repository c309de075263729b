"""Several readers of one topic: killed in the middle of messages, and more rows than the object store holds; oracles 1 and 2."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray

from benchmarks.object_store import StoreUse
from dtrain.job.status import Outcome
from dtrain.runtime.crew import NAMESPACE
from tests.support.audit import audit_spec, id_messages
from tests.support.cluster import ClusterJob, ray_cluster
from tests.support.kafka import Kafka
from tests.support.messages import arrow

PARTITIONS = 4
ROWS_A_MESSAGE = 1024
NUM_IDS = 120 * ROWS_A_MESSAGE
STEP_ROWS = 301
WIDE_ROWS, WIDE_IDS = 50, 25_000
STORE_BYTES = 80_000_000


def _job(kafka: Kafka, folder: Path, messages: list[bytes], *, held: int = 0, **changes: object) -> ClusterJob:
    """A job that ends behind `messages`, of which all but the `held` last of each partition are in its topic."""
    topic = kafka.new_topic(partitions=PARTITIONS)
    for partition in range(PARTITIONS):
        mine = messages[partition::PARTITIONS]
        kafka.produce(topic, partition, mine[: len(mine) - held])
    ends = {partition: len(messages[partition::PARTITIONS]) for partition in range(PARTITIONS)}
    spec = audit_spec(topic=topic, bootstrap=kafka.bootstrap, folder=folder / "checkpoints", ends=ends, **changes)  # type: ignore[arg-type]
    return ClusterJob(spec, job_id=topic, logs=folder / "logs")


def _followed(job: ClusterJob, folder: Path) -> list[dict[str, list[int]]]:
    """From where readers have read, in the order of time: partition → (offset, row)."""
    lines = [
        json.loads(line)
        for log in (folder / "logs" / job.record.job_id).glob("reader-*.jsonl")
        for line in log.read_text(encoding="utf-8").splitlines()
    ]
    follows = sorted((line for line in lines if line["event"] == "follows"), key=lambda line: str(line["timestamp"]))
    return [line["positions"] for line in follows]


@pytest.mark.slow
def test_readers_killed_inside_messages_lose_and_double_nothing(kafka: Kafka, cluster: Path, tmp_path: Path) -> None:
    messages = list(id_messages(NUM_IDS, rows=ROWS_A_MESSAGE))
    job = _job(
        kafka,
        tmp_path,
        messages,
        held=1,
        num_ids=NUM_IDS,
        source={"readers": 2},
        batch={"rows": STEP_ROWS, "max_wait": "1h"},  # so what is left of the last step waits, in the middle of a message
        workers={"min": 2, "max": 2, "cpus": 0.5},
    )
    try:
        job.wait(lambda seen: len(job.pids("reader")) == 2 and job.status.step >= 20)
        for index in range(2):
            job.kill("reader", index)
            job.wait(lambda seen: len(job.told("was lost; its partitions")) > index)  # noqa: B023
            job.wait(lambda seen: len(job.pids("reader")) == 2 and job.status.step >= 100 * (index + 1))  # noqa: B023
        last_step = (NUM_IDS - PARTITIONS * ROWS_A_MESSAGE) // STEP_ROWS
        job.wait(lambda seen: any(said.endswith(f" at step {last_step}") for said in job.told("at step")))  # its checkpoint
        num_followed = len(_followed(job, tmp_path))
        for pid in (*job.pids("trainer"), *job.pids("reader"), *job.pids("coordinator")):
            os.kill(pid, signal.SIGKILL)
        job.wait(lambda seen: len(_followed(job, tmp_path)) > num_followed)
        for partition in range(PARTITIONS):
            kafka.produce(job.record.job_id, partition, messages[partition::PARTITIONS][-1:])
        assert job.wait_for_end().outcome is Outcome.SUCCEEDED
        anew = _followed(job, tmp_path)[num_followed:]
        assert any(row > 0 for positions in anew for _, row in positions.values()), "it went on in the middle of a message"
        job.check()
    finally:
        job.close()


@contextmanager
def _small_cluster(folder: Path) -> Iterator[None]:
    """A cluster of its own for this process, and after it the one that it drove before."""
    before = ray.get_runtime_context().gcs_address if ray.is_initialized() else None
    ray.shutdown()
    try:
        with ray_cluster(folder, num_cpus=4, store_bytes=STORE_BYTES):
            yield
    finally:
        if before is not None:
            ray.init(address=before, namespace=NAMESPACE, log_to_driver=False)


def _wide_messages() -> Iterator[bytes]:
    x = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(WIDE_ROWS * 1024, np.float32)), 1024)
    for first in range(0, WIDE_IDS, WIDE_ROWS):
        yield arrow({"id": pa.array(range(first, first + WIDE_ROWS), pa.int64()), "x": x})


@pytest.mark.slow
def test_job_object_store_smaller_than_the_topic_holds_reading_back_and_loses_nothing(kafka: Kafka, tmp_path: Path) -> None:
    messages = list(_wide_messages())
    held = {partition: messages[partition::PARTITIONS] for partition in range(PARTITIONS)}
    with _small_cluster(tmp_path / "ray"):
        job = _job(
            kafka,
            tmp_path,
            messages,
            held=len(messages) // PARTITIONS * 4 // 5,
            task="wide_task:WideTask",
            num_ids=WIDE_IDS,
            workers={"min": 2, "max": 2, "cpus": 0.5, "lease": 60},
        )
        try:
            job.wait_for_step(10)
            trainers = job.pids("trainer")
            for pid in trainers:
                os.kill(pid, signal.SIGSTOP)
            for part in (1, 2, 3):  # more than is to be read now
                kafka.produce_part(job.record.job_id, held, part, of=5)
            job.wait(lambda seen: StoreUse.now().used_bytes > STORE_BYTES / 8)
            time.sleep(3)  # in which it would go on
            assert StoreUse.now().used_bytes < STORE_BYTES / 2, "reading went on until its part was full, and stopped"
            for pid in trainers:
                os.kill(pid, signal.SIGCONT)
            kafka.produce_part(job.record.job_id, held, 4, of=5)
            assert job.wait_for_end().outcome is Outcome.SUCCEEDED
            assert StoreUse.now().spilled_bytes == 0
            assert job.status.num_recoveries == 0
            job.check()
        finally:
            job.close()
