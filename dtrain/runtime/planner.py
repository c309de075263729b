"""The planner: plans issued ahead of the trainers, and the blocks that they need. Pure of Ray: references are opaque."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dtrain.policy.cutting import Cutter
from dtrain.policy.rejects import check_rejects
from dtrain.runtime.messages import IssuedPlan, PlanBatch
from dtrain.spec.job import JobSpec
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.entries import Plan, StepKind
from dtrain.steplog.positions import Partition, Positions
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from dtrain.steplog.segments import Segment

LOOKAHEAD_S = 0.2
MIN_AHEAD, MAX_AHEAD = 3, 64


@dataclass(slots=True)
class _Puller:
    """What a rank has been given: plans it has staged, segments it was told of, blocks."""

    after: int
    sealed_to: int
    blocks: set[int] = field(default_factory=set)


def new_cutter(spec: JobSpec, progress: Progress, *, ends: Positions | None) -> Cutter:
    """A cutter of the job that goes on from `progress`."""
    return Cutter(
        positions=progress.positions,
        ends=ends,
        rows=spec.batch.rows,
        max_wait_s=spec.batch.max_wait,
        is_strict=spec.batch.order == "strict",
        step=progress.step,
    )


class Planner:
    """Issues plans in one order; an issued plan never changes.

    Args:
        cutter: cuts data steps.
        progress: of the checkpoint that the attempt began with.
        budget: share of rows that may be bad; None for not one.
        buffer_rows: rows to hold before reading stops (backpressure).
        buffer_bytes: bytes of blocks to hold before reading stops.
    """

    def __init__(
        self,
        cutter: Cutter,
        *,
        progress: Progress,
        budget: float | None,
        buffer_rows: int,
        buffer_bytes: int = 256 * 2**20,
    ) -> None:
        self.cutter = cutter
        self.plan_number = progress.plan_number
        self._sealed: list[Segment] = []
        self._reported = progress.plan_number
        self.is_barred = False
        self._rows_trained = progress.rows_trained
        self._rows_rejected = progress.rows_rejected
        self._budget = budget
        self._buffer_rows = buffer_rows
        self._buffer_bytes = buffer_bytes
        self._bytes: dict[int, int] = {}
        self._issued: deque[IssuedPlan] = deque()
        self._blocks: dict[int, Any] = {}
        self._num_blocks = 0
        self._pullers: dict[int, _Puller] = {}
        self._step_s = LOOKAHEAD_S / 8

    @property
    def wants_blocks(self) -> bool:
        """Whether there is room for more; there always is while no step can be cut from what is there."""
        has_bytes = sum(self._bytes.values()) < self._buffer_bytes or not self._issued
        return self.cutter.has_room(self._buffer_rows) and has_bytes

    @property
    def sated(self) -> frozenset[Partition]:
        """Partitions of which no more is wanted for now."""
        return self.cutter.sated(self._buffer_rows)

    def form(self, world_size: int, *, plan_number: int) -> None:
        """A new generation pulls from behind `plan_number` on."""
        self._pullers = {rank: _Puller(plan_number, plan_number) for rank in range(world_size)}
        self._sealed, self._reported = [], plan_number
        self.is_barred = False

    def add_block(self, meta: BlockMeta, reference: Any, *, now_s: float) -> None:
        """A block has come."""
        self._num_blocks += 1
        if meta.num_rows:
            self._blocks[self._num_blocks] = reference
            self._bytes[self._num_blocks] = meta.num_bytes
        self.cutter.add(self._num_blocks, meta, now_s=now_s)

    def cut(self, *, now_s: float) -> bool:
        """Issue data steps as far ahead as is wise; whether any was.

        Raises:
            BadRecordError: the next step would hold more bad rows than the job bears.
        """
        self._check(self.cutter.passed)  # a stream of bad records alone is never cut
        num_before = self.plan_number
        while not self.is_barred and self.plan_number - self._pulled() < self._ahead():
            cut = self.cutter.cut(now_s=now_s)
            if cut is None:
                break
            self._check(cut.ranges)
            plan = Plan(self.plan_number + 1, StepKind.DATA, cut.ranges, cut.num_rows)
            self._issue(IssuedPlan(plan, cut.pieces, cut.newest_ms, cut.exhausted))
        return self.plan_number > num_before

    def checkpoint(self, *, is_barrier: bool) -> int:
        """Issue a checkpoint; behind a barrier nothing follows until the next generation. Returns its plan number."""
        ranges = self.cutter.pass_over()
        self._check(ranges)
        self._issue(IssuedPlan(Plan(self.plan_number + 1, StepKind.CHECKPOINT, ranges)))
        self.is_barred = self.is_barred or is_barrier
        return self.plan_number

    def pull(self, rank: int, *, after: int) -> PlanBatch | None:
        """What `rank`, which has staged everything up to `after`, gets next; None while there is nothing."""
        puller = self._pullers[rank]
        puller.after = max(puller.after, after)
        self._let_go()
        plans = [item for item in self._issued if item.plan.number > after][: self._ahead()]
        if not plans:
            return None
        # Segments travel with later plans: whoever trains those has applied what it shall forget.
        sealed = [segment for segment in self._sealed if puller.sealed_to < segment.last <= after]
        puller.sealed_to = sealed[-1].last if sealed else puller.sealed_to
        wanted = {block for item in plans for block, _, _ in item.pieces} - puller.blocks
        puller.blocks |= wanted
        puller.blocks -= {block for item in plans for block in item.exhausted}
        return PlanBatch(sealed=sealed, plans=plans, blocks={block: self._blocks[block] for block in wanted})

    def seal(self, segment: Segment) -> None:
        """A log segment is durable: trainers may forget it."""
        told = min((puller.sealed_to for puller in self._pullers.values()), default=0)
        self._sealed = [old for old in self._sealed if old.last > told] + [segment]

    def reported(self, plan_number: int, steps_s: Sequence[float]) -> None:
        """Replicas stand at `plan_number`, or one step behind: what nobody needs any more is let go."""
        if steps_s:
            typical_s = sorted(steps_s)[len(steps_s) // 2]
            self._step_s += 0.3 * (typical_s - self._step_s)
        self._reported = max(self._reported, plan_number)
        self._let_go()

    def _let_go(self) -> None:
        done = min(self._reported, self._pulled())
        while self._issued and self._issued[0].plan.number <= done:
            for block in self._issued.popleft().exhausted:
                self._blocks.pop(block, None)
                self._bytes.pop(block, None)

    def _issue(self, issued: IssuedPlan) -> None:
        self.plan_number = issued.plan.number
        self._rows_trained += issued.plan.num_rows
        self._rows_rejected += sum(len(item.rejects) for item in issued.plan.ranges)
        self._issued.append(issued)

    def _check(self, ranges: Sequence[RowRange]) -> None:
        check_rejects(ranges, budget=self._budget, rows_trained=self._rows_trained, rows_rejected=self._rows_rejected)

    def _pulled(self) -> int:
        """Up to where every rank has staged."""
        return min((puller.after for puller in self._pullers.values()), default=0)

    def _ahead(self) -> int:
        """How many plans make about 200 ms of work."""
        return max(MIN_AHEAD, min(MAX_AHEAD, round(LOOKAHEAD_S / max(self._step_s, 1e-6))))
