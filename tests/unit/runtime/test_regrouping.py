"""Generations follow one another, and what one of them had begun is not waited for in vain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dtrain.checkpoint.manifest import Snapshot
from dtrain.checkpoint.store import CheckpointStore
from dtrain.clock import SystemClock
from dtrain.policy.blocking import Size
from dtrain.policy.cutting import Cutter
from dtrain.policy.poison import Deaths
from dtrain.runtime.checkpointing import Checkpointing
from dtrain.runtime.ledger import Ledger, Origin
from dtrain.runtime.membership import Membership
from dtrain.runtime.planner import Planner
from dtrain.runtime.regrouping import MAX_FRUITLESS, Regrouping
from dtrain.runtime.tracker import Tracker
from tests.support.checkpoints import BEGIN
from tests.support.crews import LocalCrew
from tests.support.job_world import HandClock
from tests.support.memory_files import MemoryFiles
from tests.support.ranks import spec


class Scene:
    """An attempt that has begun, less the rows."""

    def __init__(self, crew: LocalCrew) -> None:
        self.crew, self.clock, self.tracker = crew, HandClock(), Tracker(SystemClock())
        store = CheckpointStore(MemoryFiles())
        ledger = Ledger.open(
            store, spec(numerics="fast"), job_id="job", incarnation=1, accept_code_change=False, clock=SystemClock()
        )
        durable = ledger.begin(Snapshot(BEGIN, store.put_blob(b"genesis"), {}), origin=Origin({}, None), schema={})
        cutter = Cutter(positions=BEGIN.positions, ends=None, rows=5, max_wait_s=1.0, is_strict=False, step=0)
        self.planner = Planner(cutter, progress=BEGIN, budget=None, buffer=Size(100, 1 << 20))
        readers: Any = None
        self.checkpoints = Checkpointing(
            ledger,
            durable=durable,
            planner=self.planner,
            readers=readers,
            tracker=self.tracker,
            clock=self.clock,
            wake=lambda: None,
            fail=pytest.fail,
            on_checkpoint=lambda _: None,
        )
        self.membership = Membership(crew, attempt=1, num_slices=4, num_spares=0, backend="gloo")
        self.regrouping = Regrouping(
            self.membership,
            crew=crew,
            deaths=Deaths(),
            tracker=self.tracker,
            clock=self.clock,
            on_plans=lambda: None,
            on_formed=lambda: None,
        )

    @classmethod
    async def begin(cls, *, trainers: int) -> Scene:
        """All trainers are members of a first generation."""
        scene = cls(LocalCrew(spec(numerics="fast"), seats=trainers, target=trainers))
        scene.crew.fill()
        await scene.crew.settle()
        answers, election = await scene.regrouping.take_over(BEGIN)
        assert await scene.regrouping.form(
            answers, election, progress=BEGIN, planner=scene.planner, checkpoints=scene.checkpoints
        )
        return scene

    def members(self) -> list[int]:
        return [member.introduction.pid for member in self.membership.members]

    def come_to_a_membership_step(self) -> None:
        """All members have applied what was issued, and stand."""
        self.planner.membership()
        for member in self.membership.members:
            self.crew.trainers[member.introduction.pid - 1].stand_at(self.planner.plan_number)
        for rank in range(len(self.membership.members)):
            self.regrouping.arrived(rank)

    async def reform(self) -> None:
        await self.regrouping.reform(self.planner, self.checkpoints)


@pytest.mark.parametrize("is_last", [False, True])
def test_reform_checkpoint_whose_writer_is_let_go_is_cut_again(is_last: bool) -> None:
    async def main() -> None:
        scene = await Scene.begin(trainers=3)
        scene.checkpoints.want()
        assert scene.checkpoints.cut_if_due(is_last=is_last)
        scene.crew.handle(1).is_leaving = True  # the lowest rank, which writes
        scene.come_to_a_membership_step()
        await scene.reform()
        assert scene.crew.trainers[0].has_left
        assert scene.members() == [2, 3]
        assert scene.checkpoints.cut_if_due(is_last=is_last)

    asyncio.run(main())


def test_reform_checkpoint_whose_writer_stays_is_not_cut_again() -> None:
    async def main() -> None:
        scene = await Scene.begin(trainers=3)
        scene.checkpoints.want()
        assert scene.checkpoints.cut_if_due(is_last=False)
        scene.crew.handle(2).is_leaving = True
        scene.come_to_a_membership_step()
        await scene.reform()
        assert scene.members() == [1, 3]
        assert scene.checkpoints.is_pending

    asyncio.run(main())


def test_reform_members_that_come_and_go_without_rows_are_no_reason_to_give_up() -> None:
    async def main() -> None:
        scene = await Scene.begin(trainers=2)
        for _ in range(MAX_FRUITLESS + 1):
            scene.crew.handle(scene.members()[0]).is_leaving = True
            scene.crew.fill()
            await scene.crew.settle()
            scene.come_to_a_membership_step()
            await scene.reform()
        assert len(scene.members()) == 2

    asyncio.run(main())
