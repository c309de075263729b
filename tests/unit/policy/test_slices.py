"""Slices tile a step, whatever the ranks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dtrain.policy.slices import parts_of, spans_of


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 14), st.booleans())
def test_spans_any_ranks_tile_the_step(num_rows: int, num_slices: int, world_size: int, is_exact: bool) -> None:
    spans = [
        span
        for rank in range(world_size)
        for span in spans_of(rank, world_size=world_size, num_rows=num_rows, num_slices=num_slices, is_exact=is_exact)
    ]
    assert spans[0].start == 0
    assert spans[-1].stop == num_rows
    assert all(a.stop == b.start for a, b in pairwise(spans))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 12))
def test_spans_exact_same_for_every_number_of_ranks(num_rows: int, num_slices: int, world_size: int) -> None:
    alone = spans_of(0, world_size=1, num_rows=num_rows, num_slices=num_slices, is_exact=True)
    shared = [
        span
        for rank in range(world_size)
        for span in spans_of(rank, world_size=world_size, num_rows=num_rows, num_slices=num_slices, is_exact=True)
    ]
    assert shared == alone


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=6), st.data())
def test_parts_any_cut_is_that_of_the_rows_laid_out(shape: list[tuple[int, int]], data: st.DataObject) -> None:
    pieces = [(block, first, first + size) for block, (first, size) in enumerate(shape)]
    rows = [(block, row) for block, first, stop in pieces for row in range(first, stop)]
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    parts = parts_of(pieces, start=start, stop=stop)
    assert [(block, row) for block, a, b in parts for row in range(a, b)] == rows[start:stop]
