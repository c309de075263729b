"""What a client sees of jobs: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dtrain.job.lifecycle import State
from dtrain.job.status import JobStatus, StoredEvent


@dataclass(frozen=True, slots=True)
class Job:
    """What a user submitted, and what became of it."""

    job_id: str
    name: str
    state: State = State.QUEUED
    reason: str = ""
    """A word in capitals for BLOCKED and FAILED, as DATA_LOSS."""
    message: str = ""
    """One sentence that a person can act on."""
    spec_json: str = ""
    """The validated spec with every default, as canonical JSON."""
    created_at_s: float = 0.0
    """Wall time."""
    updated_at_s: float = 0.0
    """Wall time at which state, reason or message last changed."""
    incarnation: int = 0
    """Of the coordinator that was last launched, or is about to be; recorded before acting."""
    status: JobStatus = field(default_factory=JobStatus)
    code_archive: str = ""
    """sha256 of the archive of its code, in hex; empty where it has none, or its processes read the folder in the spec."""
    code_sha256: str = ""
    """`digest_code` of that archive's files, as who sent it said."""


@dataclass(frozen=True, slots=True)
class Update:
    """A job that changed, and the events since the update before."""

    job: Job
    events: tuple[StoredEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a process of a job logged."""

    timestamp: str
    """ISO 8601 in UTC; empty when the line has none."""
    source: str
    """Name of the process, as coordinator or trainer-0."""
    level: str
    message: str
    fields: Mapping[str, str] = field(default_factory=dict)
    """Everything else in the line; values that are not text are written as JSON."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What answers at an address."""

    version: str
    started_at_s: float
    """Wall time."""
    metrics_address: str
    """host:port of /metrics and /sd."""
