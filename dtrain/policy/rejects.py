"""Rejects: how many bad records a job bears."""

from __future__ import annotations

from collections.abc import Iterable

from dtrain.errors import BadRecordError
from dtrain.steplog.ranges import RowRange
from dtrain.steplog.reasons import kind_of
from dtrain.steplog.window import RejectWindow

GRACE_ROWS = 1_000
"""The budget is a share of at least so many rows, so that one early bad record does not stop a job."""

FIRST_ROWS, FIRST_ROWS_BORNE = 10, 100
"""So many first rows of a job that are bad for one kind of reason, and not one good, say that the features or the format are those of
another stream; the second, where the budget would bear them.
"""


def check_rejects(ranges: Iterable[RowRange], *, budget: float | None, window: RejectWindow, rows_good: int) -> None:
    """Nothing happens while the bad rows of `ranges` are within the budget.

    Args:
        ranges: of the coming step.
        budget: share of the window's rows that may be bad; None for not one.
        window: before this step.
        rows_good: that were seen before this step, over the whole job: trained, left out on purpose, or waiting.

    Raises:
        BadRecordError: they are not, or no row of the job was good so far; names the first of them.
    """
    ranges = tuple(ranges)
    num_bad = sum(len(item.rejects) for item in ranges)  # there may be many, and this is asked often
    if not num_bad:
        return
    num_good = sum(item.num_rows + sum(item.left_out) for item in ranges)
    after = window.add(rows=num_good + num_bad, bad=num_bad)
    is_borne = budget is not None and after.bad <= budget * max(after.rows, GRACE_ROWS)
    has_begun_badly = not rows_good + num_good and after.bad >= (FIRST_ROWS_BORNE if is_borne else FIRST_ROWS)
    if is_borne and not has_begun_badly:
        return
    partition, reject = next((item.partition, reject) for item in ranges for reject in item.rejects)
    first = f"the first at {partition}:{reject.offset}:{reject.row}: {reject.reason}"
    kinds = {kind_of(each.reason) for item in ranges for each in item.rejects}
    if has_begun_badly and len(kinds) == 1:
        what = "see what the topic holds: `source.format`" if kinds == {"value"} else "correct the task's `features`"
        raise BadRecordError(
            f"not one of the first {after.bad} rows is what the task's features say, {first}",
            fix=f"{what}, or the producer, and submit the job anew",
        )
    if is_borne:
        return
    if budget is None:
        raise BadRecordError(
            f"{num_bad} bad record(s), {first}",
            fix="repair the producer, or set `source.on_bad_record: {send_to: TOPIC, budget: SHARE}` in a new job",
        )
    raise BadRecordError(
        f"{after.bad} of the last {after.rows} rows are bad, more than the budget of {budget:g}, {first}",
        fix="repair the producer, or submit a new job with a larger `source.on_bad_record.budget`",
    )
