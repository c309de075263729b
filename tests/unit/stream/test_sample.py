"""Samples of a log, and the lag behind positions in it, on the twin."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dtrain.clock import SystemClock
from dtrain.data.block import RawRecord
from dtrain.spec.job import SourceSpec
from dtrain.steplog.positions import Partition, Position
from dtrain.stream.lag import SAMPLE, Lag, lags
from dtrain.stream.memory import MemoryLog, MemoryTopic
from dtrain.stream.sample import first_from, newest
from tests.support.messages import arrow, json_object


class Clock(SystemClock):
    """It is 100 seconds since 1970."""

    def wall_s(self) -> float:
        return 100.0


def log_of(*values: Sequence[bytes], gap: int = 0) -> MemoryLog:
    """A partition for each list of values; the record at offset i is of second i."""
    topic = MemoryTopic("t", partitions=len(values))
    for partition, some in enumerate(values):
        for value in some:
            end = topic.bounds[Partition("t", partition)].end
            topic.append(value, partition=partition, timestamp_ms=(end + gap) * 1000, gap=gap)
    return MemoryLog(SourceSpec(topic="t", bootstrap="memory:1"), {"t": topic})


def offsets(found: dict[Partition, list[RawRecord]]) -> list[list[int]]:
    return [[record.offset for record in records] for _, records in sorted(found.items())]


def test_newest_are_spread_over_the_partitions_that_hold_something() -> None:
    log = log_of([b"{}"] * 10, [], [b"{}"] * 2)
    assert offsets(newest(log, log.bounds(), num_records=6, clock=SystemClock())) == [[7, 8, 9], [], [0, 1]]


def test_newest_of_an_empty_topic_are_none_at_once() -> None:
    log = log_of([], [])
    assert offsets(newest(log, log.bounds(), num_records=6, clock=SystemClock())) == [[], []]


def test_newest_where_offsets_have_gaps_are_fewer() -> None:
    log = log_of([b"{}"] * 10, gap=3)
    assert offsets(newest(log, log.bounds(), num_records=8, clock=SystemClock())) == [[35, 39]]


def test_first_from_an_offset_that_retention_took_is_nothing() -> None:
    log = log_of([b"{}"] * 3)
    bounds = log.bounds()
    log._topics["t"].delete_before(2)
    assert offsets(first_from(log, {Partition("t", 0): 0}, bounds, num_records=2, clock=SystemClock())) == [[]]


def lag_of(log: MemoryLog, *places: tuple[int, int]) -> list[Lag]:
    positions = {Partition("t", number): Position(*place) for number, place in enumerate(places)}
    return lags(log, positions, clock=Clock())


def test_lag_is_in_offsets_rows_and_seconds_of_each_partition() -> None:
    log = log_of([arrow({"x": range(10)})] * 5, [json_object(x=1)] * 5, [])
    found = [(each.num_offsets, each.num_rows, each.age_s, each.num_lost) for each in lag_of(log, (2, 4), (5, 0), (0, 0))]
    assert found == [(3, 26, 98.0, 0), (0, 0, None, 0), (0, 0, None, 0)]


def test_lag_behind_what_retention_took_begins_with_what_is_left() -> None:
    log = log_of([arrow({"x": range(10)})] * 5)
    log._topics["t"].delete_before(3)
    (found,) = lag_of(log, (1, 4))
    assert (found.num_offsets, found.num_rows, found.num_lost) == (2, 20, 2)


def test_lag_in_rows_is_estimated_from_the_first_that_wait_gaps_included() -> None:
    (found,) = lag_of(log_of([arrow({"x": range(10)})] * (2 * SAMPLE), gap=1), (0, 0))
    assert (found.num_offsets, found.num_rows) == (4 * SAMPLE, 20 * SAMPLE)


def test_lag_of_a_partition_that_is_gone_is_left_out() -> None:
    assert [each.partition.number for each in lag_of(log_of([b"{}"]), (0, 0), (0, 0))] == [0]


@pytest.mark.parametrize("value", [b"\xff", b"", b"{}"])
def test_lag_counts_what_nobody_can_read_as_a_row(value: bytes) -> None:
    assert lag_of(log_of([value] * 3), (0, 0))[0].num_rows == 3
