"""Progress: everything about a replica that is not a tensor, and the one function that moves it.

It moves in the same block of code as the weights (`train/replica.py`, `Replica._apply`) and is saved with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

from dtrain.errors import InternalError
from dtrain.steplog.entries import GENESIS, Entry, StepKind, extend_hash
from dtrain.steplog.fates import NONE_LEFT_OUT, LeftOut
from dtrain.steplog.moves import moved
from dtrain.steplog.positions import Mark, Partition, Position, positions_from_json, positions_to_json
from dtrain.steplog.ranges import Reject, advance
from dtrain.steplog.reasons import kind_of
from dtrain.steplog.segments import Segment
from dtrain.steplog.spans import OpenSpan, span_after
from dtrain.steplog.window import RejectWindow


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a replica stands.

    Args:
        plan_number: of the last entry, over data and control steps.
        step: data steps in the log, skipped ones included.
        positions: the next coordinate of every partition.
        log_hash: running hash over all entries since the beginning.
        rows_trained: over all data steps.
        rows_rejected: over all entries.
        rejects: the same, by the kind of reason.
        window: rows and bad rows lately.
        rows_skipped: of data steps whose rows were left out.
        left_out: rows that were not to be trained, over all entries.
        offsets_skipped: passed over because their records were lost, or were shed.
        marks: the last trained record of each partition.
        segments: names of the sealed log segments, oldest first; they end where the log tail begins.
        topics: ids of topics that came later than the job, or were made anew since.
        span: what positions have passed and the weights do not hold yet, where rows are shuffled; None between spans.
    """

    plan_number: int = 0
    step: int = 0
    positions: Mapping[Partition, Position] = field(default_factory=dict)
    log_hash: str = GENESIS
    rows_trained: int = 0
    rows_rejected: int = 0
    rejects: Mapping[str, int] = field(default_factory=dict)
    window: RejectWindow = field(default_factory=RejectWindow)
    rows_skipped: int = 0
    left_out: LeftOut = NONE_LEFT_OUT
    offsets_skipped: int = 0
    marks: Mapping[Partition, Mark] = field(default_factory=dict)
    segments: tuple[Segment, ...] = ()
    topics: Mapping[str, str] = field(default_factory=dict)
    span: OpenSpan | None = None

    @property
    def rows_sound(self) -> int:
        """Rows that could be decoded."""
        num_open = self.span.num_left if self.span is not None else 0
        return self.rows_trained + self.rows_skipped + sum(self.left_out) + num_open

    def apply(self, entry: Entry) -> Progress:
        """Progress after `entry`.

        Raises:
            InternalError: `entry` is not the next one, its ranges do not start at the positions, or it is not the next part of the
                open span. Nothing was changed.
        """
        if entry.number != self.plan_number + 1:
            raise InternalError(f"plan {entry.number} came to a replica at {self.plan_number}")
        marks = dict(self.marks)
        marks.update({r.partition: Mark(r.last_offset, r.last_crc) for r in entry.ranges if r.last_offset >= 0})
        bad = [reject for r in entry.ranges for reject in r.rejects]
        num_sound = sum(r.num_rows + sum(r.left_out) for r in entry.ranges)
        for move in entry.moves:
            marks.pop(move.partition, None)  # that record may be another one, where a topic was cut short
        return replace(
            self,
            plan_number=entry.number,
            step=self.step + (entry.kind is StepKind.DATA),
            positions=moved(advance(self.positions, entry.ranges), entry.moves),
            log_hash=extend_hash(self.log_hash, entry),
            rows_trained=self.rows_trained + (0 if entry.skipped else entry.num_rows),
            rows_skipped=self.rows_skipped + (entry.num_rows if entry.skipped else 0),
            rows_rejected=self.rows_rejected + len(bad),
            rejects=_counted(self.rejects, bad) if bad else self.rejects,
            window=self.window.add(rows=num_sound + len(bad), bad=len(bad)),
            left_out=reduce(LeftOut.plus, (r.left_out for r in entry.ranges), self.left_out),
            offsets_skipped=self.offsets_skipped + sum(move.num_offsets for move in entry.moves),
            marks=marks,
            topics={**self.topics, **dict(entry.topics)},
            span=self._span_after(entry),
        )

    def _span_after(self, entry: Entry) -> OpenSpan | None:
        if entry.kind is not StepKind.DATA:
            return self.span
        return span_after(self.span, entry.part, ranges=entry.ranges, num_rows=entry.num_rows, step=self.step + 1)

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
            "rejects": dict(self.rejects),
            "window": self.window.to_json(),
            "rows_skipped": self.rows_skipped,
            "left_out": list(self.left_out),
            "offsets_skipped": self.offsets_skipped,
            "marks": {str(p): list(self.marks[p]) for p in sorted(self.marks)},
            "segments": [segment.to_json() for segment in self.segments],
            "topics": dict(sorted(self.topics.items())),
            **({"span": self.span.to_json()} if self.span is not None else {}),
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
            rejects=value.get("rejects", {}),
            window=RejectWindow.from_json(value["window"]) if "window" in value else RejectWindow(),
            rows_skipped=value.get("rows_skipped", 0),
            left_out=LeftOut(*value.get("left_out", ())),
            offsets_skipped=value.get("offsets_skipped", 0),
            marks={Partition.parse(p): Mark(*mark) for p, mark in value["marks"].items()},
            segments=tuple(Segment.from_json(item) for item in value["segments"]),
            topics=value.get("topics", {}),
            span=OpenSpan.from_json(value["span"]) if "span" in value else None,
        )


def _counted(known: Mapping[str, int], bad: Iterable[Reject]) -> dict[str, int]:
    return dict(Counter(known) + Counter(kind_of(reject.reason) for reject in bad))
