"""The budget of bad rows: a share of the last rows, and what is said when it is spent."""

from __future__ import annotations

import pytest

from dtrain.errors import BadRecordError
from dtrain.policy.rejects import FIRST_ROWS, FIRST_ROWS_BORNE, check_rejects
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import Reject, RowRange
from dtrain.steplog.window import RejectWindow

PARTITION = Partition("t", 0)


def a_range(good: int, *reasons: str) -> RowRange:
    rejects = tuple(Reject(good + i, 0, reason) for i, reason in enumerate(reasons))
    return RowRange(PARTITION, Position(0), Position(good + len(reasons)), good, rejects=rejects)


def check(item: RowRange, *, budget: float | None = 0.01, rows: int = 0, bad: int = 0, rows_good: int | None = None) -> None:
    window = RejectWindow(100_000).add(rows=rows, bad=bad)
    check_rejects([item], budget=budget, window=window, rows_good=rows - bad if rows_good is None else rows_good)


@pytest.mark.parametrize(
    ("rows", "bad", "is_borne"), [(0, 0, True), (0, 9, True), (0, 10, False), (10_000, 99, True), (10_000, 100, False)]
)
def test_budget_is_a_share_of_the_window_from_its_thousandth_row_on(rows: int, bad: int, is_borne: bool) -> None:
    item = a_range(1, "column 'y' is null")
    if is_borne:
        check(item, rows=rows, bad=bad)
    else:
        with pytest.raises(BadRecordError, match=f"{bad + 1} of the last {rows + 2} rows are bad.*t:0:1:0: column 'y' is null"):
            check(item, rows=rows, bad=bad)


def test_without_a_budget_the_first_bad_row_stops_the_job() -> None:
    check(a_range(5), budget=None)
    with pytest.raises(BadRecordError, match=r"1 bad record.*t:0:5:0: column 'y': string is not int64"):
        check(a_range(5, "column 'y': string is not int64"), budget=None)
    with pytest.raises(BadRecordError, match="1 bad record"):
        check(a_range(0, "no value"), budget=None)


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("column 'y': string is not int64", "correct the task's `features`"),
        ("not a JSON object", "see what the topic holds: `source.format`"),
    ],
)
@pytest.mark.parametrize(("budget", "first"), [(1.0, FIRST_ROWS_BORNE), (0.009, FIRST_ROWS), (None, FIRST_ROWS)])
def test_first_rows_that_are_all_bad_alike_stop_the_job_whatever_its_budget(
    reason: str, fix: str, budget: float | None, first: int
) -> None:
    if budget == 1.0:
        check(a_range(0, *[reason] * (first - 1)), budget=budget)
    with pytest.raises(BadRecordError, match=f"not one of the first {first} rows is what.*t:0:0:0: {reason}; {fix}"):
        check(a_range(0, *[reason] * first), budget=budget)
    with pytest.raises(BadRecordError, match=f"not one of the first {first + 2} rows"):
        check(a_range(0, reason), budget=budget, rows=first + 1, bad=first + 1)


def test_first_rows_that_are_bad_for_several_reasons_or_not_all_are_a_matter_of_the_budget() -> None:
    reasons = ["column 'y' is null"] * FIRST_ROWS_BORNE
    check(a_range(1, *reasons), budget=1.0)
    check(a_range(0, *reasons), budget=1.0, rows_good=1)
    check(a_range(0, *reasons, "no value"), budget=1.0)
