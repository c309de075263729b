"""The cutter against a model that looks at every row by itself."""

from __future__ import annotations

from array import array
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.policy.cutting import Cut, Cutter
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.fates import Fate
from dtrain.steplog.moves import Move
from dtrain.steplog.positions import Mark, Partition, Position
from dtrain.steplog.ranges import Reject, RowRange, advance
from tests.support.blocks import block

Rows = list[list[Fate]]  # record → row → what becomes of it
GOOD = Fate.TRAINED


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
            for row, fate in enumerate(rows)
            if fate is Fate.REJECTED
        )
        fates = bytes(fate for rows in chunk for fate in rows)
        meta = BlockMeta(
            partition=_partition(number),
            start=start,
            end=end,
            offsets=array("q", offsets),
            raw_rows=array("q", [len(rows) for rows in chunk]),
            crcs=array("q", offsets),
            rejects=rejects,
            fates=fates if any(fate > Fate.REJECTED for fate in fates) else b"",
        )
        if chunk:
            blocks.append(meta)
        start, first = end, first + len(chunk)
    return blocks


def _cutter(
    topic: list[Rows], *, rows: int, is_strict: bool, max_wait_s: float = 1.0, first: frozenset[Partition] = frozenset()
) -> Cutter:
    positions = {_partition(n): Position(0) for n in range(len(topic))}
    ends = {_partition(n): Position(2 * len(records)) for n, records in enumerate(topic)}
    return Cutter(positions=positions, ends=ends, rows=rows, max_wait_s=max_wait_s, is_strict=is_strict, step=0, first=first)


def _drain(cutter: Cutter, blocks: list[BlockMeta], *, now_s: float = 0.0) -> list[Cut]:
    cuts = []
    for block_id, meta in enumerate(blocks):
        cutter.add(block_id, meta, now_s=now_s)
        while (cut := cutter.cut(now_s=now_s)) is not None:
            cuts.append(cut)
    return cuts


fates = st.sampled_from([GOOD, GOOD, Fate.REJECTED, Fate.FILTERED, Fate.HELD_OUT])
records = st.lists(st.lists(fates, min_size=1, max_size=4), max_size=6)
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
            assert cutter.has_read(_partition(number))
    cuts = _drain(cutter, blocks)
    positions = {_partition(n): Position(0) for n in range(len(topic))}
    ranges: list[RowRange] = []
    for cut in cuts:
        assert 1 <= cut.num_rows <= rows
        assert cut.num_rows == sum(item.num_rows for item in cut.ranges) == sum(b - a for _, a, b in cut.pieces)
        positions = advance(positions, cut.ranges)
        ranges += cut.ranges
    assert cutter.is_finished
    passed, _ = cutter.pass_over()
    ranges += passed
    positions = advance(positions, [r for r in ranges if r.num_rows == 0 and r.start == positions[r.partition]])
    for number, kept in enumerate(topic):
        mine = [item for item in ranges if item.partition == _partition(number)]
        bad = [(2 * i, row) for i, rows_ in enumerate(kept) for row, fate in enumerate(rows_) if fate is Fate.REJECTED]
        assert [(r.offset, r.row) for item in mine for r in item.rejects] == bad
        assert sum(item.num_rows for item in mine) == sum(rows_.count(GOOD) for rows_ in kept)
        assert sum(item.left_out.filtered for item in mine) == sum(rows_.count(Fate.FILTERED) for rows_ in kept)
        assert sum(item.left_out.held_out for item in mine) == sum(rows_.count(Fate.HELD_OUT) for rows_ in kept)
        assert positions[_partition(number)] == Position(2 * len(kept))


