"""Samples: some records of a topic, for people to look at. Nothing here decides what is trained."""

from __future__ import annotations

from collections.abc import Mapping

from dtrain.clock import Clock
from dtrain.data.block import RawRecord
from dtrain.steplog.positions import Partition
from dtrain.stream.log import Bounds, Log, OutOfRangeError, until

SILENCE_S = 3.0
"""How long a log may bring nothing before a sample is what has come."""


def newest(log: Log, bounds: Mapping[Partition, Bounds], *, num_records: int, clock: Clock) -> dict[Partition, list[RawRecord]]:
    """About the last `num_records` records of the partitions of `bounds` together, as many of each as there are."""
    share = -(-num_records // max(1, sum(bound.end > bound.begin for bound in bounds.values())))
    starts = {partition: max(bound.begin, bound.end - share) for partition, bound in bounds.items()}
    return first_from(log, starts, bounds, num_records=share, clock=clock)


def first_from(
    log: Log, starts: Mapping[Partition, int], bounds: Mapping[Partition, Bounds], *, num_records: int, clock: Clock
) -> dict[Partition, list[RawRecord]]:
    """Up to `num_records` records of each partition from its start on; fewer where the log ends, or falls silent."""
    found: dict[Partition, list[RawRecord]] = {partition: [] for partition in starts}
    todo = {p: offset for p, offset in starts.items() if bounds[p].begin <= offset < bounds[p].end}
    if not todo:
        return found
    tail = log.tail(todo)
    stops = {partition: bounds[partition].end for partition in todo}
    try:
        for partition, records, _ in until(tail, stops, silence_s=SILENCE_S, clock=clock):
            found[partition] += records[: num_records - len(found[partition])]
            if len(found[partition]) == num_records:
                stops.pop(partition, None)
    except OutOfRangeError:  # retention has just taken what was asked for
        return found
    finally:
        tail.close()
    return found
