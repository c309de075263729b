"""Lag: how much of a log lies behind some positions, in offsets, in rows, and in seconds. For people; nothing decides by it."""

from __future__ import annotations

from dataclasses import dataclass

from dtrain.clock import Clock
from dtrain.data.guess import open_value
from dtrain.steplog.positions import Partition, Position, Positions
from dtrain.stream.log import Bounds, Log
from dtrain.stream.sample import first_from

SAMPLE = 20
"""Records of each partition from which rows a record are estimated."""


@dataclass(frozen=True, slots=True)
class Lag:
    """What of a partition is not trained.

    Args:
        partition: which.
        position: the next coordinate to train.
        bounds: what can be read.
        num_offsets: from the position to the end: at most so many records.
        num_rows: an estimate, from the first records that wait.
        age_s: now less the timestamp of the first record that waits; None where none does, or none came.
        num_lost: offsets before what can be read, which the position has not passed: retention was faster.
    """

    partition: Partition
    position: Position
    bounds: Bounds
    num_offsets: int
    num_rows: int
    age_s: float | None
    num_lost: int


def lags(log: Log, positions: Positions, *, clock: Clock) -> list[Lag]:
    """The lag of every partition, in their order; one that is not in the log any more is left out."""
    bounds = {partition: bound for partition, bound in log.bounds().items() if partition in positions}
    starts = {partition: max(positions[partition].offset, bound.begin) for partition, bound in bounds.items()}
    waiting = first_from(log, starts, bounds, num_records=SAMPLE, clock=clock)
    found = []
    for partition in sorted(bounds):
        position, bound, records = positions[partition], bounds[partition], waiting[partition]
        num_offsets = max(0, bound.end - starts[partition])
        num_lost = max(0, bound.begin - position.offset)
        num_rows = sum(max(1, open_value(record.value).num_rows) for record in records)
        span = records[-1].offset + 1 - starts[partition] if records else 1
        rows = round(num_offsets * num_rows / span) - (0 if num_lost else position.row)
        age_s = max(0.0, clock.wall_s() - records[0].timestamp_ms / 1000) if records else None
        found.append(Lag(partition, position, bound, num_offsets, max(0, rows), age_s, num_lost))
    return found