@given(topics, sizes, st.integers(1, 7), st.booleans())
def test_cutter_each_held_out_row_is_scored_in_the_step_whose_range_holds_it_and_no_block_is_let_go_before(  # type: ignore[no-untyped-def]
    topic, sizes, rows, is_strict
):
    metas = [block for n, records in enumerate(topic) for block in _blocks(n, records, sizes)]
    cutter = _cutter(topic, rows=rows, is_strict=is_strict)
    cuts = _drain(cutter, metas)
    passed, exhausted = cutter.pass_over()
    gone: set[int] = set()
    for cut in cuts:
        assert sum(b - a for _, a, b in cut.held_out) == sum(item.left_out.held_out for item in cut.ranges)
        assert all(metas[block].num_rows <= first for block, first, _ in cut.held_out)
        assert gone.isdisjoint(block for block, _, _ in (*cut.pieces, *cut.held_out))
        assert gone.isdisjoint(cut.exhausted)
        gone |= set(cut.exhausted)
    assert gone.isdisjoint(exhausted)
    pieces = [piece for cut in cuts for piece in cut.held_out]
    assert len({(block, row) for block, first, stop in pieces for row in range(first, stop)}) == sum(
        b - a for _, a, b in pieces
    )
    assert gone | set(exhausted) == {number for number, meta in enumerate(metas) if meta.num_batch_rows}
    left = sum(item.left_out.held_out for item in passed)
    assert left + sum(b - a for _, a, b in pieces) == sum(meta.num_held_out for meta in metas)


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
    cutter.add(1, _blocks(0, [[GOOD] * 3], [])[0], now_s=0.0)
    cut = cutter.cut(now_s=age_s)
    assert (cut.num_rows if cut else None) == expected


def test_cutter_strict_ended_partitions_leave_their_part_of_the_room_to_the_others() -> None:
    ends = {_partition(number): Position(0) for number in range(1, 6)} | {_partition(0): Position(1000)}
    positions = {_partition(number): Position(0) for number in range(6)}
    cutter = Cutter(positions=positions, ends=ends, rows=100, max_wait_s=1.0, is_strict=True, step=0)
    cutter.add(1, _blocks(0, [[GOOD] * 70], [])[0], now_s=0.0)
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
    cutter.add(1, _blocks(0, [[GOOD] * 4] * 10, [])[0], now_s=0.0)
    assert cutter.cut(now_s=0.0) is None
    assert cutter.has_room(16)
    assert cutter.sated(16) == {_partition(0)}
    cutter.add(2, _blocks(1, [[GOOD] * 4] * 10, [])[0], now_s=0.0)
    assert not cutter.has_room(16)
    assert cutter.cut(now_s=0.0) is not None


@given(topics, sizes, st.integers(1, 7), st.booleans(), st.randoms(use_true_random=False))
def test_cutter_first_partitions_are_cut_to_their_ends_before_others_are_begun(topic, sizes, rows, is_strict, random):  # type: ignore[no-untyped-def]
    queues = {_partition(n): _blocks(n, records, sizes) for n, records in enumerate(topic)}
    first = frozenset({_partition(0)})
    cutter = _cutter(topic, rows=rows, is_strict=is_strict, first=first)
    cuts: list[Cut] = []
    for block_id in range(sum(map(len, queues.values()))):
        held = cutter.held
        going = [partition for partition, queue in queues.items() if queue and partition not in held]
        cutter.add(block_id, queues[random.choice(going)].pop(0), now_s=0.0)
        while (cut := cutter.cut(now_s=0.0)) is not None:
            cuts.append(cut)
    assert cutter.is_finished
    stages = [{item.partition in first for item in cut.ranges} for cut in cuts]
    assert all(len(stage) == 1 for stage in stages)
    assert stages == sorted(stages, key=lambda stage: False in stage)
    assert sum(cut.num_rows for cut in cuts) == sum(record.count(GOOD) for records in topic for record in records)


@given(topics, sizes, st.integers(1, 7), st.booleans())
def test_cutter_knows_what_comes_next_and_forgets_bad_rows_once_they_are_carried(
    topic: list[Rows], sizes: list[int], rows: int, is_strict: bool
) -> None:
    cutter = _cutter(topic, rows=rows, is_strict=is_strict)
    blocks = [block for number, found in enumerate(topic) for block in _blocks(number, found, sizes)]
    for block_id, meta in enumerate(blocks):
        assert cutter.is_next(meta)
        cutter.add(block_id, meta, now_s=0.0)
        assert not cutter.is_next(meta)
        cutter.cut(now_s=0.0)
    while cutter.cut(now_s=9.0) is not None:
        pass
    cutter.pass_over()
    assert cutter.unread == frozenset()
    assert cutter._num_rejects == 0


