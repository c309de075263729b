"""Three deaths in the same rows are the rows' fault; three deaths are not."""

from __future__ import annotations

from dtrain.policy.poison import AtRisk, Deaths
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from dtrain.steplog.spans import OpenSpan, Part


def rows(first: int, last: int, partition: int = 0) -> tuple[RowRange, ...]:
    return (RowRange(Partition("topic", partition), Position(first), Position(last), last - first),)


def test_died_thrice_in_overlapping_rows_is_poison() -> None:
    deaths = Deaths()
    assert not deaths.died(AtRisk(rows(0, 10)), generation=(1, 1))
    assert deaths.is_careful
    assert not deaths.died(AtRisk(rows(0, 10)), generation=(1, 2))
    assert deaths.died(AtRisk(rows(5, 12)), generation=(2, 1)), "another attempt may have cut it otherwise"


def test_died_twice_in_one_generation_is_one_try() -> None:
    deaths = Deaths()
    found = [deaths.died(AtRisk(rows(0, 10)), generation=(1, n)) for n in (1, 1, 1, 2)]
    assert not any(found)


def test_died_in_rows_that_follow_each_other_is_bad_luck() -> None:
    deaths = Deaths()
    assert not any(deaths.died(AtRisk(rows(n, n + 1)), generation=(1, n)) for n in range(20))
    assert not any(deaths.died(AtRisk(rows(0, 1, partition=n)), generation=(2, n)) for n in range(20))


def test_survived_rows_are_not_to_blame() -> None:
    deaths = Deaths()
    for number in range(10):
        assert not deaths.died(AtRisk(rows(0, 10)), generation=(1, number))
        deaths.survived(Progress(positions={Partition("topic", 0): Position(9)}))
        assert deaths.is_careful, "the last of them is to come"
        deaths.survived(Progress(positions={Partition("topic", 0): Position(10)}))
    assert not deaths.is_careful


def _in_span(start: int, *, ranges: tuple[RowRange, ...], opened: int = 4) -> Progress:
    """A replica that has trained `start` of the rows of the span over `ranges`."""
    span = OpenSpan(ranges, Part(seed=0, opened=opened, span_rows=10, start=start))
    return Progress(positions={Partition("topic", 0): Position(10)}, span=span)


def test_part_of_a_span_is_to_blame_until_it_is_trained_although_positions_are_behind_it() -> None:
    deaths = Deaths()
    assert not deaths.died(AtRisk(rows(0, 10), Part(0, 4, 10, start=4)), generation=(1, 1))
    deaths.survived(_in_span(2, ranges=rows(0, 10)))
    deaths.survived(_in_span(4, ranges=rows(0, 10)))
    assert deaths.is_careful
    deaths.survived(_in_span(6, ranges=rows(0, 10)))
    assert not deaths.is_careful


def test_part_of_a_span_that_was_cut_anew_is_to_blame_until_that_is_over() -> None:
    deaths = Deaths()
    assert not deaths.died(AtRisk(rows(0, 10), Part(0, 4, 10, start=4)), generation=(1, 1))
    deaths.survived(_in_span(8, ranges=rows(5, 15)))
    deaths.survived(_in_span(8, ranges=rows(0, 10), opened=5))
    assert deaths.is_careful, "the rows may stand anywhere in it"
    deaths.survived(_in_span(2, ranges=rows(20, 30)))
    assert not deaths.is_careful


def test_died_in_three_parts_of_a_span_that_were_survived_is_bad_luck() -> None:
    deaths = Deaths()
    for start in range(0, 10, 2):
        assert not deaths.died(AtRisk(rows(0, 10), Part(0, 4, 10, start=start)), generation=(1, start))
        deaths.survived(_in_span(start + 1, ranges=rows(0, 10)))
    for number in range(2):
        assert not deaths.died(AtRisk(rows(0, 10), Part(0, 4, 10, start=9)), generation=(2, number))
    assert deaths.died(AtRisk(rows(0, 10), Part(0, 4, 10, start=9)), generation=(2, 2))
