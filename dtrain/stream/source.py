"""Where records come from: the contract of a source."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from dtrain.data.block import Block
from dtrain.data.schema import Schema
from dtrain.steplog.positions import Partition, Position, Positions
from dtrain.steplog.ranges import RowRange


@dataclass(frozen=True, slots=True)
class Mark:
    """What the last trained record of a partition was, so that another topic of the same name is noticed."""

    offset: int
    crc: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Which topic this is.

    Args:
        topic_id: the broker's id of the topic; another after the topic was recreated.
        leader_epochs: partition → epoch of its leader, for people who look into a data loss.
    """

    topic_id: str
    leader_epochs: Mapping[Partition, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The identity as a manifest keeps it."""
        return {"topic_id": self.topic_id, "leader_epochs": {str(p): e for p, e in sorted(self.leader_epochs.items())}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Identity:
        """The identity that `to_json` wrote."""
        return cls(value["topic_id"], {Partition.parse(p): e for p, e in value["leader_epochs"].items()})


class Feed(Protocol):
    """Blocks in order, from given positions on. Not safe to call from several threads."""

    def poll(self, *, max_wait_s: float) -> Sequence[Block]:
        """The blocks that have come, or none after `max_wait_s`.

        Per partition each block starts where the one before ended, the first at the feed's positions; rows at or behind
        the partition's end are never in a block. A block may have no rows: its end has moved over gaps or bad records.

        Raises:
            DataLossError: retention has overtaken a position, or the topic is shorter than it was.
            UnavailableError: the broker has not answered for longer than the feed bears; try again with a new feed.
        """
        ...

    def hold(self, partitions: Collection[Partition]) -> None:
        """Nothing comes of `partitions`, and of them alone, until this is called again: enough of them waits elsewhere."""
        ...

    def end_offsets(self) -> Mapping[Partition, int]:
        """Per partition the newest known offset that can be read, exclusive; as of the last fetch. Does not block."""
        ...

    def close(self) -> None:
        """Free what the feed holds. May be called twice."""
        ...


class Source(Protocol):
    """A topic, read by position. No consumer group decides anything: partitions are assigned by hand."""

    def identify(self) -> Identity:
        """Which topic this is now. Raises `NotFoundError` (no such topic), `UnavailableError` (no broker)."""
        ...

    def resolve_start(self) -> dict[Partition, Position]:
        """Positions of every partition for the spec's `start`, as of now; made once, for checkpoint 0."""
        ...

    def resolve_end(self) -> dict[Partition, Position] | None:
        """Where every partition ends for the spec's `end`, as of now; None for never. Made once, for checkpoint 0."""
        ...

    def follow(
        self,
        positions: Positions,
        *,
        schema: Schema,
        ends: Positions | None,
        identity: Identity | None = None,
        marks: Mapping[Partition, Mark] | None = None,
    ) -> Feed:
        """A feed from `positions` to `ends` (None: for ever).

        Raises:
            DataLossError: the topic is not the one of `identity`, or the record at a mark is *different* from it; that it is
                *absent* is legal after retention or compaction, as long as nothing at or behind the position is gone.
        """
        ...

    def fetch(self, ranges: Sequence[RowRange], *, schema: Schema) -> list[pa.RecordBatch]:
        """The good rows of each range, one batch a range, in the same order.

        Raises:
            DataLossError: rows of a range are gone, or are others than those the range was cut from.
        """
        ...

    def send_rejects(self, ranges: Sequence[RowRange], *, to_topic: str, job_id: str) -> int:
        """Write every rejected record of `ranges` to `to_topic`, read again by offset; return how many.

        Headers: dtrain-coordinate (`topic:partition:offset:row`), dtrain-reason, dtrain-job; the key is the coordinate.

        Delivery: at least once; all are acknowledged by the broker when the call returns.
        """
        ...

    def commit(self, positions: Positions, *, group: str) -> None:
        """Give positions back as a consumer group's offsets so that lag tools work; advisory, never the truth."""
        ...

    def close(self) -> None:
        """Free what the source holds. May be called twice."""
        ...
