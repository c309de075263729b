"""Rejects: how many bad records a job bears."""

from __future__ import annotations

from collections.abc import Iterable

from dtrain.errors import BadRecordError
from dtrain.steplog.ranges import RowRange

GRACE_ROWS = 1_000
"""The budget is a share of at least so many rows, so that one early bad record does not stop a job."""


def check_rejects(ranges: Iterable[RowRange], *, budget: float | None, rows_trained: int, rows_rejected: int) -> None:
    """Nothing happens while the bad rows of `ranges` are within the budget.

    Args:
        ranges: of the coming step.
        budget: share of all rows that may be bad; None for not one.
        rows_trained: before this step.
        rows_rejected: before this step.

    Raises:
        BadRecordError: they are not; names the first of them.
    """
    ranges = tuple(ranges)
    bad = [(item.partition, reject) for item in ranges for reject in item.rejects]
    if not bad:
        return
    num_bad = rows_rejected + len(bad)
    num_rows = rows_trained + num_bad + sum(item.num_rows for item in ranges)
    if budget is not None and num_bad <= budget * max(num_rows, GRACE_ROWS):
        return
    partition, reject = bad[0]
    first = f"the first at {partition}:{reject.offset}:{reject.row}: {reject.reason}"
    if budget is None:
        raise BadRecordError(
            f"{len(bad)} bad record(s), {first}",
            fix="repair the producer, or set `source.on_bad_record: {send_to: TOPIC, budget: SHARE}` in a new job",
        )
    raise BadRecordError(
        f"{num_bad} of {num_rows} rows are bad, more than the budget of {budget:g}, {first}",
        fix="repair the producer, or submit a new job with a larger `source.on_bad_record.budget`",
    )
