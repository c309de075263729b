"""Moves: positions that are set otherwise than by training. Partitions come and go; what is lost or shed is passed over, by the log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dtrain.errors import InternalError
from dtrain.steplog.positions import Partition, Position, Positions


@dataclass(frozen=True, slots=True)
class Move:
    """One partition's position is set; what lies between its places is not in the weights.

    Args:
        partition: whose.
        start: where it stood; None: the job had not read it before.
        end: where it stands from now on; None: it is not read any more.
        reason: added, deleted, truncated, changed, recreated, gone or lag.
    """

    partition: Partition
    start: Position | None
    end: Position | None
    reason: str

    @property
    def num_offsets(self) -> int:
        """Offsets that are passed over: the most records that may be missing (offsets have gaps)."""
        return max(0, self.end.offset - self.start.offset) if self.start is not None and self.end is not None else 0

    def __str__(self) -> str:
        if self.start is None:
            return f"{self.partition} is read from {_place(self.end)} on"
        if self.end is None:
            return f"{self.partition} is not read any more, from {_place(self.start)} on ({self.reason})"
        return f"{self.partition} goes from {_place(self.start)} to {_place(self.end)} ({self.reason})"

    def to_json(self) -> list[Any]:
        """The move as a compact JSON list."""
        return [str(self.partition), self.start and list(self.start), self.end and list(self.end), self.reason]

    @classmethod
    def from_json(cls, value: list[Any]) -> Move:
        """The move that `to_json` wrote."""
        name, start, end, reason = value
        return cls(Partition.parse(name), Position(*start) if start else None, Position(*end) if end else None, reason)


@dataclass(frozen=True, slots=True)
class Change:
    """What is read changes, at one step of the log.

    Args:
        moves: by partition, each at most once.
        topics: (topic, id) of those that are new to the job, or were made anew; by name.
    """

    moves: tuple[Move, ...] = ()
    topics: tuple[tuple[str, str], ...] = ()


def moved(positions: Positions, moves: Iterable[Move]) -> dict[Partition, Position]:
    """Positions after `moves`, which must start exactly where `positions` stand.

    Raises:
        InternalError: a move starts elsewhere. Nothing was changed.
    """
    found = dict(positions)
    for move in moves:
        if found.get(move.partition) != move.start:
            raise InternalError(f"{move.partition} stands at {found.get(move.partition)}, but is moved from {move.start}")
        if move.end is None:
            del found[move.partition]
        else:
            found[move.partition] = move.end
    return found


def _place(position: Position | None) -> str:
    if position is None:
        return "nowhere"
    return f"offset {position.offset}" + (f", row {position.row}" if position.row else "")
