"""Plans are issued in one order, ahead of need, and blocks are let go when nobody needs them."""

from __future__ import annotations

from array import array

import pytest

from dtrain.errors import BadRecordError
from dtrain.policy.cutting import Cutter
from dtrain.runtime.planner import MAX_AHEAD, Planner
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.entries import StepKind
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import Reject

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
    planner = Planner(cutter, progress=Progress(positions=positions), budget=budget, buffer_rows=100)
    planner.form(world_size, plan_number=0)
    return planner


def test_pull_every_rank_gets_every_plan_and_each_block_once() -> None:
    planner = _planner(rows=4)  # two plans, and two rows left
    planner.add_block(_block(0), "rows", now_s=0.0)
    planner.cut(now_s=0.0)
    for rank in range(2):
        batch = planner.pull(rank, after=0)
        assert batch is not None
        assert [item.plan.number for item in batch.plans] == [1, 2]
        assert batch.blocks == {1: "rows"}
        again = planner.pull(rank, after=1)
        assert again is not None
        assert again.blocks == {}


def test_blocks_are_kept_until_every_rank_has_staged_them() -> None:
    planner = _planner()
    planner.add_block(_block(0), "rows", now_s=0.0)
    planner.cut(now_s=0.0)
    planner.pull(0, after=2)
    planner.reported(2, [0.01])
    assert planner.pull(1, after=0) is not None
    planner.pull(1, after=2)
    planner.reported(2, [0.01])
    assert planner._blocks == {}
    assert not planner._issued


def test_cut_stops_ahead_of_the_slowest_rank() -> None:
    planner = _planner(rows=1)
    for first in range(0, 1000, 10):
        planner.add_block(_block(first), first, now_s=0.0)
    planner.reported(0, [1e-6] * 9)
    planner.cut(now_s=0.0)
    assert planner.plan_number <= MAX_AHEAD
    issued = planner.plan_number
    planner.pull(0, after=issued)
    planner.cut(now_s=0.0)
    assert planner.plan_number == issued


def test_barrier_lets_nothing_follow_until_the_next_generation() -> None:
    planner = _planner()
    planner.add_block(_block(0), "rows", now_s=0.0)
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
    planner.add_block(_block(0, rejects=(Reject(2, 0, "not JSON"),)), "rows", now_s=0.0)
    if is_borne:
        assert planner.cut(now_s=0.0)
    else:
        with pytest.raises(BadRecordError, match="topic:0:2:0: not JSON"):
            planner.cut(now_s=0.0)
