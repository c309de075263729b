"""What the actors of a job say to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dtrain.checkpoint.manifest import Blob
from dtrain.errors import DtrainError
from dtrain.policy.cutting import Piece
from dtrain.policy.election import Standing
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.entries import Plan
from dtrain.steplog.positions import Mark, Partition, Position
from dtrain.steplog.progress import Progress


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a trainer says of itself when it is ready: its task was built.

    Args:
        pid: its process.
        node: its host's address.
        schema: the task's columns.
        placement_group: that it takes a seat in, as hex digits.
        store: (address, port) at which it hosts the store of a group, when it is the source of one.
        code_sha256: digest of the user's code, and of the lock of its packages, before any of it was imported.
    """

    pid: int
    node: str
    schema: Mapping[str, Any]
    placement_group: str
    store: tuple[str, int]
    code_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a member says when it is asked where it stands; its old generation is over then.

    Args:
        standing: what elections are decided by.
        progress: of its replica.
        error: what had ended its generation, if that was not the loss of another member.
    """

    standing: Standing
    progress: Progress
    error: DtrainError | None = None


@dataclass(frozen=True, slots=True)
class Beginning:
    """What the reader finds out once, for checkpoint 0."""

    identity: Mapping[str, Any]
    positions: Mapping[Partition, Position]
    ends: Mapping[Partition, Position] | None


@dataclass(frozen=True, slots=True)
class Following:
    """From where to where the reader reads, and what it checks first.

    Args:
        epoch: grows with each; blocks of older ones are not wanted any more.
        positions: the first coordinates.
        ends: where partitions end; None for never.
        schema: the task's columns.
        identity: which topic it must be.
        marks: the last records that came.
        code_sha256: digest of the user's code, and of the lock of its packages, that rows are to be decoded by.
    """

    epoch: int
    positions: Mapping[Partition, Position]
    ends: Mapping[Partition, Position] | None
    schema: Mapping[str, Any]
    identity: Mapping[str, Any]
    marks: Mapping[Partition, Mark]
    code_sha256: str = ""


@dataclass(frozen=True, slots=True)
class ReadReport:
    """Descriptors of the blocks that a call brings, none when nothing came; their rows travel beside it, as one object.

    Args:
        blocks: per partition in order, each from where the one before ended.
        end_offsets: of the reader's partitions, those that are not what the report before said.
        cpu_s: processor time that the reader has used in all, in seconds.
        news: what a person should know of the source.
    """

    blocks: Sequence[BlockMeta] = ()
    end_offsets: Mapping[Partition, int] = field(default_factory=dict)
    cpu_s: float = 0.0
    news: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """A trainer's place in a generation, and where its state comes from.

    Args:
        attempt: whose generation.
        generation: its number within the attempt.
        member: the trainer's number within the incarnation.
        rank: of this trainer.
        shares: slices of each rank; its length is the world size.
        store: (address, port) of the member that hosts the group's store.
        backend: gloo or nccl.
        plan_number: where the generation begins.
        source: rank whose state it is; -1 where it is a checkpoint's.
        behind: ranks that receive it; the others have it.
        is_careful: the lowest rank reports every step: somebody died lately, and the next death must be found in its step.
        checkpoint: what a generation without a source loads: tensors and progress.
    """

    attempt: int
    generation: int
    member: int
    rank: int
    shares: tuple[int, ...]
    store: tuple[str, int]
    backend: str
    plan_number: int
    source: int = -1
    behind: tuple[int, ...] = ()
    is_careful: bool = False
    checkpoint: tuple[Blob, Progress] | None = None

    @property
    def key(self) -> tuple[int, int]:
        """(attempt, generation): what every message of a member carries."""
        return self.attempt, self.generation

    @property
    def prefix(self) -> str:
        """Of the group's keys in its store: no two generations share one."""
        return f"a{self.attempt}-g{self.generation}"


@dataclass(frozen=True, slots=True)
class IssuedPlan:
    """A plan with what a trainer needs to stage it.

    Args:
        plan: what to do.
        pieces: (parcel id, first row, row behind the last), in the order taken; of the whole span, where the plan is a part of one.
        newest_ms: newest Kafka timestamp among its rows; 0 for one that cannot be told.
        exhausted: parcels that no later plan needs.
        held_out: as `pieces`, the rows that are scored and not trained.
    """

    plan: Plan
    pieces: Sequence[Piece] = ()
    newest_ms: int = 0
    exhausted: Sequence[int] = ()
    held_out: Sequence[Piece] = ()


@dataclass(frozen=True, slots=True)
class PlanBatch:
    """Coming plans, in order, and the parcels that this trainer has not been told of yet.

    Args:
        is_over: the generation has ended; nothing more will come.
        sealed: the newest durable checkpoint, if this trainer has had its plan and has not heard of it in this generation.
        plans: consecutive.
        parcels: parcel id → reference to its rows.
    """

    is_over: bool = False
    sealed: Progress | None = None
    plans: Sequence[IssuedPlan] = ()
    parcels: Mapping[int, Any] = field(default_factory=dict)
