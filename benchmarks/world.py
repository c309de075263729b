"""The real thing to measure in: a Kafka broker, a Ray cluster, topics with rows, and a job on them."""

from __future__ import annotations

import io
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from deploy.kafka.broker import Broker, find_broker
from dtrain.cli.ports import answers
from dtrain.cli.ray_head import forget_ray, start_ray
from dtrain.job.lifecycle import State
from dtrain.job.protocols import JobRecord
from dtrain.job.status import JobStatus, Observation, Outcome
from dtrain.runtime.trace import VARIABLE
from dtrain.spec.job import JobSpec

CODE = Path(__file__).parent
"""Where the tasks of jobs are."""


@contextmanager
def a_broker(folder: Path) -> Iterator[Broker]:
    """A broker of one's own, in a process of its own, or that of KAFKA_BOOTSTRAP."""
    broker = find_broker(
        bootstrap=os.environ.get("KAFKA_BOOTSTRAP"),
        home=os.environ.get("KAFKA_HOME"),
        cache=CODE.parent / "build" / "kafka",
        folder=folder / "kafka",
    )
    try:
        yield broker
    finally:
        broker.close()


def new_topic(broker: Broker, *, partitions: int = 1) -> str:
    """A fresh topic."""
    name = f"bench-{uuid.uuid4().hex[:12]}"
    with KafkaAdminClient(bootstrap_servers=broker.bootstrap) as admin:
        admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1)], wait_for_metadata=True)
    return name


def produce(broker: Broker, topic: str, values: Iterable[bytes], *, partitions: int = 1) -> int:
    """Write `values` to the partitions in turn; how many."""
    options = {"acks": 1, "linger_ms": 5, "batch_size": 1 << 20, "max_request_size": 8 << 20}
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, **options)
    number = -1
    for number, value in enumerate(values):
        producer.send(topic, value, partition=number % partitions)
    producer.flush(timeout=300)
    producer.close()
    return number + 1


def message(columns: Mapping[str, Any]) -> bytes:
    """One message with the rows of `columns`, as an Arrow stream."""
    batch = pa.record_batch(dict(columns))
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def a_cluster(folder: Path, *, num_cpus: int, traces: Path | None = None) -> Iterator[str]:
    """A Ray cluster whose head is a process of its own; this process has joined it. Its address."""
    import ray  # where it is needed alone

    (folder / "logs").mkdir(parents=True, exist_ok=True)
    traced = {} if traces is None else {VARIABLE: str(traces)}
    head = start_ray(folder, environment=os.environ | {"OMP_NUM_THREADS": "1"} | traced, cpus=num_cpus, gpus=None)
    address = head.facts["address"]
    try:
        _join(address, timeout_s=60)
        yield address
    finally:
        ray.shutdown()
        head.end(grace_s=10)
        forget_ray(head)


def _join(address: str, *, timeout_s: float) -> None:
    """This process is part of the cluster, as soon as its head is up."""
    import ray

    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            if answers(address):
                ray.init(address=address, namespace="dtrain", log_to_driver=False, logging_level="ERROR")
                return
        except ConnectionError:  # it listens, and is not ready
            ray.shutdown()
        if time.monotonic() > deadline_s:
            raise SystemExit(f"no Ray cluster at {address}")
        time.sleep(0.2)


class Job:
    """A job as the scheduler would run it: whenever its coordinator is gone, the next incarnation is launched."""

    def __init__(self, spec: JobSpec, *, logs: Path) -> None:
        from dtrain.runtime.launcher import RayLauncher  # imports ray: see `a_cluster`

        self._launcher = RayLauncher(logs=logs)
        self._record = JobRecord(
            job_id=f"{spec.name}-00001", name=spec.name, spec_json=spec.to_json(), state=State.STARTING, incarnation=1
        )
        self._cursor = 0
        self.status = JobStatus()
        self._launcher.launch(self._record)

    def observe(self) -> Observation:
        """What the coordinator says now."""
        seen = self._launcher.observe(self._record.job_id, self._record.incarnation, cursor=self._cursor)
        self._cursor = seen.cursor
        self.status = seen.status or self.status
        if not seen.is_alive:
            self._record, self._cursor = replace(self._record, incarnation=self._record.incarnation + 1), 0
            self._launcher.launch(self._record)
        if seen.outcome in {Outcome.FAILED, Outcome.BLOCKED}:
            raise SystemExit(f"the job is {seen.outcome}: {seen.reason}: {seen.message}")
        return seen

    def wait(self, is_reached: Callable[[Observation], bool], *, timeout_s: float) -> Observation:
        """The first observation of which `is_reached` is true."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            seen = self.observe()
            if is_reached(seen):
                return seen
            time.sleep(0.2)
        raise SystemExit(f"the job has not come that far in {timeout_s} s: {self.status}")

    def wait_for_end(self, *, timeout_s: float) -> None:
        """The job has succeeded."""
        self.wait(lambda seen: seen.outcome is not Outcome.NONE, timeout_s=timeout_s)

    def stop(self, *, timeout_s: float) -> None:
        """The job has ended behind a last checkpoint."""
        self._launcher.stop(self._record.job_id, self._record.incarnation)
        self.wait_for_end(timeout_s=timeout_s)

    def pids(self, role: str) -> dict[int, int]:
        """Process ids by rank, or by index for those that have none."""
        members = [member for member in self.status.members if member.role == role]
        return {member.rank if member.rank >= 0 else member.index: member.pid for member in members}

    def close(self) -> None:
        """No process of the job is left."""
        self._launcher.remove(self._record.job_id)
