"""Calls bring much with a backlog, and leave at the linger without one; all that flies and waits fits the buffer."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.policy.blocking import FULL, LINGER_S, Size, buffer_of, call_size, linger_s

SIZE = Size(rows=100, num_bytes=1000)


@pytest.mark.parametrize(("rows", "num_bytes"), [(100, 10), (10, 1000), (500, 5000)])
def test_linger_what_is_full_leaves_at_once(rows: int, num_bytes: int) -> None:
    assert linger_s(rows=rows, num_bytes=num_bytes, size=SIZE, since_first_s=0.0, since_last_s=0.0) == 0.0


def test_linger_rows_that_come_alone_leave_at_once() -> None:
    assert linger_s(rows=1, num_bytes=10, size=SIZE, since_first_s=0.0, since_last_s=1.0) == 0.0


@given(st.floats(0, 1), st.floats(0, 1))
def test_linger_nobody_waits_longer_than_the_linger(since_first_s: float, since_last_s: float) -> None:
    left_s = linger_s(rows=1, num_bytes=10, size=SIZE, since_first_s=since_first_s, since_last_s=since_last_s)
    assert 0 <= left_s <= max(0.0, LINGER_S - since_first_s)


@given(st.lists(st.floats(1e-6, 0.1), min_size=1, max_size=200))
def test_linger_calls_that_bring_something_are_at_most_100_a_second(gaps_s: list[float]) -> None:
    arrivals_s, leaves_s, now_s = [], [], 0.0
    for gap_s in gaps_s:
        now_s += gap_s
        arrivals_s.append(now_s)
    last_s = -1.0
    while arrivals_s:
        first_s = max(arrivals_s[0], last_s)
        leave_s = first_s + linger_s(rows=1, num_bytes=1, size=SIZE, since_first_s=0.0, since_last_s=first_s - last_s)
        arrivals_s = [at_s for at_s in arrivals_s if at_s > leave_s]
        leaves_s.append(leave_s)
        last_s = leave_s
    assert all(later - earlier >= LINGER_S * 0.999 for earlier, later in itertools.pairwise(leaves_s))


@given(store_bytes=st.integers(1 << 20, 1 << 40), step_rows=st.integers(1, 10**6), num_calls=st.integers(1, 256))
def test_buffer_calls_in_flight_fill_half_of_it_and_it_a_quarter_of_the_store(
    store_bytes: int, step_rows: int, num_calls: int
) -> None:
    buffer = buffer_of(step_rows=step_rows, store_bytes=store_bytes)
    size = call_size(buffer, num_calls=num_calls)
    assert buffer.num_bytes <= store_bytes // 4
    assert num_calls * size.num_bytes <= max(num_calls, buffer.num_bytes // 2)
    assert 1 <= size.rows <= FULL.rows
    assert size.num_bytes <= FULL.num_bytes


def test_buffer_holds_several_steps_of_any_size() -> None:
    for step_rows in (1, 512, 10**6):
        assert buffer_of(step_rows=step_rows, store_bytes=1 << 30).rows >= 16 * step_rows
