"""The two seams of a job: where jobs are kept, and what makes them run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from dtrain.errors import ConflictError
from dtrain.job.lifecycle import State
from dtrain.job.status import Happening, Observation, StoredEvent
from dtrain.job.view import Job


@dataclass(frozen=True, slots=True)
class Resources:
    """What a job needs, or a cluster has."""

    cpus: float = 0.0
    gpus: float = 0.0

    def fits_in(self, other: Resources) -> bool:
        """Whether `other` has room for this."""
        return self.cpus <= other.cpus and self.gpus <= other.gpus


@dataclass(frozen=True, slots=True)
class JobRecord(Job):
    """A job as it is kept. `version` grows with every change: writers compare and swap on it."""

    has_actors: bool = False
    """Processes of the job may exist and its resources are taken: true from before the launch until after the removal."""
    failures: int = 0
    """Coordinators lost in a row without progress."""
    furthest_plan: int = 0
    """The highest plan number that any incarnation reported: progress is what lies beyond it."""
    cursor: int = 0
    """How far this incarnation's happenings are kept."""
    accept_code_change: bool = False
    """The user allowed the next start to go on with other code than the checkpoint's. This and the two below are spent as soon as what
    they allowed is kept beside the checkpoints: `policy/supervision.py`."""
    skip_step: bool = False
    """The user allowed the next start to leave out the step that killed its processes."""
    allow_gap: bool = False
    """The user allowed the next start to pass over what its topic has lost."""
    workers: int = 0
    """How many its user wants to train now; 0 for as many as the spec allows."""
    request_id: str = ""
    version: int = 0


def check_same(kept: JobRecord, asked: JobRecord) -> None:
    """Raise `ConflictError` where the request that made `kept` came again for something else."""
    for what, name in (("spec", "spec_json"), ("code", "code_archive")):
        if getattr(kept, name) != getattr(asked, name):
            raise ConflictError(f"request id {kept.request_id!r} was used for another {what}", fix="make a fresh one")


class JobStore(Protocol):
    """Where jobs are kept. Every write is one transaction, durable when the call returns, or changes nothing.

    Threads: safe to call from several.

    Blocking: up to some seconds, then `UnavailableError`: the database does not answer in time.
    """

    def create(self, record: JobRecord, happenings: Sequence[Happening] = ()) -> JobRecord:
        """Keep a new job and its first events. The same `request_id` with the same spec and code answers the job that exists.

        Raises:
            ConflictError: the same `request_id` came with another spec, or other code.
            UnavailableError: the job id is taken; a fresh one will do.
        """
        ...

    def get(self, job: str) -> JobRecord:
        """The job with this id, or else the newest with this name. Raises `NotFoundError`."""
        ...

    def page(self, *, after: str, limit: int, state: State | None = None) -> Sequence[JobRecord]:
        """Up to `limit` jobs in order of creation, behind the one with the id `after` (empty: from the beginning)."""
        ...

    def unsettled(self) -> Sequence[JobRecord]:
        """Every job that is not terminal or may still have processes, in order of creation."""
        ...

    def swap(self, old: JobRecord, new: JobRecord, happenings: Sequence[Happening] = ()) -> JobRecord | None:
        """Write `new` and its events if the kept version is still `old`'s; None when somebody else was first.

        Returns:
            `new` as it is kept now, with its version.
        """
        ...

    def events(self, job_id: str, *, after: int, limit: int) -> Sequence[StoredEvent]:
        """Up to `limit` events numbered above `after`, in order."""
        ...


class Launcher(Protocol):
    """What makes jobs run. Every call is idempotent and may be repeated after a crash between any two instructions.

    Raises `UnavailableError` when the cluster does not answer: that says nothing about the job, and is tried again.

    Threads: safe to call from several.

    Blocking: a call may take seconds; never call one on an event loop.
    """

    def capacity(self) -> Resources:
        """What the cluster has in all."""
        ...

    def launch(self, record: JobRecord) -> None:
        """Start the coordinator of (job, incarnation) unless it is there."""
        ...

    def observe(self, job_id: str, incarnation: int, *, cursor: int) -> Observation:
        """What that coordinator says, with what happened after `cursor`; `is_alive=False` when there is none.

        A coordinator that was launched and is still being made is alive, in the phase `starting`. One that came to its end goes on
        answering with its outcome until `remove`.
        """
        ...

    def stop(self, job_id: str, incarnation: int) -> None:
        """Ask for a last checkpoint and then an end, with the outcome `stopped`."""
        ...

    def checkpoint(self, job_id: str, incarnation: int) -> None:
        """Ask for a checkpoint at the next control step."""
        ...

    def scale(self, job_id: str, incarnation: int, workers: int) -> None:
        """So many workers train as soon as there is room; the same again changes nothing."""
        ...

    def remove(self, job_id: str) -> None:
        """End every process and free every resource of the job, of all incarnations."""
        ...
