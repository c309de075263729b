"""Bounds: where a job starts and ends in every partition, from what its spec says and what the log holds now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

from dtrain.errors import InputError
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.log import Bounds

OffsetsAt = Callable[[int], Mapping[Partition, int | None]]
Named = Mapping[int, int] | Mapping[str, Mapping[int, int]]
"""Offsets by partition, or by topic and partition."""


def starts(
    start: Literal["earliest", "latest"] | datetime | Named,
    *,
    bounds: Mapping[Partition, Bounds],
    offsets_at: OffsetsAt,
) -> dict[Partition, Position]:
    """Where every partition starts for the spec's `start`.

    Raises:
        InputError: an offset is out of range, or the partitions are not those of the topic; names `source.start`.
    """
    if start == "earliest":
        return {partition: Position(bound.begin) for partition, bound in bounds.items()}
    found = _resolved(start, bounds, offsets_at, field="source.start")
    for partition, (begin, end) in bounds.items():
        if not begin <= found[partition].offset <= end:
            held = (
                f"offset {found[partition].offset} of partition {partition.number} is outside of what {partition.topic} holds"
            )
            raise InputError(f"`source.start`: {held}", fix=f"write one from {begin} to {end}")
    return found


def ends(
    end: Literal["never", "latest"] | datetime | Named,
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
    if isinstance(end, datetime) and end.timestamp() > now_s:
        words = f"`source.end`: {end.isoformat()} is in the future, so nobody knows its offsets yet"
        raise InputError(words, fix="write a time in the past, offsets, or never")
    return _resolved(end, bounds, offsets_at, field="source.end")


def _resolved(
    where: str | datetime | Named, bounds: Mapping[Partition, Bounds], offsets_at: OffsetsAt, *, field: str
) -> dict[Partition, Position]:
    """The offsets that are named; or the first records at or behind a time; where there are none, or for `latest`, the end."""
    if isinstance(where, Mapping):
        return {partition: Position(offset) for partition, offset in _named(where, bounds, field=field).items()}
    found = offsets_at(round(where.timestamp() * 1000)) if isinstance(where, datetime) else {}
    return {
        partition: Position(end if (offset := found.get(partition)) is None else min(max(offset, begin), end))
        for partition, (begin, end) in bounds.items()
    }


def _named(where: Named, bounds: Mapping[Partition, Bounds], *, field: str) -> dict[Partition, int]:
    """The offsets that `where` gives, if they are those of all partitions and of no others."""
    topics = sorted({partition.topic for partition in bounds})
    offsets: dict[Partition, int] = {}
    for key, value in where.items():
        if isinstance(value, Mapping):
            offsets.update({Partition(str(key), number): offset for number, offset in value.items()})
        elif len(topics) == 1:
            offsets[Partition(topics[0], int(key))] = value
        else:
            raise InputError(
                f"`{field}`: {len(topics)} topics are read", fix=f"give offsets by topic: {{{topics[0]}: {{0: 1200}}}}"
            )
    if wrong := sorted(set(bounds) ^ set(offsets)):
        what = "is not read" if wrong[0] in offsets else "is not named"
        numbers = sorted(partition.number for partition in bounds if partition.topic == wrong[0].topic)
        fix = f"give one offset for each of the partitions {', '.join(map(str, numbers))}" if numbers else "leave it out"
        raise InputError(f"`{field}`: partition {wrong[0].number} of {wrong[0].topic} {what}", fix=fix)
    return offsets
