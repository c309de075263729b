"""Slices: which rows of a step a rank computes.

Slice i of a step of n rows is rows [⌊i·n/S⌋, ⌊(i+1)·n/S⌋), whatever the number of ranks. A rank holds consecutive slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

BlockKey = TypeVar("BlockKey")


class RowSpan(NamedTuple):
    """Rows [start, stop) of a step, the first of them in slice `first_slice`."""

    first_slice: int
    start: int
    stop: int


def slice_start(index: int, *, num_rows: int, num_slices: int) -> int:
    """The first row of slice `index`; of slice `num_slices`, the row behind the last."""
    return index * num_rows // num_slices


def slices_of(rank: int, *, world_size: int, num_slices: int) -> range:
    """The slices of `rank`, as even as can be; empty when there are more ranks than slices."""
    return range(rank * num_slices // world_size, (rank + 1) * num_slices // world_size)


def spans_of(rank: int, *, world_size: int, num_rows: int, num_slices: int, is_exact: bool) -> list[RowSpan]:
    """What `rank` computes in a step of `num_rows`: its slices one by one (`exact`), or all in one batch; never an empty span."""
    mine = slices_of(rank, world_size=world_size, num_slices=num_slices)
    groups = [range(i, i + 1) for i in mine] if is_exact else [mine]
    spans = []
    for group in groups:
        start = slice_start(group.start, num_rows=num_rows, num_slices=num_slices)
        stop = slice_start(group.stop, num_rows=num_rows, num_slices=num_slices)
        if start < stop:
            spans.append(RowSpan(group.start, start, stop))
    return spans


def parts_of(pieces: Sequence[tuple[BlockKey, int, int]], *, start: int, stop: int) -> list[tuple[BlockKey, int, int]]:
    """The parts of blocks that are rows [start, stop) of the step that `pieces` (block, first row, row behind the last) make."""
    parts = []
    passed = 0
    for block, first, last in pieces:
        begin, end = max(start - passed, 0), min(stop - passed, last - first)
        if begin < end:
            parts.append((block, first + begin, first + end))
        passed += last - first
    return parts
