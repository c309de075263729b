"""The order of a span's rows: the same for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.permutation import _GAMMA, _mix, order_of
from dtrain.steplog.spans import Part

MASK = 2**64 - 1
SEEDS = st.integers(0, 2**31 - 1)


def mix(z: int) -> int:
    """SplitMix64's finaliser in whole numbers."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def test_mix_is_that_of_splitmix64() -> None:
    """The first numbers of its reference implementation, seeded with 1234567."""
    states = (1234567 + np.arange(1, 6, dtype=np.uint64) * np.uint64(_GAMMA)).astype(np.uint64)
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert _mix(states).tolist() == known


@pytest.mark.parametrize(
    ("seed", "opened", "order"),
    [
        (0, 1, [9, 6, 3, 7, 11, 5, 1, 4, 10, 0, 2, 8]),
        (0, 2, [10, 7, 6, 5, 11, 2, 0, 3, 4, 8, 1, 9]),
        (7, 1, [10, 3, 2, 7, 1, 5, 4, 0, 8, 11, 9, 6]),
        (2**31 - 1, 123_456_789, [1, 2, 8, 0, 6, 10, 5, 7, 9, 3, 11, 4]),
    ],
)
def test_order_is_what_it_always_was(seed: int, opened: int, order: list[int]) -> None:
    assert order_of(Part(seed, opened, 12)).tolist() == order


@given(SEEDS, st.integers(1, 2**40), st.integers(1, 300))
def test_order_is_that_of_the_keys_and_holds_every_row_once(seed: int, opened: int, num_rows: int) -> None:
    start = mix(mix(seed + _GAMMA & MASK) ^ opened)
    keys = [mix(start + (row + 1) * _GAMMA & MASK) for row in range(num_rows)]
    found = order_of(Part(seed, opened, num_rows))
    assert found.tolist() == sorted(range(num_rows), key=keys.__getitem__)


@given(SEEDS, st.integers(1, 2**40), st.integers(0, 63))
def test_order_is_of_the_span_and_not_of_the_part(seed: int, opened: int, start: int) -> None:
    assert order_of(Part(seed, opened, 64, start)) is order_of(Part(seed, opened, 64))


def test_order_differs_by_seed_and_by_the_step_that_opens_the_span() -> None:
    orders = {tuple(order_of(Part(seed, opened, 50))) for seed in range(10) for opened in range(1, 11)}
    assert len(orders) == 100


def test_order_is_fair() -> None:
    """Where the rows of 2,000 spans of ten come to stand: each row at each place one time in ten, within five deviations."""
    places = np.stack([order_of(Part(3, opened, 10)) for opened in range(1, 2001)])
    counts = np.stack([np.bincount(places[:, place], minlength=10) for place in range(10)])
    assert np.abs(counts - 200).max() < 5 * np.sqrt(2000 * 0.1 * 0.9)
