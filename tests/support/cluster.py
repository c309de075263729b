"""Jobs on a real Ray cluster of this process, without a control plane: what the launcher sees."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import ray

from dtrain.checkpoint.places import open_store
from dtrain.cli.ports import answers
from dtrain.cli.ray_head import forget_ray, start_ray
from dtrain.job.lifecycle import State
from dtrain.job.protocols import JobRecord
from dtrain.job.status import Happening, JobStatus, Observation, Outcome
from dtrain.replay.replay import Verdict, replay
from dtrain.runtime.crew import NAMESPACE
from dtrain.runtime.launcher import RayLauncher
from dtrain.runtime.trace import VARIABLE
from dtrain.spec.job import JobSpec
from dtrain.stream.sources import open_source
from tests.support.audit import times_trained

PATIENCE_S = 300.0
"""How long what must come may take on a machine on which others wait for the cores; what cannot come any more fails at once."""


@contextmanager
def ray_cluster(folder: Path, *, num_cpus: int, store_bytes: int | None = None) -> Iterator[Path]:
    """A cluster whose head is a process of its own: this one has threads of gRPC and Kafka, and must not fork any more.

    Its trainers leave traces of the steps that they have applied in the folder that is yielded: that of the environment, or one of its own.
    """
    traces = Path(os.environ.get(VARIABLE, folder / "traces"))
    for made in (folder / "logs", traces):
        made.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, VARIABLE: str(traces)}
    head = start_ray(folder, environment=environment, cpus=num_cpus, gpus=None, store_bytes=store_bytes)
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not answers(head.facts["address"]) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        ray.init(address=head.facts["address"], namespace=NAMESPACE, log_to_driver=False)
        yield traces
    finally:
        ray.shutdown()
        head.end(grace_s=10)
        forget_ray(head)


class ClusterJob:
    """A job as the scheduler would run it: whenever its coordinator is gone, the next incarnation is launched."""

    def __init__(self, spec: JobSpec, *, job_id: str, logs: Path, workers: int = 0) -> None:
        self.spec = spec
        self.launcher = RayLauncher(logs=logs)
        self.store = open_store(spec.checkpoint.place_of(job_id))
        self.record = JobRecord(job_id, spec.name, State.STARTING, spec_json=spec.to_json(), incarnation=1, workers=workers)
        self.happenings: list[Happening] = []
        self.status = JobStatus()
        self._cursor = 0
        self.launch()

    def launch(self) -> None:
        """The coordinator of this incarnation is there."""
        self.launcher.launch(self.record)

    def observe(self) -> Observation:
        seen = self.launcher.observe(self.record.job_id, self.record.incarnation, cursor=self._cursor)
        self._cursor = seen.cursor
        self.happenings += seen.happenings
        self.status = seen.status or self.status
        if not seen.is_alive:
            self.launch_next()
        return seen

    def launch_next(self, *, skip_step: bool = False, allow_gap: bool = False) -> None:
        """The next incarnation is there."""
        number = self.record.incarnation + 1
        self.record, self._cursor = replace(self.record, incarnation=number, skip_step=skip_step, allow_gap=allow_gap), 0
        self.launch()

    def wait(self, is_reached: Callable[[Observation], bool], *, timeout_s: float = PATIENCE_S) -> Observation:
        """The first observation of which `is_reached` is true."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            seen = self.observe()
            if is_reached(seen):
                return seen
            if seen.outcome is not Outcome.NONE:  # what is waited for does not come any more
                raise AssertionError(f"{seen.outcome}: {seen.reason}: {seen.message}")
            time.sleep(0.05)
        raise AssertionError(f"not reached in {timeout_s} s: {seen}; {self.happenings[-10:]}")

    def wait_for_step(self, step: int) -> Observation:
        return self.wait(lambda seen: seen.status is not None and seen.status.step >= step and seen.phase == "running")

    def wait_for_end(self, *, timeout_s: float = PATIENCE_S) -> Observation:
        return self.wait(lambda seen: seen.outcome is not Outcome.NONE, timeout_s=timeout_s)

    def wait_for_world(self, size: int, *, timeout_s: float = PATIENCE_S, after: tuple[int, int] = (0, 0)) -> set[int]:
        """`size` trainers train, in a generation later than `after`, and have made some steps; their processes."""
        since: tuple[object, int] = (None, 0)

        def is_settled(seen: Observation) -> bool:
            nonlocal since
            if since[0] != (self.generation, self.ranks):
                since = (self.generation, self.ranks), self.status.step
            is_world = seen.phase == "running" and self.generation > after and len(self.ranks) == self.status.world_size == size
            return is_world and self.status.step >= since[1] + 10

        self.wait(is_settled, timeout_s=timeout_s)
        return set(self.ranks)

    @property
    def generation(self) -> tuple[int, int]:
        """(attempt, generation) that trained when the job was last observed."""
        return self.status.attempt, self.status.generation

    @property
    def ranks(self) -> list[int]:
        """The processes of the generation, by rank, when the job was last observed."""
        members = sorted((m.rank, m.pid) for m in self.status.members if m.role == "trainer" and m.rank >= 0)
        return [pid for _, pid in members]

    def pids(self, role: str) -> list[int]:
        return [member.pid for member in self.status.members if member.role == role]

    def kill(self, role: str, index: int = 0) -> int:
        pid = self.pids(role)[index]
        os.kill(pid, signal.SIGKILL)
        return pid

    def told(self, words: str) -> list[str]:
        """What has happened and has `words` in it."""
        return [happening.message for happening in self.happenings if words in happening.message]

    def replay(self) -> Verdict:
        """Oracle 2."""
        with closing(open_source(self.spec)) as source:
            return replay(self.store, source=source)

    def check(self) -> None:
        """Oracles 1 and 2: every record is in the weights once, and topic and step log make the same weights again."""
        assert Counter(times_trained(self.store)).keys() == {1}
        verdict = self.replay()
        assert verdict.is_equal, verdict.sentence
        assert (verdict.audit.lost, verdict.audit.doubled) == (0, 0)

    def close(self) -> None:
        self.launcher.remove(self.record.job_id)
