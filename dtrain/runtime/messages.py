"""What the actors of a job say to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dtrain.checkpoint.manifest import Blob
from dtrain.policy.cutting import Piece
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.entries import Plan
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.segments import Segment


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a trainer says of itself when it is ready: its task was built."""

    pid: int
    node: str
    schema: Mapping[str, str]


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
        marks: the last trained records.
    """

    epoch: int
    positions: Mapping[Partition, Position]
    ends: Mapping[Partition, Position] | None
    schema: Mapping[str, str]
    identity: Mapping[str, Any]
    marks: Mapping[Partition, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ReadReport:
    """One block's descriptor, or None when nothing came; its rows travel beside it, as an object of their own."""

    epoch: int
    meta: BlockMeta | None
    end_offsets: Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class Assignment:
    """A trainer's place in a generation, and the state that it begins with.

    Args:
        attempt: whose generation.
        generation: its number within the attempt.
        rank: of this trainer.
        world_size: of the generation.
        host: address of the member that hosts the group's store.
        port: of that store.
        backend: gloo or nccl.
        blob: the checkpoint's tensors.
        progress: the checkpoint's.
    """

    attempt: int
    generation: int
    rank: int
    world_size: int
    host: str
    port: int
    backend: str
    blob: Blob
    progress: Progress

    @property
    def prefix(self) -> str:
        """Of the group's keys in its store: no two generations share one."""
        return f"a{self.attempt}-g{self.generation}"


@dataclass(frozen=True, slots=True)
class IssuedPlan:
    """A plan with what a trainer needs to stage it.

    Args:
        plan: what to do.
        pieces: (block id, first row, row behind the last), in the order taken.
        newest_ms: newest Kafka timestamp among its rows.
        exhausted: blocks that no later plan needs.
    """

    plan: Plan
    pieces: Sequence[Piece] = ()
    newest_ms: int = 0
    exhausted: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class PlanBatch:
    """Coming plans, in order, and the blocks that this trainer has not been told of yet.

    Args:
        is_over: the generation has ended; nothing more will come.
        sealed: log segments that became durable in this generation, up to the plans that this trainer has had.
        plans: consecutive.
        blocks: block id → reference to its rows.
    """

    is_over: bool = False
    sealed: Sequence[Segment] = ()
    plans: Sequence[IssuedPlan] = ()
    blocks: Mapping[int, Any] = field(default_factory=dict)
