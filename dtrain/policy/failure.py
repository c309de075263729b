"""Failure: how long to wait before a lost coordinator is started again, and when to give the job up."""

from __future__ import annotations

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
MAX_FAILURES = 10
"""Losses in a row, without a step beyond the furthest ever reached, after which a job has failed."""


def backoff_s(failures: int) -> float:
    """Seconds to wait before the start that follows `failures` losses in a row: 0, 1, 2, 4 ... 30."""
    if failures <= 0:
        return 0.0
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(failures - 1, 30))


def is_hopeless(failures: int) -> bool:
    """Whether a job that lost `failures` coordinators in a row without progress is given up."""
    return failures >= MAX_FAILURES
