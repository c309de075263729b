"""Slices: which rows of a step a rank computes.

Slice i of a step of n rows is rows [⌊i·n/S⌋, ⌊(i+1)·n/S⌋), whatever the number of ranks. A rank holds consecutive slices:
its share, which may be none.
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


def even_shares(world_size: int, *, num_slices: int) -> tuple[int, ...]:
    """How many slices each rank gets, as even as can be; none for those that are too many."""
    return tuple((rank + 1) * num_slices // world_size - rank * num_slices // world_size for rank in range(world_size))


def fair_shares(speeds: Sequence[float], *, num_slices: int) -> tuple[int, ...]:
    """How many slices each rank gets so that all are ready at about the same time.

    Source: the largest-remainder method (Hamilton's) over the speeds.

    Args:
        speeds: rows a second of each rank, > 0 for one at least; 0 for a rank that gets none.
        num_slices: of a step.
    """
    total = sum(speeds)
    quotas = [speed / total * num_slices for speed in speeds]
    shares = [int(quota) for quota in quotas]
    left = sorted(range(len(speeds)), key=lambda rank: (shares[rank] - quotas[rank], rank))
    for rank in left[: num_slices - sum(shares)]:
        shares[rank] += 1
    return tuple(shares)


def slices_of(rank: int, *, shares: Sequence[int]) -> range:
    """The slices of `rank`: consecutive; empty where its share is 0."""
    first = sum(shares[:rank])
    return range(first, first + shares[rank])


def spans_of(mine: range, *, num_rows: int, num_slices: int, is_exact: bool) -> list[RowSpan]:
    """The rows of the slices `mine` in a step of `num_rows`: slice by slice (`exact`), or all in one batch; never an empty span."""
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
