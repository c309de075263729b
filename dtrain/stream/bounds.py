"""Bounds: where a job starts and ends in every partition, from what its spec says and what the log holds now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

from dtrain.errors import InputError
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.log import Bounds

OffsetsAt = Callable[[int], Mapping[Partition, int | None]]


def starts(
    start: Literal["earliest", "latest"] | datetime | Mapping[int, int],
    *,
    bounds: Mapping[Partition, Bounds],
    offsets_at: OffsetsAt,
) -> dict[Partition, Position]:
    """Where every partition starts for the spec's `start`.

    Raises:
        InputError: an offset is out of range, or the partitions are not those of the topic; names `source.start`.
    """
    if isinstance(start, datetime):
        return _at_time(start, bounds, offsets_at)
    if isinstance(start, Mapping):
        named = _named(start, bounds, field="source.start")
        for partition, offset in named.items():
            begin, end = bounds[partition]
            if not begin <= offset <= end:
                raise InputError(
                    f"`source.start`: offset {offset} of partition {partition.number} is outside of what the topic holds",
                    fix=f"write one from {begin} to {end}",
                )
        return {partition: Position(offset) for partition, offset in named.items()}
    return {partition: Position(bound.begin if start == "earliest" else bound.end) for partition, bound in bounds.items()}


def ends(
    end: Literal["never", "latest"] | datetime | Mapping[int, int],
    *,
    bounds: Mapping[Partition, Bounds],
    offsets_at: OffsetsAt,
    now_s: float,
) -> dict[Partition, Position] | None:
    """Where every partition ends for the spec's `end`; None for never. An offset may lie ahead of what the topic holds.

    Raises:
        InputError: the time is in the future, or the partitions are not those of the topic; names `source.end`.
    """
    if end == "never":
        return None
    if isinstance(end, datetime):
        if _ms(end) > now_s * 1000:
            raise InputError(
                f"`source.end`: {end.isoformat()} is in the future, so nobody knows its offsets yet",
                fix="write a time in the past, offsets, or never",
            )
        return _at_time(end, bounds, offsets_at)
    if isinstance(end, Mapping):
        return {partition: Position(offset) for partition, offset in _named(end, bounds, field="source.end").items()}
    return {partition: Position(bound.end) for partition, bound in bounds.items()}


def _named(offsets: Mapping[int, int], bounds: Mapping[Partition, Bounds], *, field: str) -> dict[Partition, int]:
    numbers = {partition.number for partition in bounds}
    if wrong := sorted(numbers ^ set(offsets)):
        what = "is not in the topic" if wrong[0] in offsets else "is not named"
        raise InputError(
            f"`{field}`: partition {wrong[0]} {what}",
            fix=f"give one offset for each of the partitions {', '.join(str(number) for number in sorted(numbers))}",
        )
    return {partition: offsets[partition.number] for partition in bounds}


def _at_time(time: datetime, bounds: Mapping[Partition, Bounds], offsets_at: OffsetsAt) -> dict[Partition, Position]:
    """The first records at or behind `time`; where there are none, the end."""
    found = offsets_at(_ms(time))
    return {
        partition: Position(bound.end if (offset := found.get(partition)) is None else min(max(offset, bound.begin), bound.end))
        for partition, bound in bounds.items()
    }


def _ms(time: datetime) -> int:
    """Milliseconds since 1970."""
    return round(time.timestamp() * 1000)
