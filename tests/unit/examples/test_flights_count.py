from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from examples.flights.count import Count, count

TOPIC = {"t:0": {0: np.arange(0, 5), 2: np.arange(5, 9)}, "t:1": {0: np.arange(9, 12)}}  # t:0 has a gap at offset 1
ALL = [["t:0", 0, 0, 3, 0, 9, 2, 0, []], ["t:1", 0, 0, 1, 0, 3, 0, 0, []]]


def test_count_of_a_log_that_tiles_the_topic_loses_and_doubles_nothing() -> None:
    assert count(TOPIC, ALL) == Count(in_topic=12, trained=12, lost=0, doubled=0)


@given(st.integers(0, 5))
def test_count_of_a_message_cut_in_two_is_that_of_the_whole(row: int) -> None:
    cut = [["t:0", 0, 0, 0, row, row, 0, 0, []], ["t:0", 0, row, 3, 0, 9 - row, 2, 0, []], ALL[1]]
    assert count(TOPIC, cut) == count(TOPIC, ALL)


def test_count_sees_rows_that_no_range_names() -> None:
    assert count(TOPIC, [["t:0", 0, 2, 3, 0, 7, 2, 0, []], ALL[1]]) == Count(in_topic=12, trained=10, lost=2, doubled=0)


def test_count_sees_rows_that_two_ranges_name() -> None:
    assert count(TOPIC, [*ALL, ["t:0", 2, 1, 2, 3, 2, 2, 0, []]]) == Count(in_topic=12, trained=14, lost=0, doubled=2)


def test_count_takes_a_reject_for_not_trained() -> None:
    assert count(TOPIC, [["t:0", 0, 0, 3, 0, 8, 2, 0, [[2, 1, "bad"]]], ALL[1]]).lost == 1
