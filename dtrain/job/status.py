"""What a job says about itself, in the words of the stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Member:
    """One process of a job."""

    role: str
    """coordinator | reader | trainer"""
    index: int
    """Which of its role; for a trainer its index among the job's trainers, which is not its rank."""
    rank: int
    """In the present generation; -1 outside it."""
    pid: int
    node: str
    state: str
    """starting | ready | training"""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """How far one partition is trained. `end_offset` is the newest known offset that can be read, exclusive."""

    partition: str
    offset: int
    row: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job's progress, as its coordinator last said it. All figures are of one moment.

    Scores are prequential: each row is scored before it is trained on. They are provisional until a checkpoint covers them.
    """

    attempt: int = 0
    generation: int = 0
    world_size: int = 0
    plan_number: int = 0
    step: int = 0
    rows_trained: int = 0
    rows_rejected: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    """The rejected rows by kind of reason."""
    rows_skipped: int = 0
    rows_filtered: int = 0
    rows_duplicate: int = 0
    rows_held_out: int = 0
    offsets_skipped: int = 0
    """Passed over because their records were lost, or shed: at most so many records."""
    waits_for: tuple[str, ...] = ()
    """Partitions without whose rows no further step can be cut."""
    rows_per_s: float = 0.0
    loss: float | None = None
    """Mean loss a row over the window."""
    scores: dict[str, float] = field(default_factory=dict)
    """Metric name → value over the window."""
    total_loss: float | None = None
    """Mean loss a row over the whole job."""
    total_scores: dict[str, float] = field(default_factory=dict)
    """Metric name → value over the whole job."""
    held_out_loss: float | None = None
    """Mean loss a row over the window of held-out rows."""
    held_out_scores: dict[str, float] = field(default_factory=dict)
    """Metric name → value over the window of held-out rows."""
    partitions: tuple[PartitionStatus, ...] = ()
    lag_rows: int = 0
    """Rows that can be read and are not trained yet: an estimate."""
    lag_s: float = 0.0
    """Age of the newest trained row when rows wait, else 0."""
    freshness_s: float | None = None
    """Now less the Kafka timestamp of the newest row in the weights."""
    num_recoveries: int = 0
    last_recovery_s: float | None = None
    """From noticing a loss to the next applied step."""
    last_checkpoint: str = ""
    last_checkpoint_at_s: float = 0.0
    """Wall time."""
    members: tuple[Member, ...] = ()
    metrics_port: int = 0
    """Port of this job's /metrics on the coordinator's host; 0 before there is one."""
    updated_at_s: float = 0.0
    """Wall time at which the coordinator said so."""

    def to_dict(self) -> dict[str, Any]:
        """The status as plain values, nested ones too: what JSON and protobuf are made of."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> JobStatus:
        """The status that `to_dict` wrote; keys of other versions are left out."""
        known = {item.name: value[item.name] for item in fields(cls) if item.name in value}
        known["partitions"] = tuple(PartitionStatus(**item) for item in known.get("partitions", ()))
        known["waits_for"] = tuple(known.get("waits_for", ()))
        known["members"] = tuple(Member(**item) for item in known.get("members", ()))
        return cls(**known)


class Outcome(StrEnum):
    """How an incarnation of a coordinator came to its end, if it has."""

    NONE = "none"
    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    BLOCKED = "blocked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something worth a line in the job's history."""

    at_s: float
    """Wall time."""
    kind: str
    """A short word: generation, recovery, checkpoint, member, blocked, state."""
    message: str
    """One sentence that a person can act on."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """A line of a job's history, numbered from 1 within the job, without gaps."""

    number: int
    happening: Happening


@dataclass(frozen=True, slots=True)
class Observation:
    """What a coordinator says when it is asked.

    `happenings` are those after the cursor that the asker gave; `cursor` is what to give next time.
    """

    is_alive: bool
    phase: str = ""
    """starting | running | recovering"""
    outcome: Outcome = Outcome.NONE
    reason: str = ""
    """A word in capitals for BLOCKED and FAILED, as DATA_LOSS."""
    message: str = ""
    status: JobStatus | None = None
    happenings: tuple[Happening, ...] = ()
    cursor: int = 0
