import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.errors import InternalError
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import RowRange, advance
from tests.support.steplogs import PARTITION, RANGE, chains

A = Partition("a", 0)
START = {A: Position(5, 2)}


@given(RANGE)
def test_range_read_is_what_was_written(item: RowRange) -> None:
    assert RowRange.from_json(json.loads(json.dumps(item.to_json()))) == item


@given(st.dictionaries(PARTITION, chains(), max_size=3), st.randoms())
def test_advance_over_chains_in_any_interleaving_ends_at_their_ends(
    chain_of: dict[Partition, list[Position]], rng: object
) -> None:
    left = {p: [RowRange(p, a, b, 0) for a, b in pairwise(chain)] for p, chain in chain_of.items()}
    ranges = []
    while any(left.values()):
        ranges.append(left[rng.choice([p for p in sorted(left) if left[p]])].pop(0))  # type: ignore[attr-defined]
    start = {p: chain[0] for p, chain in chain_of.items()}
    assert advance(start, ranges) == {p: chain[-1] for p, chain in chain_of.items()}
    assert start == {p: chain[0] for p, chain in chain_of.items()}


@pytest.mark.parametrize("start", [Position(5, 1), Position(5, 3), Position(4, 2), Position(6)])
def test_advance_from_elsewhere_is_refused(start: Position) -> None:
    with pytest.raises(InternalError, match="a:0"):
        advance(START, [RowRange(A, start, Position(9), 1)])


def test_advance_with_a_gap_or_an_overlap_between_ranges_is_refused() -> None:
    first = RowRange(A, Position(5, 2), Position(7), 1)
    for start in (Position(6, 5), Position(7, 1), Position(8)):
        with pytest.raises(InternalError):
            advance(START, [first, replace(first, start=start, end=Position(9))])


def test_advance_backwards_or_in_an_unknown_partition_is_refused() -> None:
    for item in (RowRange(A, Position(5, 2), Position(5, 1), 0), RowRange(Partition("a", 1), Position(5, 2), Position(9), 1)):
        with pytest.raises(InternalError):
            advance(START, [item])
