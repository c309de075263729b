from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dtrain.cli.sparkline import BLOCKS, sparkline


@pytest.mark.parametrize(
    ("values", "blocks"),
    [
        ([], ""),
        ([None, math.nan], "  "),
        ([5, 5, 5], "▁▁▁"),
        ([0, 7], "▁█"),
        ([0, None, 1], "▁ █"),
        ([9, 0, 1, 2, 3, 4, 5, 6, 7], BLOCKS),
    ],
)
def test_sparkline_shows_the_last_values(values: list[float | None], blocks: str) -> None:
    assert sparkline(values, width=8) == blocks


@example([1.7e308, -1.7e308], 2)  # whose difference is no number
@example([5e-324, 0.0], 2)
@given(st.lists(st.floats(allow_nan=True, allow_infinity=True) | st.none()), st.integers(1, 50))
def test_sparkline_of_anything_has_a_block_or_a_gap_a_value(values: list[float | None], width: int) -> None:
    drawn = sparkline(values, width=width)
    assert len(drawn) == min(len(values), width)
    assert set(drawn) <= {*BLOCKS, " "}
