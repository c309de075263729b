"""The cutter against a model that looks at every row by itself."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.policy.cutting import Cut, Cutter
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import Reject, RowRange, advance

Rows = list[list[bool]]  # record → row → is it good


def _partition(number: int) -> Partition:
    return Partition("topic", number)


def _blocks(number: int, records: Rows, sizes: list[int]) -> list[BlockMeta]:
    """The records of a partition as blocks of `sizes` records each, offsets two apart."""
    blocks, start, first = [], Position(0), 0
    for size in [*sizes, len(records)]:
        chunk = records[first : first + size]
        offsets = [2 * (first + i) for i in range(len(chunk))]
        end = Position(2 * (first + len(chunk)))
        rejects = tuple(
            Reject(offset, row, "bad")
            for offset, rows in zip(offsets, chunk, strict=True)
            for row, good in enumerate(rows)
            if not good
        )
        meta = BlockMeta(
            partition=_partition(number),
            start=start,
            end=end,
            offsets=array("q", offsets),
            raw_rows=array("q", [len(rows) for rows in chunk]),
            crcs=array("q", offsets),
            rejects=rejects,
        )
        if chunk:
            blocks.append(meta)
        start, first = end, first + len(chunk)
    return blocks


def _cutter(topic: list[Rows], *, rows: int, is_strict: bool, max_wait_s: float = 1.0) -> Cutter:
    positions = {_partition(n): Position(0) for n in range(len(topic))}
    ends = {_partition(n): Position(2 * len(records)) for n, records in enumerate(topic)}
    return Cutter(positions=positions, ends=ends, rows=rows, max_wait_s=max_wait_s, is_strict=is_strict, step=0)


def _drain(cutter: Cutter, blocks: list[BlockMeta], *, now_s: float = 0.0) -> list[Cut]:
    cuts = []
    for block_id, meta in enumerate(blocks):
        cutter.add(block_id, meta, now_s=now_s)
        while (cut := cutter.cut(now_s=now_s)) is not None:
            cuts.append(cut)
    return cuts


records = st.lists(st.lists(st.booleans(), min_size=1, max_size=4), max_size=6)
topics = st.lists(records, min_size=1, max_size=3)
sizes = st.lists(st.integers(1, 3), max_size=4)


@given(topics, sizes, st.integers(1, 7), st.booleans(), st.randoms(use_true_random=False))
def test_cutter_any_blocks_ranges_tile_every_partition_and_hold_every_row(topic, sizes, rows, is_strict, random):  # type: ignore[no-untyped-def]
    queues = [_blocks(n, records, sizes) for n, records in enumerate(topic)]
    blocks = []
    while any(queues):
        blocks.append(random.choice([queue for queue in queues if queue]).pop(0))
    cutter = _cutter(topic, rows=rows, is_strict=is_strict)
    for number in range(len(topic)):
        if not topic[number]:
            assert cutter._is_read(_partition(number))
    cuts = _drain(cutter, blocks)
    positions = {_partition(n): Position(0) for n in range(len(topic))}
    ranges: list[RowRange] = []
    for cut in cuts:
        assert 1 <= cut.num_rows <= rows
        assert cut.num_rows == sum(item.num_rows for item in cut.ranges) == sum(b - a for _, a, b in cut.pieces)
        positions = advance(positions, cut.ranges)
        ranges += cut.ranges
    assert cutter.is_finished
    ranges += cutter.pass_over()
    positions = advance(positions, [r for r in ranges if r.num_rows == 0 and r.start == positions[r.partition]])
    for number, kept in enumerate(topic):
        mine = [item for item in ranges if item.partition == _partition(number)]
        bad = [(2 * i, row) for i, rows_ in enumerate(kept) for row, good in enumerate(rows_) if not good]
        assert [(r.offset, r.row) for item in mine for r in item.rejects] == bad
        assert sum(item.num_rows for item in mine) == sum(sum(rows_) for rows_ in kept)
        assert positions[_partition(number)] == Position(2 * len(kept))


@given(topics, sizes, sizes, st.integers(1, 7))
def test_cutter_strict_other_blocks_same_cuts(topic, sizes, other_sizes, rows):  # type: ignore[no-untyped-def]
    one = [block for n, records in enumerate(topic) for block in _blocks(n, records, sizes)]
    two = [block for n, records in reversed(list(enumerate(topic))) for block in _blocks(n, records, other_sizes)]
    cut_one = _drain(_cutter(topic, rows=rows, is_strict=True), one)
    cut_two = _drain(_cutter(topic, rows=rows, is_strict=True), two)
    assert [cut.ranges for cut in cut_one] == [cut.ranges for cut in cut_two]


@pytest.mark.parametrize(("age_s", "expected"), [(0.5, None), (1.0, 3)])
def test_cutter_arrival_short_step_only_after_max_wait(age_s, expected):  # type: ignore[no-untyped-def]
    cutter = Cutter(positions={_partition(0): Position(0)}, ends=None, rows=10, max_wait_s=1.0, is_strict=False, step=0)
    cutter.add(1, _blocks(0, [[True] * 3], [])[0], now_s=0.0)
    cut = cutter.cut(now_s=age_s)
    assert (cut.num_rows if cut else None) == expected


def test_cutter_strict_ended_partitions_leave_their_part_of_the_room_to_the_others() -> None:
    ends = {_partition(number): Position(0) for number in range(1, 6)} | {_partition(0): Position(1000)}
    positions = {_partition(number): Position(0) for number in range(6)}
    cutter = Cutter(positions=positions, ends=ends, rows=100, max_wait_s=1.0, is_strict=True, step=0)
    cutter.add(1, _blocks(0, [[True] * 70], [])[0], now_s=0.0)
    assert cutter.cut(now_s=0.0) is None
    assert cutter.sated(400) == frozenset()  # its share is a whole step by now: more of it must come


def test_cutter_strict_one_partition_silent_still_has_room_and_holds_the_others() -> None:
    cutter = Cutter(
        positions={_partition(0): Position(0), _partition(1): Position(0)},
        ends=None,
        rows=4,
        max_wait_s=1.0,
        is_strict=True,
        step=0,
    )
    cutter.add(1, _blocks(0, [[True] * 4] * 10, [])[0], now_s=0.0)
    assert cutter.cut(now_s=0.0) is None
    assert cutter.has_room(16)
    assert cutter.sated(16) == {_partition(0)}
    cutter.add(2, _blocks(1, [[True] * 4] * 10, [])[0], now_s=0.0)
    assert not cutter.has_room(16)
    assert cutter.cut(now_s=0.0) is not None
