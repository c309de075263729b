"""Jobs on a real Ray cluster of this process, without a control plane: what the launcher sees."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import ray

from dtrain.cli.ray_head import answers, forget_ray, start_ray
from dtrain.job.lifecycle import State
from dtrain.job.protocols import JobRecord
from dtrain.job.status import Happening, JobStatus, Observation, Outcome
from dtrain.runtime.crew import NAMESPACE
from dtrain.runtime.launcher import RayLauncher
from dtrain.spec.job import JobSpec


@contextmanager
def ray_cluster(folder: Path, *, num_cpus: int) -> Iterator[None]:
    """A cluster whose head is a process of its own: this one has threads of gRPC and Kafka, and must not fork any more."""
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    head = start_ray(folder, environment=os.environ, cpus=num_cpus, gpus=None)
    try:
        deadline_s = time.monotonic() + 60
        while not answers(head.facts["address"]) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        ray.init(address=head.facts["address"], namespace=NAMESPACE, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        head.end(grace_s=10)
        forget_ray(head)


class ClusterJob:
    """A job as the scheduler would run it: whenever its coordinator is gone, the next incarnation is launched."""

    def __init__(self, spec: JobSpec, *, job_id: str, logs: Path) -> None:
        self.launcher = RayLauncher(logs=logs)
        self.record = JobRecord(job_id, spec.name, spec.to_json(), State.STARTING, incarnation=1)
        self.happenings: list[Happening] = []
        self.status = JobStatus()
        self._cursor = 0
        self.launcher.launch(self.record)

    def observe(self) -> Observation:
        seen = self.launcher.observe(self.record.job_id, self.record.incarnation, cursor=self._cursor)
        self._cursor = seen.cursor
        self.happenings += seen.happenings
        self.status = seen.status or self.status
        if not seen.is_alive:
            self.record, self._cursor = replace(self.record, incarnation=self.record.incarnation + 1), 0
            self.launcher.launch(self.record)
        return seen

    def wait(self, is_reached: Callable[[Observation], bool], *, timeout_s: float = 90.0) -> Observation:
        """The first observation of which `is_reached` is true."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            seen = self.observe()
            if is_reached(seen):
                return seen
            if seen.outcome in {Outcome.FAILED, Outcome.BLOCKED}:
                raise AssertionError(f"{seen.outcome}: {seen.reason}: {seen.message}")
            time.sleep(0.05)
        raise AssertionError(f"not reached in {timeout_s} s: {seen}; {self.happenings[-10:]}")

    def wait_for_step(self, step: int) -> Observation:
        return self.wait(lambda seen: seen.status is not None and seen.status.step >= step and seen.phase == "running")

    def wait_for_end(self, *, timeout_s: float = 90.0) -> Observation:
        return self.wait(lambda seen: seen.outcome is not Outcome.NONE, timeout_s=timeout_s)

    def pids(self, role: str) -> list[int]:
        return [member.pid for member in self.status.members if member.role == role]

    def kill(self, role: str, index: int = 0) -> int:
        pid = self.pids(role)[index]
        os.kill(pid, signal.SIGKILL)
        return pid

    def close(self) -> None:
        self.launcher.remove(self.record.job_id)
