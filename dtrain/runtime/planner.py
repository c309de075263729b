"""The planner: plans issued ahead of the trainers, and the blocks that they need. Pure of Ray: references are opaque."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dtrain.policy.blocking import Size, weight_bytes
from dtrain.policy.cutting import Cutter, Piece
from dtrain.policy.dealing import Dealer, Dealt
from dtrain.policy.poison import AtRisk, overlap
from dtrain.policy.rejects import check_rejects
from dtrain.policy.stopping import EarlyStop
from dtrain.runtime.messages import IssuedPlan, PlanBatch
from dtrain.spec.job import JobSpec
from dtrain.steplog.blocks import BlockMeta
from dtrain.steplog.entries import Plan, StepKind
from dtrain.steplog.moves import Change
from dtrain.steplog.positions import Partition, Positions
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange

LOOKAHEAD_S = 0.2
MIN_AHEAD, MAX_AHEAD = 3, 64


@dataclass(slots=True)
class _Puller:
    """What a rank has been given: plans, up to where it heard that the log is durable, parcels."""

    after: int
    sealed_to: int = 0
    parcels: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Parcel:
    """What a call to a reader brought: blocks whose good rows stand one after the other in one object."""

    rows: Any
    num_bytes: int
    num_blocks: int
    """Of which rows are left to cut."""


def new_cutter(spec: JobSpec, progress: Progress, *, ends: Positions | None) -> Cutter:
    """A cutter of the job that goes on from `progress`."""
    return Cutter(
        positions=progress.positions,
        ends=ends,
        rows=spec.batch.span_rows,
        max_wait_s=spec.batch.max_wait,
        is_strict=spec.batch.order == "strict",
        step=progress.step + (progress.span.num_steps(spec.batch.rows) if progress.span is not None else 0),
        first=_history(spec, progress),
        align_ms=round(spec.source.align * 1000),
        step_rows=spec.batch.rows,
        marks=progress.marks,
    )


def _history(spec: JobSpec, progress: Progress) -> frozenset[Partition]:
    """The partitions of files, which are trained before a topic is begun."""
    history = spec.source.backfill
    return frozenset(p for p in progress.positions if history is not None and p.topic == history.files)


def new_early_stop(spec: JobSpec) -> EarlyStop | None:
    """What ends the job before its stream does, where it wants that."""
    wanted = spec.train.early_stop
    return None if wanted == "never" else EarlyStop(**wanted.model_dump())


class Planner:
    """Issues plans in one order; an issued plan never changes.

    Args:
        cutter: cuts data steps.
        progress: of the checkpoint that the attempt began with.
        budget: share of the window's rows that may be bad; None for not one.
        buffer: of rows that are not trained; one half is for those that wait or are planned, the other for those on their way.
        skips: rows that are not to be trained: steps that hold one of them are in the log, and not in the weights.
        shuffle_seed: of the order of rows in a span; None: rows are trained as they came.
    """

    def __init__(
        self,
        cutter: Cutter,
        *,
        progress: Progress,
        budget: float | None,
        buffer: Size,
        skips: Sequence[RowRange] = (),
        shuffle_seed: int | None = None,
    ) -> None:
        self.cutter = cutter
        self.dealer = Dealer(cutter, seed=shuffle_seed, span=progress.span)
        self.plan_number = progress.plan_number
        self._sealed: Progress | None = None
        self._began = self._reported = progress.plan_number
        self._barrier = 0
        self._rows_sound = progress.rows_sound
        self._window = progress.window
        self._budget = budget
        self._skips = skips
        self.buffer = buffer
        self._num_bytes = 0  # of all parcels
        self._checked: tuple[RowRange, ...] = ()  # what had passed when it was last looked whether the job bears it
        self.topics = dict(progress.topics)
        """Ids of topics that came later than the job, or were made anew since."""
        self._issued: deque[IssuedPlan] = deque()
        self._at_risk: dict[int, tuple[RowRange, ...]] = {}  # of plans that are issued, where these do not name the ranges
        self._pieces: tuple[Sequence[Piece], tuple[Piece, ...]] = ((), ())  # of blocks, of parcels: the same for all of a span
        self._parcels: dict[int, _Parcel] = {}
        self._places: dict[int, tuple[int, int]] = {}  # of blocks that wait: (parcel, where their rows begin in it)
        self._num_blocks = 0
        self._num_parcels = 0
        self._pullers: dict[int, _Puller] = {}
        self._step_s = LOOKAHEAD_S / 8
        self.is_careful = False
        """One step at a time: somebody died lately, and the next death must be found in its step."""

    @property
    def wants_blocks(self) -> bool:
        """Whether there is room for more; as to bytes there always is where no full step can be cut from what is there."""
        cutter = self.cutter
        if not cutter.has_room(self.buffer.rows) or cutter.is_laden:
            return False
        return not self._is_full or (self._reported >= self.plan_number and cutter.is_short)

    @property
    def sated(self) -> frozenset[Partition]:
        """Partitions of which no more is wanted for now: where the bytes are there, all but those of which a step needs more."""
        sated = self.cutter.sated(self.buffer.rows)
        return sated | (self.cutter.positions.keys() - self.cutter.needed) if self._is_full else sated

    @property
    def _is_full(self) -> bool:
        """What waits or is planned takes its half of the bytes."""
        return self._num_bytes + self.cutter.num_idle_bytes >= self.buffer.num_bytes // 2

    @property
    def waits_for(self) -> tuple[Partition, ...]:
        """Partitions without whose rows no further step can be cut."""
        return self.cutter.lacking if self._reported >= self.plan_number else ()

    @property
    def is_barred(self) -> bool:
        """Nothing follows the last plan until the next generation."""
        return self._barrier == self.plan_number and self._barrier > self._began

    def form(self, world_size: int, *, plan_number: int) -> None:
        """A new generation pulls from behind `plan_number` on: what was issued stays as it was, whoever computes it."""
        self._pullers = {rank: _Puller(plan_number) for rank in range(world_size)}
        self._began = plan_number
        self._reported = max(self._reported, plan_number)  # somebody has answered that it stands there

    @property
    def floor(self) -> int:
        """The plan number behind which every plan is kept: a generation cannot begin before it."""
        return self._issued[0].plan.number - 1 if self._issued else self.plan_number

    def at_risk(self, plan_number: int | None) -> AtRisk:
        """The rows that somebody may have died in: of the plan behind `plan_number`, or of all that no report speaks of."""
        first = self._reported if plan_number is None else plan_number
        last = first + 1 if plan_number is not None else self.plan_number
        plans = [item.plan for item in self._issued if first < item.plan.number <= last]
        ranges = (r for plan in plans for r in self._at_risk.get(plan.number, plan.ranges))
        part = next((plan.part for plan in reversed(plans) if plan.part is not None), None)
        return AtRisk(tuple(dict.fromkeys(ranges)), part)

    def add_blocks(self, blocks: Sequence[BlockMeta], rows: Any, *, now_s: float) -> None:
        """Blocks have come; `rows` holds the rows of their batches, one block's after the other's."""
        self._num_parcels += 1
        begin = 0
        for meta in blocks:
            self._num_blocks += 1
            if meta.num_batch_rows:
                self._places[self._num_blocks] = self._num_parcels, begin
                begin += meta.num_batch_rows
            self.cutter.add(self._num_blocks, meta, now_s=now_s)
        if begin:
            weights = [weight_bytes(meta) for meta in blocks if meta.num_batch_rows]  # the others': `Cutter.num_idle_bytes`
            self._num_bytes += sum(weights)
            self._parcels[self._num_parcels] = _Parcel(rows, sum(weights), len(weights))

    def reopen(self, rows: Any, *, num_bytes: int) -> None:
        """The rows of the ranges that the dealer was `missing`; `rows` holds them, one range's after the other's, as `fetch` gives them."""
        self._num_parcels += 1
        self._num_blocks += 1
        begin, pieces = 0, []
        for item in self.dealer.missing:
            pieces.append((self._num_blocks, begin, begin + item.num_rows))
            begin += item.num_rows + item.left_out.held_out
        self._places[self._num_blocks] = self._num_parcels, 0
        self._num_bytes += num_bytes
        self._parcels[self._num_parcels] = _Parcel(rows, num_bytes, num_blocks=1)
        self.dealer.reopen(pieces, exhausted=[self._num_blocks])

    def cut(self, *, now_s: float, may_open: bool = True) -> bool:
        """Issue data steps as far ahead as is wise; whether any was.

        Args:
            now_s: monotonic time.
            may_open: whether something new may be cut; else a span that is open comes to its end, and no more.

        Raises:
            BadRecordError: the next step would hold more bad rows than the job bears.
        """
        if (passed := self.cutter.passed) != self._checked:  # a stream of bad records alone is never cut
            self._check(passed)
            self._checked = passed
        num_before = self.plan_number
        while not self.is_barred and self.plan_number - self._known() < self._ahead():
            dealt = self.dealer.deal(now_s=now_s, may_open=may_open)
            if dealt is None:
                break
            self._check(dealt.cut.ranges)
            self._issue_data(dealt)
        return self.plan_number > num_before

    def _issue_data(self, dealt: Dealt) -> None:
        cut, number = dealt.cut, self.plan_number + 1
        skipped = "lost" if dealt.is_lost else "poison" if overlap(self._skips, dealt.at_risk) else ""
        plan = Plan(number, StepKind.DATA, cut.ranges, dealt.num_rows, skipped, part=dealt.part)
        if self._pieces[0] is not cut.pieces:
            self._pieces = cut.pieces, self._placed(cut.pieces)
        if not cut.ranges:
            self._at_risk[number] = dealt.at_risk
        held_out = self._placed(cut.held_out)
        self._issue(IssuedPlan(plan, self._pieces[1], cut.newest_ms, self._exhausted(cut.exhausted), held_out))

    def checkpoint(self, *, is_barrier: bool) -> int:
        """Issue a checkpoint; behind a barrier nothing follows until the next generation. Returns its plan number."""
        ranges, exhausted = self.cutter.pass_over()
        self._check(ranges)
        plan = Plan(self.plan_number + 1, StepKind.CHECKPOINT, ranges)
        self._issue(IssuedPlan(plan, exhausted=self._exhausted(self.dealer.withhold(exhausted))))
        self._barrier = self.plan_number if is_barrier else self._barrier
        return self.plan_number

    def membership(self) -> None:
        """Issue the step behind which all members stop, so that others may join or leave."""
        self._issue(IssuedPlan(Plan(self.plan_number + 1, StepKind.MEMBERSHIP)))
        self._barrier = self.plan_number

    def change(self, change: Change) -> None:
        """Issue the step at which what is read changes."""
        dropped = self.cutter.move(change.moves)
        self.topics.update(change.topics)
        plan = Plan(self.plan_number + 1, StepKind.MOVE, moves=change.moves, topics=change.topics)
        self._issue(IssuedPlan(plan, exhausted=self._exhausted(self.dealer.withhold(dropped))))

    def lift(self, plan_number: int) -> None:
        """What follows this plan may come after all, if it is a barrier. Another, at which members wait for each other, stays."""
        if self._barrier == plan_number:
            self._barrier = 0

    def pull(self, rank: int, *, after: int) -> PlanBatch | None:
        """What `rank`, which has been given everything up to `after`, gets next; None while there is nothing."""
        puller = self._pullers[rank]
        puller.after = max(puller.after, after)
        self._let_go()
        plans = [item for item in self._issued if item.plan.number > after][: max(1, self._ahead() // 2)]  # the rest meanwhile
        if not plans:
            return None
        # What is durable travels with later plans: whoever trains those has applied what it shall forget.
        sealed = self._sealed if self._sealed and puller.sealed_to < self._sealed.plan_number <= after else None
        puller.sealed_to = sealed.plan_number if sealed else puller.sealed_to
        wanted = {parcel for item in plans for parcel, _, _ in (*item.pieces, *item.held_out)} - puller.parcels
        puller.parcels |= wanted
        puller.parcels -= {parcel for item in plans for parcel in item.exhausted}
        return PlanBatch(sealed=sealed, plans=plans, parcels={parcel: self._parcels[parcel].rows for parcel in wanted})

    def seal(self, durable: Progress) -> None:
        """A checkpoint is durable: trainers may forget the log up to there."""
        self._sealed = durable

    def reported(self, plan_number: int, steps_s: Sequence[float]) -> None:
        """The lowest rank stands at `plan_number`: what nobody can need any more is let go."""
        if steps_s:
            typical_s = sorted(steps_s)[len(steps_s) // 2]
            self._step_s += 0.3 * (typical_s - self._step_s)
        self._reported = max(self._reported, plan_number)
        self._let_go()

    def _let_go(self) -> None:
        """Whoever has applied a data step proves that all had come to it; nothing proves that they have applied it.

        One that is left out proves nothing: nobody waits for the others in it.
        """
        done = min(self._reported, self._pulled())
        met = (i.plan for i in reversed(self._issued) if i.plan.num_rows and not i.plan.skipped)
        last = next((plan.number for plan in met if plan.number <= done), 0)
        while self._issued and self._issued[0].plan.number < last:
            issued = self._issued.popleft()
            self._at_risk.pop(issued.plan.number, None)
            for parcel in issued.exhausted:
                self._num_bytes -= self._parcels.pop(parcel).num_bytes

    def _placed(self, of_blocks: Sequence[Piece]) -> tuple[Piece, ...]:
        """Pieces of blocks as pieces of parcels, neighbours made one."""
        pieces: list[Piece] = []
        for block, start, stop in of_blocks:
            parcel, begin = self._places[block]
            last = pieces[-1] if pieces else None
            if last is not None and (last[0], last[2]) == (parcel, begin + start):
                pieces[-1] = parcel, last[1], begin + stop
            else:
                pieces.append((parcel, begin + start, begin + stop))
        return tuple(pieces)

    def _exhausted(self, blocks: Iterable[int]) -> tuple[int, ...]:
        """The parcels of which no row is left, once none of `blocks` is."""
        found = []
        for block in blocks:
            parcel, _ = self._places.pop(block, (0, 0))  # one without good rows has no place
            if parcel:
                self._parcels[parcel].num_blocks -= 1
                if not self._parcels[parcel].num_blocks:
                    found.append(parcel)
        return tuple(found)

    def _issue(self, issued: IssuedPlan) -> None:
        self.plan_number = issued.plan.number
        num_sound = sum(item.num_rows + sum(item.left_out) for item in issued.plan.ranges)
        num_bad = sum(len(item.rejects) for item in issued.plan.ranges)
        self._rows_sound += num_sound
        self._window = self._window.add(rows=num_sound + num_bad, bad=num_bad)
        self._issued.append(issued)

    def _check(self, ranges: Sequence[RowRange]) -> None:
        check_rejects(ranges, budget=self._budget, window=self._window, rows_good=self._rows_sound + self.cutter.num_waiting)

    def _pulled(self) -> int:
        """Up to where every rank has been given plans."""
        return min((puller.after for puller in self._pullers.values()), default=0)

    def _known(self) -> int:
        """Up to where nothing counts as ahead: what was pulled; where the next death must be found in its step, what was applied."""
        return self._reported if self.is_careful else self._pulled()

    def _ahead(self) -> int:
        """How many plans make about 200 ms of work."""
        if self.is_careful:
            return 1
        return max(MIN_AHEAD, min(MAX_AHEAD, round(LOOKAHEAD_S / max(self._step_s, 1e-6))))
