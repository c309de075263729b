"""Plans are issued in one order, ahead of need, and blocks are let go when nobody needs them."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any

import pytest

from dtrain.errors import BadRecordError
from dtrain.policy.blocking import MOST_REJECTS, RECORD_BYTES, Size
from dtrain.policy.cutting import Cutter
from dtrain.runtime.planner import MAX_AHEAD, Planner
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.entries import StepKind
from dtrain.steplog.fates import Fate
from dtrain.steplog.moves import Change, Move
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import Reject, RowRange
from dtrain.steplog.segments import Segment

PARTITION = Partition("topic", 0)


def _block(first: int, *, rejects: tuple[Reject, ...] = ()) -> BlockMeta:
    """Ten one-row records from offset `first` on."""
    return BlockMeta(
        partition=PARTITION,
        start=Position(first),
        end=Position(first + 10),
        offsets=array("q", range(first, first + 10)),
        raw_rows=array("q", [1] * 10),
        crcs=array("q", [0] * 10),
        rejects=rejects,
    )


def _planner(*, world_size: int = 2, rows: int = 5, budget: float | None = None) -> Planner:
    positions = {PARTITION: Position(0)}
    cutter = Cutter(positions=positions, ends=None, rows=rows, max_wait_s=1.0, is_strict=False, step=0)
    planner = Planner(cutter, progress=Progress(positions=positions), budget=budget, buffer=Size(100, 1 << 20))
    planner.form(world_size, plan_number=0)
    return planner


def test_pull_every_rank_gets_every_plan_and_each_block_once() -> None:
    planner = _planner(rows=4)  # two plans, and two rows left
    planner.add_blocks([_block(0)], "rows", now_s=0.0)
    planner.cut(now_s=0.0)
    for rank in range(2):
        batch = planner.pull(rank, after=0)
        assert batch is not None
        assert [item.plan.number for item in batch.plans] == [1, 2]
        assert batch.parcels == {1: "rows"}
        again = planner.pull(rank, after=1)
        assert again is not None
        assert again.parcels == {}


def test_blocks_are_kept_while_a_member_may_need_their_rows_again() -> None:
    planner = _planner()
    planner.add_blocks([_block(0)], "first", now_s=0.0)
    planner.add_blocks([_block(10)], "second", now_s=0.0)
    planner.cut(now_s=0.0)
    planner.pull(0, after=4)
    planner.reported(4, [0.01])
    assert {n: parcel.rows for n, parcel in planner._parcels.items()} == {1: "first", 2: "second"}, "rank 1 has staged nothing"
    planner.pull(1, after=4)
    planner.reported(4, [0.01])
    assert {n: parcel.rows for n, parcel in planner._parcels.items()} == {2: "second"}, (
        "rank 1 may stand at step 3: whoever reports 4 proves no more"
    )
    planner.form(1, plan_number=3)
    batch = planner.pull(0, after=3)
    assert batch is not None
    assert ([item.plan.number for item in batch.plans], batch.parcels) == ([4], {2: "second"})


def test_held_out_rows_of_a_parcel_are_placed_behind_the_good_ones_of_their_block_and_hold_it_until_they_are_scored() -> None:
    planner = _planner(world_size=1, rows=3)
    trained, held_out = Fate.TRAINED, Fate.HELD_OUT
    one = replace(_block(0), fates=bytes([held_out, trained, trained, trained, *[Fate.FILTERED] * 5, held_out]))
    two = replace(_block(10), fates=bytes([held_out, *[trained] * 9]))
    planner.add_blocks([one, two], "rows", now_s=0.0)  # rows 0 to 2 and 5 to 13 are good; 3, 4 and 14 are held out
    planner.cut(now_s=0.0)
    batch = planner.pull(0, after=0)
    assert batch is not None
    steps = [(item.pieces, item.held_out, item.exhausted) for item in planner._issued]
    assert [pieces for pieces, _, _ in steps] == [((1, 0, 3),), ((1, 5, 8),), ((1, 8, 11),), ((1, 11, 14),)]
    assert [pieces for _, pieces, _ in steps] == [((1, 3, 4),), ((1, 4, 5), (1, 14, 15)), (), ()]
    assert [parcels for _, _, parcels in steps] == [(), (), (), (1,)]


def test_held_out_rows_that_no_step_takes_are_let_go_by_the_next_checkpoint() -> None:
    planner = _planner(world_size=1)
    planner.add_blocks([replace(_block(0), fates=bytes([Fate.HELD_OUT] * 10))], "rows", now_s=0.0)
    assert not planner.cut(now_s=0.0)
    planner.checkpoint(is_barrier=False)
    (issued,) = planner._issued
    assert (issued.plan.ranges[0].left_out.held_out, issued.held_out, issued.exhausted) == (10, (), (1,))


def test_sealed_segments_are_told_again_to_a_new_generation_that_may_not_know_them() -> None:
    planner = _planner()
    planner.add_blocks([_block(0)], "rows", now_s=0.0)
    planner.cut(now_s=0.0)
    durable = Progress(plan_number=1, segments=(Segment("digest", 1, 1, 10),))
    planner.seal(durable)
    told = planner.pull(0, after=1)
    assert told is not None
    assert told.sealed == durable
    planner.form(2, plan_number=1)
    for rank in range(2):
        batch = planner.pull(rank, after=1)
        assert batch is not None
        assert batch.sealed == durable


def test_membership_is_a_barrier_that_a_reformed_group_still_comes_to() -> None:
    planner = _planner()
    planner.add_blocks([_block(0)], "rows", now_s=0.0)
    planner.cut(now_s=0.0)
    planner.membership()
    number = planner.plan_number
    planner.form(1, plan_number=number - 1)
    assert planner.is_barred
    planner.form(2, plan_number=number)
    assert not planner.is_barred


def test_careful_issues_a_step_when_the_one_before_it_was_reported() -> None:
    planner = _planner(world_size=1, rows=1)
    planner.add_blocks([_block(0)], "rows", now_s=0.0)
    planner.is_careful = True
    planner.form(1, plan_number=0)
    for number in (1, 2):
        planner.cut(now_s=0.0)
        planner.pull(0, after=number)  # a puller asks for more as soon as it has something
        assert not planner.cut(now_s=0.0)
        assert [item.start.offset for item in planner.at_risk(None).ranges] == [number - 1]
        planner.reported(number, [0.01])
    planner.cut(now_s=0.0)
    planner.form(1, plan_number=3)  # its members have applied what nobody reported
    assert planner.cut(now_s=0.0)


def test_lift_of_a_checkpoint_leaves_the_membership_step_behind_it_a_barrier() -> None:
    planner = _planner()
    planner.add_blocks([_block(0)], "rows", now_s=0.0)
    number = planner.checkpoint(is_barrier=True)
    planner.membership()
    planner.lift(number)
    assert not planner.cut(now_s=0.0)
    planner.lift(planner.plan_number)
    assert planner.cut(now_s=0.0)


def test_cut_stops_ahead_of_the_slowest_rank() -> None:
    planner = _planner(rows=1)
    for first in range(0, 1000, 10):
        planner.add_blocks([_block(first)], first, now_s=0.0)
    planner.reported(0, [1e-6] * 9)
    planner.cut(now_s=0.0)
    assert planner.plan_number <= MAX_AHEAD
    issued = planner.plan_number
    planner.pull(0, after=issued)
    planner.cut(now_s=0.0)
    assert planner.plan_number == issued


def test_barrier_lets_nothing_follow_until_the_next_generation() -> None:
    planner = _planner()
    planner.add_blocks([_block(0)], "rows", now_s=0.0)
    number = planner.checkpoint(is_barrier=True)
    assert not planner.cut(now_s=0.0)
    planner.form(3, plan_number=number)
    assert planner.cut(now_s=0.0)
    batch = planner.pull(2, after=number)
    assert batch is not None
    assert batch.plans[0].plan.kind is StepKind.DATA


@pytest.mark.parametrize(("budget", "is_borne"), [(None, False), (0.0005, False), (0.01, True)])
def test_cut_bad_rows_beyond_the_budget_stop_the_job(budget: float | None, is_borne: bool) -> None:
    planner = _planner(budget=budget)
    planner.add_blocks([_block(0, rejects=(Reject(2, 0, "not JSON"),))], "rows", now_s=0.0)
    if is_borne:
        assert planner.cut(now_s=0.0)
    else:
        with pytest.raises(BadRecordError, match="topic:0:2:0: not JSON"):
            planner.cut(now_s=0.0)


OTHER = Partition("topic", 1)


def _two_partitions(*, rows: int) -> Planner:
    positions = {PARTITION: Position(0), OTHER: Position(0)}
    cutter = Cutter(positions=positions, ends=None, rows=rows, max_wait_s=1.0, is_strict=False, step=0)
    planner = Planner(cutter, progress=Progress(positions=positions), budget=None, buffer=Size(100, 1 << 20))
    planner.form(1, plan_number=0)
    return planner


def test_parcel_blocks_that_came_together_are_rows_of_one_object_until_the_last_of_them_is_cut() -> None:
    planner = _two_partitions(rows=8)
    planner.add_blocks([_block(0), replace(_block(0), partition=OTHER)], "both", now_s=0.0)
    planner.cut(now_s=0.0)
    planner.cut(now_s=2.0)  # what is left is late
    batch = planner.pull(0, after=0)
    assert batch is not None
    assert batch.parcels == {1: "both"}
    assert [list(item.pieces) for item in batch.plans] == [[(1, 0, 8)], [(1, 8, 16)], [(1, 16, 20)]], "neighbours are one piece"
    assert [list(item.exhausted) for item in batch.plans] == [[], [], [1]]


def test_wants_blocks_until_bytes_or_rows_fill_the_buffer() -> None:
    planner = _planner(rows=5)
    planner.buffer = Size(rows=1000, num_bytes=2 * 10 * (RECORD_BYTES + 1))
    assert planner.wants_blocks
    planner.add_blocks([replace(_block(0), num_bytes=10)], "rows", now_s=0.0)
    assert not planner.wants_blocks, "half of the buffer is for what is on its way"
    planner.buffer = Size(rows=11, num_bytes=1 << 20)
    assert planner.wants_blocks
    planner.add_blocks([_block(10)], "rows", now_s=0.0)
    assert not planner.wants_blocks


def test_wants_blocks_beyond_the_bytes_where_a_step_needs_them() -> None:
    planner = _planner(rows=50)
    planner.buffer = Size(rows=1000, num_bytes=1)
    for first in range(0, 50, 10):
        assert planner.wants_blocks
        planner.add_blocks([_block(first)], "rows", now_s=0.0)
    assert not planner.wants_blocks


def test_wants_blocks_again_when_rows_were_trained() -> None:
    planner = _planner(rows=10, world_size=1)
    planner.buffer = Size(rows=1000, num_bytes=3 * 10 * RECORD_BYTES)
    for first in range(0, 30, 10):
        planner.add_blocks([_block(first)], "rows", now_s=0.0)
    planner.cut(now_s=0.0)
    assert not planner.wants_blocks
    planner.pull(0, after=3)
    planner.reported(3, [0.01])
    assert planner.wants_blocks


def test_wants_no_blocks_while_a_step_has_to_carry_bad_rows_first() -> None:
    planner = _planner(budget=1.0)
    bad = tuple(Reject(offset, 0, "column 'x' is null" if offset % 2 else "bad") for offset in range(MOST_REJECTS))
    offsets = array("q", range(MOST_REJECTS))
    ones, end = array("q", [1] * MOST_REJECTS), Position(MOST_REJECTS)
    planner.add_blocks([BlockMeta(PARTITION, Position(0), end, offsets, ones, offsets, bad)], None, now_s=0.0)
    assert not planner.wants_blocks
    planner.checkpoint(is_barrier=False)
    assert planner.wants_blocks


def _shuffled(*, span_rows: int = 12, rows: int = 5, progress: Progress | None = None, **options: Any) -> Planner:
    """Of spans; of a partition of which blocks of ten rows come."""
    progress = progress or Progress(positions={PARTITION: Position(0)})
    step = progress.step + (progress.span.num_steps(rows) if progress.span else 0)
    positions = progress.positions
    cutter = Cutter(positions=positions, ends=None, rows=span_rows, max_wait_s=1.0, is_strict=False, step=step, step_rows=rows)
    planner = Planner(cutter, progress=progress, budget=1.0, buffer=Size(100, 1 << 20), shuffle_seed=3, **options)
    planner.form(1, plan_number=progress.plan_number)
    return planner


def _applied(planner: Planner, progress: Progress) -> Progress:
    for item in planner._issued:
        progress = progress.apply(item.plan) if item.plan.number > progress.plan_number else progress
    return progress


def test_parts_of_a_span_are_plans_of_the_same_pieces_and_hold_their_parcels_to_the_last() -> None:
    planner = _shuffled()
    planner.add_blocks([_block(0)], "first", now_s=0.0)
    planner.add_blocks([_block(10)], "second", now_s=0.0)
    planner.cut(now_s=0.0)
    batch = planner.pull(0, after=0)
    assert batch is not None
    assert planner.cutter.num_waiting == 8, "no other span"
    issued = list(planner._issued)
    parts = [(i.plan.part.start if i.plan.part else None, i.plan.num_rows, len(i.plan.ranges)) for i in issued]
    assert parts == [(0, 5, 1), (5, 5, 0), (10, 2, 0)]
    assert {tuple(item.pieces) for item in issued} == {((1, 0, 10), (2, 0, 2))}
    assert [item.exhausted for item in issued] == [(), (), (1,)]
    assert set(batch.parcels) == {1, 2}


@pytest.mark.parametrize("control", ["checkpoint", "move"])
def test_parcel_that_an_open_span_needs_outlives_a_control_step_that_takes_the_rest_of_it(control: str) -> None:
    planner = _shuffled(span_rows=8, rows=4)
    held_out = bytes([*[Fate.TRAINED] * 8, Fate.HELD_OUT, Fate.HELD_OUT])
    planner.add_blocks([replace(_block(0), fates=held_out if control == "checkpoint" else b"")], "rows", now_s=0.0)
    planner.is_careful = True
    planner.cut(now_s=0.0)  # one part, and no more
    if control == "checkpoint":
        planner.checkpoint(is_barrier=False)
    else:
        planner.change(Change((Move(PARTITION, Position(8), Position(50), "lag"),)))
    planner.pull(0, after=planner.plan_number)
    planner.reported(planner.plan_number, [0.01])
    planner.cut(now_s=0.0)
    kinds = [(item.plan.kind, item.exhausted) for item in planner._issued]
    assert kinds == [(StepKind.DATA, ()), (StepKind(control), ()), (StepKind.DATA, (1,))]
    assert _applied(planner, Progress(positions={PARTITION: Position(0)})).span is None


def test_span_that_was_open_waits_for_its_rows_and_is_trained_before_anything_else() -> None:
    first = _shuffled()
    first.add_blocks([replace(_block(0), fates=bytes([Fate.HELD_OUT, *[Fate.TRAINED] * 9])), _block(10)], "rows", now_s=0.0)
    first.is_careful = True
    first.cut(now_s=0.0)
    progress = _applied(first, Progress(positions={PARTITION: Position(0)}))
    assert progress.span is not None
    planner = _shuffled(progress=progress)
    planner.add_blocks([replace(_block(13), end=Position(23))], "later", now_s=0.0)
    assert not planner.cut(now_s=2.0)
    assert planner.dealer.missing == progress.span.ranges
    planner.reopen("again", num_bytes=100)
    assert planner.cut(now_s=2.0)
    issued = list(planner._issued)
    assert [(item.pieces, item.exhausted) for item in issued] == [
        (((2, 0, 12),), ()),
        (((2, 0, 12),), (2,)),
        (((1, 0, 10),), ()),
        (((1, 0, 10),), (1,)),
    ]
    assert [item.plan.part.opened for item in issued if item.plan.part] == [1, 1, 4, 4]
    assert _applied(planner, progress).rows_trained == 22


def test_rows_at_risk_in_a_later_part_are_those_of_its_span() -> None:
    planner = _shuffled()
    planner.add_blocks([_block(0), _block(10)], "rows", now_s=0.0)
    planner.cut(now_s=0.0)
    ranges = planner._issued[0].plan.ranges
    for number, start in ((0, 0), (1, 5), (2, 10)):
        found = planner.at_risk(number)
        assert (found.ranges, found.part and found.part.start) == (ranges, start)
    assert planner.at_risk(None).ranges == ranges


def test_span_that_holds_a_row_to_be_skipped_is_left_out_as_a_whole() -> None:
    poison = RowRange(PARTITION, Position(11), Position(12), 1)
    planner = _shuffled(skips=[poison])
    planner.add_blocks([_block(0), _block(10), _block(20)], "rows", now_s=0.0)
    planner.cut(now_s=0.0)
    planner.pull(0, after=3)
    planner.cut(now_s=0.0)
    assert [item.plan.skipped for item in planner._issued] == ["poison"] * 3 + [""] * 3


def test_plans_that_are_left_out_let_nothing_go_because_nobody_meets_in_them() -> None:
    planner = _shuffled(skips=[RowRange(PARTITION, Position(0), Position(1), 1)])
    planner.add_blocks([_block(0), _block(10)], "rows", now_s=0.0)
    planner.cut(now_s=0.0)
    planner.pull(0, after=3)
    planner.reported(3, [0.01])
    assert planner.floor == 0


def test_wants_blocks_beyond_the_buffer_where_a_span_needs_them() -> None:
    planner = _shuffled(span_rows=50, rows=5)
    planner.buffer = Size(rows=1000, num_bytes=1)
    for first in range(0, 50, 10):
        assert planner.wants_blocks
        planner.add_blocks([_block(first)], "rows", now_s=0.0)
    assert not planner.wants_blocks
    assert planner.cut(now_s=0.0)


def _wide(
    partition: Partition, first: int, *, newest_ms: int = 0, fates: bytes = b"", rejects: tuple[Reject, ...] = ()
) -> BlockMeta:
    return replace(_block(first, rejects=rejects), partition=partition, num_bytes=10_000, newest_ms=newest_ms, fates=fates)


def _paced(*, is_strict: bool, num_bytes: int = 100_000) -> Planner:
    """Of two partitions that wait for each other."""
    positions = {PARTITION: Position(0), OTHER: Position(0)}
    align_ms = 0 if is_strict else 1_000
    cutter = Cutter(positions=positions, ends=None, rows=20, max_wait_s=1.0, is_strict=is_strict, step=0, align_ms=align_ms)
    cutter.heard({PARTITION: 10**9, OTHER: 10**9})
    planner = Planner(cutter, progress=Progress(positions=positions), budget=1.0, buffer=Size(10**6, num_bytes))
    planner.form(1, plan_number=0)
    return planner


@pytest.mark.parametrize("fates", [b"", bytes([Fate.FILTERED] * 10)], ids=["good rows", "rows that are left out"])
@pytest.mark.parametrize("is_strict", [True, False], ids=["strict", "aligned"])
def test_sated_is_whoever_has_enough_where_the_bytes_are_there_and_never_whom_a_step_needs(
    is_strict: bool, fates: bytes
) -> None:
    planner = _paced(is_strict=is_strict)
    planner.add_blocks([_wide(PARTITION, 0, newest_ms=10**6)], "rows", now_s=0.0)
    num_blocks = 1
    while PARTITION not in planner.sated and num_blocks < 1_000:
        planner.add_blocks([_wide(PARTITION, 10 * num_blocks, newest_ms=10**6, fates=fates)], "rows", now_s=0.0)
        planner.cut(now_s=0.0)
        num_blocks += 1
    assert num_blocks <= 5, "of 10 KB each, half of 100 KB"
    assert planner.wants_blocks
    assert OTHER not in planner.sated
    for first in (0, 10, 20):
        planner.add_blocks([_wide(OTHER, first, newest_ms=10**6)], "rows", now_s=0.0)
    assert planner.cut(now_s=0.0)


def test_wants_blocks_of_whom_the_others_wait_for_whatever_bad_rows_wait() -> None:
    planner = _paced(is_strict=False, num_bytes=1 << 40)
    planner.add_blocks([_wide(OTHER, 0)], "rows", now_s=0.0)
    for first in range(0, 10 * MOST_REJECTS, 10):
        rejects = tuple(Reject(first + offset, 0, "bad") for offset in range(5))
        planner.add_blocks([_wide(PARTITION, first, newest_ms=10**6, rejects=rejects)], "rows", now_s=0.0)
        if first > 3 * MOST_REJECTS:
            break
    assert planner.wants_blocks, "in aligned order nobody can carry what is too far ahead"


def test_cut_looks_at_what_has_passed_when_there_is_more_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    planner = _planner(budget=1.0)
    looks: list[int] = []
    monkeypatch.setattr("dtrain.runtime.planner.check_rejects", lambda ranges, **_: looks.append(len(ranges)))
    for first in (0, 10):
        bad = tuple(Reject(first + offset, 0, "bad") for offset in range(10))
        planner.add_blocks([_block(first, rejects=bad)], None, now_s=0.0)
        for _ in range(3):
            planner.cut(now_s=0.0)
    assert looks == [1, 1]
