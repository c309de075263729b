"""Shares follow speed, and are changed only where that pays for its pause."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dtrain.policy.balance import PATIENCE, REST, Balance, shares_by_speed


def test_shares_a_rank_of_half_the_speed_gets_half() -> None:
    assert shares_by_speed([1.0, 1.0, 2.0], num_slices=10) == (4, 4, 2)


def test_shares_unknown_or_similar_speeds_are_equal() -> None:
    assert shares_by_speed([1.0, 0.0], num_slices=8) == (4, 4)
    assert shares_by_speed([1.0, 1.2], num_slices=8) == (4, 4)


def test_worth_it_only_when_it_stays_so() -> None:
    balance = Balance()
    looks = [balance.is_worth_it((4, 4), (1.0, 3.0)) for _ in range(PATIENCE)]
    assert looks == [False] * (PATIENCE - 1) + [True]
    assert not any(balance.is_worth_it((4, 4), (1.0, 1.0 + 2.0 * (n % 2))) for n in range(20)), "it came and went"


def test_worth_it_not_again_before_a_rest() -> None:
    balance = Balance()
    looks = [balance.is_worth_it((4, 4), (1.0, 3.0)) for _ in range(PATIENCE + REST + PATIENCE)]
    assert [index for index, found in enumerate(looks) if found] == [PATIENCE - 1, PATIENCE + REST + PATIENCE - 2]


@given(st.lists(st.floats(1e-6, 1e-3), min_size=1, max_size=6), st.integers(6, 32))
def test_worth_it_never_twice_for_the_same_speeds(row_s: list[float], num_slices: int) -> None:
    balance, shares = Balance(), shares_by_speed(row_s, num_slices=num_slices)
    assert not any(balance.is_worth_it(shares, row_s) for _ in range(3 * PATIENCE))
