from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure import STEADY, Figure, Pairs, alternate

times = st.floats(min_value=1e-3, max_value=1e3)


def figure(pairs: Pairs, *, goal: float = 1.0) -> Figure:
    return Figure.of(pairs, id="P0", figure="x_ms", peer_name="a loop", goal=goal)


def test_alternate_measures_dtrain_and_peer_in_turn() -> None:
    order: list[str] = []
    pairs = alternate(lambda: order.append("A") or 2.0, lambda: order.append("B") or 4.0, pairs=3)
    assert order == ["A", "B"] * 3
    assert pairs.ratios == [0.5] * 3


@given(st.lists(st.tuples(times, times), min_size=1, max_size=9))
def test_figure_of_any_pairs_has_its_ratio_between_the_smallest_and_the_largest(measured: list[tuple[float, float]]) -> None:
    found = figure(Pairs([ours for ours, _ in measured], [theirs for _, theirs in measured]))
    assert found.ratio_min <= found.ratio <= found.ratio_max
    assert (found.met is None) == (found.peer_spread > STEADY)


def test_figure_is_a_ratio_of_neighbours_not_of_medians() -> None:
    assert figure(Pairs([1.0, 2.0, 3.0], [1.0, 1.1, 1.2])).ratio == 2.0 / 1.1


def test_figure_meets_its_goal_from_below() -> None:
    assert figure(Pairs([1.0], [1.0]), goal=1.0).met is True
    assert figure(Pairs([1.1], [1.0]), goal=1.0).met is False


def test_figure_line_is_one_json_object_with_what_the_results_need() -> None:
    line = figure(Pairs([1.0], [2.0])).line()
    assert "\n" not in line
    assert {"id", "figure", "dtrain", "peer", "peer_name", "ratio", "goal", "met"} <= json.loads(line).keys()
