"""The twins: a job store and a launcher in this process, for tests and for trying a control plane without a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from threading import Lock

from dtrain.errors import NotFoundError, UnavailableError
from dtrain.job.lifecycle import State
from dtrain.job.protocols import JobRecord, Resources, check_same
from dtrain.job.status import Happening, JobStatus, Observation, Outcome, StoredEvent


class MemoryJobStore:
    """A `JobStore` that lasts as long as this object."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._records: dict[str, JobRecord] = {}  # in order of creation
        self._events: dict[str, list[StoredEvent]] = {}

    def create(self, record: JobRecord, happenings: Sequence[Happening] = ()) -> JobRecord:
        """See `JobStore.create`."""
        with self._lock:
            for other in self._records.values():
                if other.request_id == record.request_id:
                    check_same(other, record)
                    return other
            if record.job_id in self._records:
                raise UnavailableError(f"the job id {record.job_id} is taken", fix="submit again")
            return self._keep(replace(record, version=1), happenings)

    def get(self, job: str) -> JobRecord:
        """See `JobStore.get`."""
        named = [record for record in self._records.values() if record.name == job]
        found = self._records.get(job) or (named[-1] if named else None)
        if found is None:
            raise NotFoundError(f"there is no job {job!r}", fix="`dtrain list` shows all jobs")
        return found

    def page(self, *, after: str, limit: int, state: State | None = None) -> Sequence[JobRecord]:
        """See `JobStore.page`."""
        records = list(self._records.values())
        first = records.index(self.get(after)) + 1 if after else 0
        return [record for record in records[first:] if state in {None, record.state}][:limit]

    def unsettled(self) -> Sequence[JobRecord]:
        """See `JobStore.unsettled`."""
        return [record for record in self._records.values() if record.has_actors or not record.state.is_terminal]

    def swap(self, old: JobRecord, new: JobRecord, happenings: Sequence[Happening] = ()) -> JobRecord | None:
        """See `JobStore.swap`."""
        with self._lock:
            if self._records[old.job_id].version != old.version:
                return None
            return self._keep(replace(new, version=old.version + 1), happenings)

    def events(self, job_id: str, *, after: int, limit: int) -> Sequence[StoredEvent]:
        """See `JobStore.events`."""
        return self._events.get(job_id, [])[after : after + limit]

    def _keep(self, record: JobRecord, happenings: Sequence[Happening]) -> JobRecord:
        self._records[record.job_id] = record
        events = self._events.setdefault(record.job_id, [])
        events += [StoredEvent(number, told) for number, told in enumerate(happenings, len(events) + 1)]
        return record


@dataclass(slots=True)
class _Coordinator:
    """What `MemoryLauncher` runs instead of a coordinator: it counts."""

    incarnation: int
    is_alive: bool = True
    is_stopping: bool = False
    workers: int = 0
    phase: str = "starting"
    outcome: Outcome = Outcome.NONE
    reason: str = ""
    message: str = ""
    status: JobStatus = field(default_factory=JobStatus)
    happenings: list[Happening] = field(default_factory=list)


class MemoryLauncher:
    """A `Launcher` whose coordinators take one step whenever they are observed, and do what a test tells them.

    It outlives a control plane, as a cluster does. A job's steps outlive its coordinators, as checkpoints do.

    Args:
        capacity: of the make-believe cluster.
        num_steps: after so many a job has succeeded; None for never.
    """

    def __init__(self, *, capacity: Resources | None = None, num_steps: int | None = None) -> None:
        self.coordinators: dict[str, _Coordinator] = {}
        """Job id → its last coordinator."""
        self.launched: list[tuple[str, int]] = []
        """Every (job, incarnation) that was started, in order."""
        self._capacity = capacity or Resources(cpus=4.0)
        self._num_steps = num_steps
        self._steps: dict[str, int] = {}
        self._lock = Lock()

    def capacity(self) -> Resources:
        """See `Launcher.capacity`."""
        return self._capacity

    def launch(self, record: JobRecord) -> None:
        """See `Launcher.launch`. The fresh coordinator starts where the job's steps stand."""
        with self._lock:
            if (record.job_id, record.incarnation) not in self.launched:
                self.launched.append((record.job_id, record.incarnation))
                self.coordinators[record.job_id] = _Coordinator(record.incarnation)

    def observe(self, job_id: str, incarnation: int, *, cursor: int) -> Observation:
        """See `Launcher.observe`. Each call is a step of a coordinator that lives."""
        with self._lock:
            found = self._find(job_id, incarnation)
            if found is None or not found.is_alive:
                return Observation(is_alive=False)
            if found.outcome is Outcome.NONE:
                self._step(job_id, found)
            return Observation(
                is_alive=True,
                phase=found.phase,
                outcome=found.outcome,
                reason=found.reason,
                message=found.message,
                status=found.status,
                happenings=tuple(found.happenings[cursor:]),
                cursor=len(found.happenings),
            )

    def scale(self, job_id: str, incarnation: int, workers: int) -> None:
        """See `Launcher.scale`."""
        with self._lock:
            found = self._find(job_id, incarnation)
            if found is not None:
                found.workers = workers

    def stop(self, job_id: str, incarnation: int) -> None:
        """See `Launcher.stop`."""
        with self._lock:
            if found := self._find(job_id, incarnation):
                found.is_stopping = True

    def checkpoint(self, job_id: str, incarnation: int) -> None:
        """See `Launcher.checkpoint`: durable at once."""
        with self._lock:
            if found := self._find(job_id, incarnation):
                step = found.status.step
                found.status = replace(found.status, last_checkpoint=f"p{step:012d}-a{incarnation:08d}")
                found.happenings.append(Happening(at_s=float(step), kind="checkpoint", message=f"checkpoint at step {step}"))

    def remove(self, job_id: str) -> None:
        """See `Launcher.remove`."""
        with self._lock:
            self.coordinators.pop(job_id, None)

    def kill(self, job_id: str) -> None:
        """The job's coordinator is gone without a word."""
        self.coordinators[job_id].is_alive = False

    def finish(self, job_id: str, outcome: Outcome, *, reason: str = "", message: str = "") -> None:
        """The job's coordinator came to this end."""
        found = self.coordinators[job_id]
        found.outcome, found.reason, found.message = outcome, reason, message

    def _find(self, job_id: str, incarnation: int) -> _Coordinator | None:
        found = self.coordinators.get(job_id)
        return found if found is not None and found.incarnation == incarnation else None

    def _step(self, job_id: str, found: _Coordinator) -> None:
        if found.is_stopping:
            found.outcome = Outcome.STOPPED
            return
        if found.phase == "starting":
            found.phase = "running"
            found.happenings.append(Happening(at_s=0.0, kind="generation", message="generation 1 has 1 member"))
        step = self._steps[job_id] = self._steps.get(job_id, 0) + 1
        found.status = replace(
            found.status, attempt=found.incarnation, generation=1, world_size=1, plan_number=step, step=step, rows_trained=step
        )
        if self._num_steps is not None and step >= self._num_steps:
            found.outcome = Outcome.SUCCEEDED
