"""Slices tile a step, whatever the ranks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dtrain.policy.slices import RowSpan, even_shares, fair_shares, parts_of, slices_of, spans_of

Speeds = st.lists(st.floats(0, 100), min_size=1, max_size=14).filter(lambda speeds: sum(speeds) > 0.01)


def all_spans(shares: tuple[int, ...], *, num_rows: int, is_exact: bool) -> list[RowSpan]:
    mine = [slices_of(rank, shares=shares) for rank in range(len(shares))]
    return [s for m in mine for s in spans_of(m, num_rows=num_rows, num_slices=sum(shares), is_exact=is_exact)]


@given(st.integers(1, 14), st.integers(1, 12))
def test_even_shares_differ_by_one_at_most(world_size: int, num_slices: int) -> None:
    shares = even_shares(world_size, num_slices=num_slices)
    assert sum(shares) == num_slices
    assert max(shares) - min(shares) <= 1


@given(Speeds, st.integers(1, 64))
def test_fair_shares_follow_speed_within_one_slice(speeds: list[float], num_slices: int) -> None:
    shares = fair_shares(speeds, num_slices=num_slices)
    assert sum(shares) == num_slices
    assert all(abs(share - speed / sum(speeds) * num_slices) < 1 + 1e-6 for share, speed in zip(shares, speeds, strict=True))


@given(st.integers(1, 40), Speeds, st.integers(1, 12), st.booleans())
def test_spans_any_shares_tile_the_step(num_rows: int, speeds: list[float], num_slices: int, is_exact: bool) -> None:
    spans = all_spans(fair_shares(speeds, num_slices=num_slices), num_rows=num_rows, is_exact=is_exact)
    assert spans[0].start == 0
    assert spans[-1].stop == num_rows
    assert all(a.stop == b.start for a, b in pairwise(spans))


@given(st.integers(1, 40), Speeds, st.integers(1, 12))
def test_spans_exact_same_for_every_share(num_rows: int, speeds: list[float], num_slices: int) -> None:
    alone = all_spans((num_slices,), num_rows=num_rows, is_exact=True)
    assert all_spans(fair_shares(speeds, num_slices=num_slices), num_rows=num_rows, is_exact=True) == alone


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5)), min_size=1, max_size=6), st.data())
def test_parts_any_cut_is_that_of_the_rows_laid_out(shape: list[tuple[int, int]], data: st.DataObject) -> None:
    pieces = [(block, first, first + size) for block, (first, size) in enumerate(shape)]
    rows = [(block, row) for block, first, stop in pieces for row in range(first, stop)]
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    parts = parts_of(pieces, start=start, stop=stop)
    assert [(block, row) for block, a, b in parts for row in range(a, b)] == rows[start:stop]
