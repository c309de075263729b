"""Row ranges: which rows of which partition a step takes, and what became of the rows that it does not train."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dtrain.errors import InternalError
from dtrain.steplog.fates import NONE_LEFT_OUT, LeftOut
from dtrain.steplog.positions import Partition, Position, Positions


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that could not be decoded, by coordinate and reason.

    `row` 0 with an undecodable record stands for the whole record, which counts as one raw row.
    """

    offset: int
    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class RowRange:
    """The raw rows [start, end) of one partition.

    Args:
        partition: whose rows.
        start: the first coordinate.
        end: the coordinate behind the last; never before `start`.
        num_rows: rows of the range that are trained; raw rows less the rejects and those left out on purpose.
        rejects: the bad ones.
        last_offset: offset of the last record that the range touches; -1 when it touches none.
        last_crc: CRC-32C of that record's key and value.
        left_out: how many were left out on purpose.
    """

    partition: Partition
    start: Position
    end: Position
    num_rows: int
    rejects: tuple[Reject, ...] = ()
    last_offset: int = -1
    last_crc: int = 0
    left_out: LeftOut = NONE_LEFT_OUT

    def to_json(self) -> list[Any]:
        """The range as a compact JSON list; it ends with the counts of what was left out, where there is such."""
        rejects = [[r.offset, r.row, r.reason] for r in self.rejects]
        left_out = self.left_out if any(self.left_out) else ()
        return [str(self.partition), *self.start, *self.end, self.num_rows, self.last_offset, self.last_crc, rejects, *left_out]

    @classmethod
    def from_json(cls, value: list[Any]) -> RowRange:
        """The range that `to_json` wrote."""
        name, o1, r1, o2, r2, num_rows, last_offset, last_crc, rejects, *left_out = value
        return cls(
            partition=Partition.parse(name),
            start=Position(o1, r1),
            end=Position(o2, r2),
            num_rows=num_rows,
            rejects=tuple(Reject(*reject) for reject in rejects),
            last_offset=last_offset,
            last_crc=last_crc,
            left_out=LeftOut(*left_out),
        )


def in_words(ranges: Iterable[RowRange]) -> str:
    """The ranges as a person is told of them."""
    return ", ".join(f"{r.partition} from {tuple(r.start)} to {tuple(r.end)}" for r in ranges)


def advance(positions: Positions, ranges: Iterable[RowRange]) -> dict[Partition, Position]:
    """Positions after `ranges`, which must start exactly where `positions` stand (invariant 2).

    Raises:
        InternalError: a range starts elsewhere: rows would be lost or trained twice. Nothing was changed.
    """
    moved = dict(positions)
    for item in ranges:
        if moved.get(item.partition) != item.start or item.end < item.start:
            raise InternalError(
                f"{item.partition} stands at {moved.get(item.partition)}, but the step takes [{item.start}, {item.end})"
            )
        moved[item.partition] = item.end
    return moved