A, B, C = (_partition(number) for number in range(3))


def _moving(*, is_strict: bool = False, align_ms: int = 0, rows: int = 4) -> Cutter:
    positions = {A: Position(0), B: Position(0)}
    return Cutter(positions=positions, ends=None, rows=rows, max_wait_s=1.0, is_strict=is_strict, step=0, align_ms=align_ms)


@pytest.mark.parametrize("is_strict", [False, True])
def test_partition_that_is_added_is_cut_like_the_others(is_strict: bool) -> None:
    cutter = _moving(is_strict=is_strict)
    assert cutter.move([Move(C, None, Position(0), "added")]) == ()
    for number, partition in enumerate((A, B, C)):
        cutter.add(number, block(partition, 0, 4), now_s=0)
    ranges = [item for _ in range(3) if (cut := cutter.cut(now_s=9)) for item in cut.ranges]
    assert advance(dict.fromkeys((A, B, C), Position(0)), ranges) == dict.fromkeys((A, B, C), Position(4))


@pytest.mark.parametrize("is_strict", [False, True])
def test_partition_that_is_moved_forgets_what_waits_of_it_and_nothing_else(is_strict: bool) -> None:
    cutter = _moving(is_strict=is_strict)
    for number, partition in enumerate((A, B, A, B)):
        cutter.add(number, block(partition, 10 * (number // 2), 10 * (number // 2) + 10), now_s=0)
    first = cutter.cut(now_s=0)
    assert first is not None
    waited = cutter.num_waiting
    of_a = 20 - sum(item.num_rows for item in first.ranges if item.partition == A)
    assert cutter.move([Move(A, cutter.positions[A], Position(50), "lag")]) == (0, 2)
    assert cutter.num_waiting == waited - of_a
    cutter.add(4, block(A, 50, 60), now_s=0)
    ranges = [item for _ in range(99) if (cut := cutter.cut(now_s=9)) for item in cut.ranges]
    assert {item.start for item in ranges if item.partition == A} & {Position(50)}
    assert max(item.end for item in ranges if item.partition == B) == Position(20) or is_strict
    assert cutter.positions[A] > Position(50)


def test_marks_are_of_the_last_records_that_came_until_they_are_moved() -> None:
    cutter = Cutter(
        positions=dict.fromkeys((A, B), Position(10)),
        ends=None,
        rows=8,
        max_wait_s=1.0,
        is_strict=False,
        step=0,
        marks={A: Mark(9, 1), B: Mark(9, 2)},
    )
    cutter.add(0, block(A, 10, 20), now_s=0)
    cutter.add(1, block(A, 20, 20), now_s=0)  # a gap
    assert cutter.marks == {A: Mark(19, 19), B: Mark(9, 2)}
    cutter.move([Move(A, Position(10), Position(15), "truncated")])
    assert cutter.marks == {B: Mark(9, 2)}


def test_partition_that_is_gone_keeps_nobody_waiting() -> None:
    cutter = _moving(is_strict=True)
    cutter.add(0, block(A, 0, 8), now_s=0)
    assert cutter.cut(now_s=9) is None
    assert cutter.lacking == (B,)
    cutter.move([Move(B, Position(0), None, "gone")])
    assert cutter.lacking == ()
    cut = cutter.cut(now_s=9)
    assert cut is not None
    assert cut.num_rows == 4


def test_lacking_names_who_has_less_than_its_share() -> None:
    cutter = _moving(is_strict=True)
    assert cutter.lacking == ()
    cutter.add(0, block(A, 0, 8), now_s=0)
    cutter.add(1, block(B, 0, 1), now_s=0)
    assert cutter.lacking == (B,)
    cutter.add(2, block(B, 1, 8), now_s=0)
    assert cutter.lacking == ()


T0_MS = 1_700_000_000_000


def _seconds_apart(*, align_ms: int) -> Cutter:
    """A hundred records of A, a second apart, have come."""
    cutter = _moving(align_ms=align_ms, rows=1000)
    for offset in range(100):
        cutter.add(offset, block(A, offset, offset + 1, newest_ms=T0_MS + 1000 * offset), now_s=0)
    return cutter


def test_aligned_partition_waits_for_one_that_has_more() -> None:
    cutter = _seconds_apart(align_ms=10_000)
    cutter.heard({A: 100, B: 100})
    assert cutter.cut(now_s=9) is None  # B has more, and nobody knows yet how old that is
    assert (cutter.sated(10), cutter.has_room(10)) == ({A}, True)
    cutter.add(200, block(B, 0, 1, newest_ms=T0_MS + 60_000), now_s=0)
    while cutter.cut(now_s=9) is not None:
        pass
    assert cutter.positions == {A: Position(66), B: Position(1)}  # 60 s and half of what is allowed
    cutter.heard({B: 1})
    while cutter.cut(now_s=9) is not None:
        pass
    assert cutter.positions == {A: Position(100), B: Position(1)}


def test_aligned_partition_does_not_wait_for_an_idle_one() -> None:
    cutter = _seconds_apart(align_ms=10_000)
    cutter.heard({A: 100, B: 0})
    cuts = [cut for _ in range(30) if (cut := cutter.cut(now_s=9)) is not None]
    assert sum(cut.num_rows for cut in cuts) == 100


@given(st.lists(st.lists(st.integers(0, 100), max_size=12), min_size=1, max_size=4), st.integers(2, 40), st.randoms())
def test_aligned_cuts_lose_nothing_and_never_wait_for_ever(times: list[list[int]], align_ms: int, random: Random) -> None:
    """Whatever the timestamps, also those that go back."""
    positions = {_partition(number): Position(0) for number in range(len(times))}
    cutter = Cutter(positions=positions, ends=None, rows=3, max_wait_s=1.0, is_strict=False, step=0, align_ms=align_ms)
    cutter.heard({_partition(number): len(own) for number, own in enumerate(times)})
    left = [number for number, own in enumerate(times) for _ in own]
    random.shuffle(left)
    ranges: list[RowRange] = []
    for block_id, number in enumerate([*left, *[-1] * len(left)]):
        if number >= 0:
            offset = cutter.read_to[_partition(number)].offset
            cutter.add(block_id, block(_partition(number), offset, offset + 1, newest_ms=times[number][offset]), now_s=0)
        cut = cutter.cut(now_s=9)
        ranges += cut.ranges if cut else ()
    assert cutter.num_waiting == 0
    assert advance(positions, ranges) == {_partition(number): Position(len(own)) for number, own in enumerate(times)}


def test_held_out_rows_before_a_move_are_in_no_step_behind_it() -> None:
    partition = _partition(0)
    cutter = Cutter(positions={partition: Position(0)}, ends=None, rows=2, max_wait_s=1.0, is_strict=False, step=0)
    cutter.add(0, _blocks(0, [[GOOD], [GOOD], [Fate.HELD_OUT]], [3])[0], now_s=0.0)
    assert cutter.cut(now_s=0.0) is not None
    assert cutter.move([Move(partition, cutter.positions[partition], Position(50), "lag")]) == (0,)
    cutter.add(1, block(partition, 50, 52), now_s=0.0)
    cut = cutter.cut(now_s=0.0)
    assert cut is not None
    assert (cut.held_out, cut.exhausted) == ((), (1,))


@pytest.mark.parametrize("is_strict", [False, True])
def test_cutter_partition_that_comes_while_files_are_cut_waits_for_them_and_has_no_end(is_strict: bool) -> None:
    cutter = _cutter([[[GOOD]] * 4, []], rows=2, is_strict=is_strict, first=frozenset({_partition(0)}))
    cutter.move([Move(_partition(2), None, Position(0), "added")])
    assert cutter.held == {_partition(1), _partition(2)}
    files, *_ = _blocks(0, [[GOOD]] * 4, [])
    assert sum(cut.num_rows for cut in _drain(cutter, [files])) == 4
    assert cutter.held == frozenset()
    assert cutter.unread == {_partition(2)}
    assert not cutter.is_finished
