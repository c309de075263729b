from __future__ import annotations

from itertools import pairwise

from dtrain.policy.failure import LONGEST_WAIT_S, MAX_FAILURES, backoff_s, is_hopeless


def test_backoff_doubles_from_one_second_up_to_its_bound() -> None:
    waits = [backoff_s(failures) for failures in range(1, 1_000)]
    assert waits[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert all(first <= second <= LONGEST_WAIT_S for first, second in pairwise(waits))


def test_first_start_waits_for_nothing() -> None:
    assert backoff_s(0) == 0.0


def test_job_is_given_up_after_the_last_failure_and_not_before() -> None:
    assert [is_hopeless(failures) for failures in (0, MAX_FAILURES - 1, MAX_FAILURES)] == [False, False, True]
