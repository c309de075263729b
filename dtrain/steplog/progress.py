"""Progress: everything about a replica that is not a tensor, and the one function that moves it.

It moves in the same block of code as the weights (`train/replica.py`, `Replica._apply`) and is saved with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dtrain.errors import InternalError
from dtrain.steplog.entries import GENESIS, Entry, StepKind, extend_hash
from dtrain.steplog.positions import Partition, Position, positions_from_json, positions_to_json
from dtrain.steplog.ranges import advance
from dtrain.steplog.segments import Segment


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a replica stands.

    Args:
        plan_number: of the last entry, over data and control steps.
        step: data steps applied.
        positions: the next coordinate of every partition.
        log_hash: running hash over all entries since the beginning.
        rows_trained: over all data steps.
        rows_rejected: over all entries.
        marks: partition → (offset, CRC-32) of its last trained record.
        segments: names of the sealed log segments, oldest first; they end where the log tail begins.
    """

    plan_number: int = 0
    step: int = 0
    positions: Mapping[Partition, Position] = field(default_factory=dict)
    log_hash: str = GENESIS
    rows_trained: int = 0
    rows_rejected: int = 0
    marks: Mapping[Partition, tuple[int, int]] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()

    def apply(self, entry: Entry) -> Progress:
        """Progress after `entry`.

        Raises:
            InternalError: `entry` is not the next one, or its ranges do not start at the positions. Nothing was changed.
        """
        if entry.number != self.plan_number + 1:
            raise InternalError(f"plan {entry.number} came to a replica at {self.plan_number}")
        marks = dict(self.marks)
        marks.update({r.partition: (r.last_offset, r.last_crc) for r in entry.ranges if r.last_offset >= 0})
        return replace(
            self,
            plan_number=entry.number,
            step=self.step + (entry.kind is StepKind.DATA),
            positions=advance(self.positions, entry.ranges),
            log_hash=extend_hash(self.log_hash, entry),
            rows_trained=self.rows_trained + entry.num_rows,
            rows_rejected=self.rows_rejected + sum(len(r.rejects) for r in entry.ranges),
            marks=marks,
        )

    def seal(self, segment: Segment) -> Progress:
        """The same place, with one more sealed segment.

        Raises:
            InternalError: the segment does not follow the last one.
        """
        end = self.segments[-1].last if self.segments else 0
        if segment.first != end + 1 or segment.last > self.plan_number:
            raise InternalError(f"segment {segment.first}..{segment.last} does not follow {end}")
        return replace(self, segments=(*self.segments, segment))

    def to_json(self) -> dict[str, Any]:
        """Progress as a manifest keeps it."""
        return {
            "plan_number": self.plan_number,
            "step": self.step,
            "positions": positions_to_json(self.positions),
            "log_hash": self.log_hash,
            "rows_trained": self.rows_trained,
            "rows_rejected": self.rows_rejected,
            "marks": {str(p): list(self.marks[p]) for p in sorted(self.marks)},
            "segments": [segment.to_json() for segment in self.segments],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Progress:
        """Progress as `to_json` wrote it."""
        return cls(
            plan_number=value["plan_number"],
            step=value["step"],
            positions=positions_from_json(value["positions"]),
            log_hash=value["log_hash"],
            rows_trained=value["rows_trained"],
            rows_rejected=value["rows_rejected"],
            marks={Partition.parse(p): (mark[0], mark[1]) for p, mark in value["marks"].items()},
            segments=tuple(Segment.from_json(item) for item in value["segments"]),
        )
