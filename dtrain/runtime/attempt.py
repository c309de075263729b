"""An attempt: from its claim to its end, or to the loss of all state. What trainers ask and say arrives here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from ray.exceptions import RayActorError

from dtrain.checkpoint.manifest import Manifest, Snapshot
from dtrain.checkpoint.poison import skips
from dtrain.clock import Clock
from dtrain.data.schema import check_same
from dtrain.errors import DataLossError, DtrainError, MemberLostError, UnavailableError
from dtrain.job.status import Outcome
from dtrain.policy.blocking import buffer_of
from dtrain.policy.lease import stuck
from dtrain.policy.poison import Deaths
from dtrain.policy.shedding import shed
from dtrain.runtime.checkpointing import Checkpointing
from dtrain.runtime.crew import Crew, TrainerHandle, settled
from dtrain.runtime.intake import Reading
from dtrain.runtime.ledger import Ledger, Origin
from dtrain.runtime.membership import Membership
from dtrain.runtime.messages import PlanBatch
from dtrain.runtime.planner import Planner, new_cutter, new_early_stop
from dtrain.runtime.reading import Readers, smallest_store_bytes
from dtrain.runtime.regrouping import Regrouping
from dtrain.runtime.tasks import TaskSet
from dtrain.runtime.tracker import Tracker
from dtrain.spec.job import JobSpec
from dtrain.steplog.moves import Change
from dtrain.steplog.report import TrainReport

_TURN_S = 0.01
_PULL_S = 1.0
_LOOK_EVERY_S = 1.0


class AttemptRun:
    """One attempt. All on the coordinator's event loop; the store is asked in threads.

    Args:
        ledger: of this attempt: it was claimed.
        crew: whose trainers make the generations.
        readers: of the job's topic.
        tracker: told of everything.
        deaths: of members of this job, over all attempts.
        steps_s: what its steps took lately, over all attempts, in seconds; added to.
        clock: monotonic.
        on_formed: told that a generation has formed: it trains, or waits for rows.
        on_checkpoint: told how long each commit took, in seconds.
        allow_gap: what is lost of the topic is passed over, by the log.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        crew: Crew,
        readers: Readers,
        tracker: Tracker,
        deaths: Deaths,
        steps_s: deque[float],
        clock: Clock,
        on_formed: Callable[[], None],
        on_checkpoint: Callable[[float], None],
        allow_gap: bool = False,
    ) -> None:
        self._ledger = ledger
        self._spec: JobSpec = ledger.spec
        self._crew = crew
        self._readers = readers
        self._tracker = tracker
        self._deaths = deaths
        self._clock = clock
        self._on_checkpoint = on_checkpoint
        self._membership = Membership(
            crew,
            attempt=ledger.attempt.number,
            num_slices=self._spec.batch.num_slices,
            num_spares=self._spec.workers.spares if self._spec.workers.hot else 0,
            backend="nccl" if self._spec.workers.gpus else "gloo",
        )
        self._regrouping = Regrouping(
            self._membership,
            crew=crew,
            deaths=deaths,
            tracker=tracker,
            clock=clock,
            on_plans=self._announce,
            on_formed=on_formed,
        )
        self._planner: Planner | None = None
        self._checkpoints: Checkpointing | None = None
        self._failure: DtrainError | None = None
        self._loss: DataLossError | None = None
        self._allow_gap = allow_gap
        self._reading: Reading | None = None
        self._change: Change | None = None
        self._shed_at_s = 0.0
        self._steps_s = steps_s
        self._is_ending = False
        self._changed = asyncio.Event()
        self._issued = asyncio.Event()
        self._tasks = TaskSet(self.fail)
        self._early_stop = new_early_stop(self._spec)
        self.message = ""
        """Why the job ends before its stream does, if it does."""
        self.is_stopping = False

    @property
    def key(self) -> tuple[int, int]:
        """(attempt, generation): what every message of a member carries."""
        return self._membership.key

    @property
    def has_committed(self) -> bool:
        """A checkpoint of this attempt is durable."""
        return self._checkpoints is not None and self._checkpoints.has_committed

    async def run(self) -> Outcome:
        """Train until the end of the stream or until told to stop.

        Raises:
            MemberLostError: nobody has this attempt's state any more: go on under a new one.
            DtrainError: what it makes of the job, `verdict_of` says.
        """
        parent = self._ledger.durable
        if parent is not None and parent.is_final:
            self._tracker.stands_at(parent.progress)
            return Outcome.SUCCEEDED
        try:
            manifest = parent or await self._begin()
            planner, checkpoints = await self._take_over(manifest)
            self._tasks.run(self._watch_progress())
            outcome = await self._train(planner, checkpoints)
            await self._readers.given_back()
            return outcome
        finally:
            self._readers.pause()
            self._tasks.cancel()
            if self._checkpoints is not None:
                self._checkpoints.close()

    # --- what members ask and say

    async def pull(self, rank: int, *, after: int) -> PlanBatch:
        """The next plans of `rank`; empty when none came in a second."""
        key, deadline_s = self.key, self._clock.monotonic_s() + _PULL_S
        while self._planner is not None and self._failure is None and key == self.key:
            batch = self._planner.pull(rank, after=after)
            self._changed.set()
            if batch is not None:
                return batch
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                return PlanBatch()
            await self._wait_issued(left_s)
        return PlanBatch(is_over=True)

    def report(self, report: TrainReport) -> None:
        """Replicas have trained."""
        self._deaths.survived(report.progress)
        if report.steps_s:
            self._regrouping.stepped()
            self._steps_s.extend(report.steps_s)
        self._tracker.report(report)
        if self._early_stop is not None and not self.message:
            self.message = self._early_stop.verdict(report)
        if self._planner is not None:
            self._planner.is_careful = self._deaths.is_careful
            self._planner.reported(report.progress.plan_number, report.steps_s)
        self.wake()

    def arrived(self, rank: int) -> None:
        """A member stands behind the membership step, and waits."""
        self._regrouping.arrived(rank)
        self.wake()

    def wrote(self, member: int, snapshot: Snapshot | None, error: DtrainError | None) -> None:
        """A member has written a checkpoint's blob and segment, or could not."""
        if self._checkpoints is not None and self._membership.find(member) is not None:
            self._checkpoints.wrote(snapshot, error)

    def raised(self, error: DtrainError) -> None:
        """A member's generation has ended by an error."""
        if isinstance(error, UnavailableError):
            self._regrouping.broke(error.reason)
            self.wake()
        else:
            self.fail(error)

    def fail(self, error: DtrainError) -> None:
        """The attempt cannot go on."""
        if self._failure is None or isinstance(self._failure, UnavailableError):
            self._failure = MemberLostError(error.reason) if isinstance(error, UnavailableError) else error
        self.wake()

    def lost(self, member: TrainerHandle, *, is_death: bool) -> bool:
        """A trainer is gone; whether it was a member of the generation."""
        if member not in self._membership.members:
            return False
        self._regrouping.lost(member, is_death=is_death)
        self.wake()
        return True

    def want_checkpoint(self) -> None:
        """Cut a checkpoint soon."""
        if self._checkpoints is not None:
            self._checkpoints.want()

    def wake(self) -> None:
        """Something has changed: look again."""
        self._changed.set()

    # --- beginning

    async def _begin(self) -> Manifest:
        """Checkpoint 0: initial weights from one trainer, positions and end from the reader."""
        beginning = await self._readers.begin()
        try:
            first = self._crew.ready[0]
            snapshot = await settled(first.actor.genesis.remote(beginning.positions))
        except (IndexError, RayActorError) as error:
            raise MemberLostError("no trainer was left to begin with") from error
        origin = Origin(beginning.identity, beginning.ends)
        return await asyncio.to_thread(self._ledger.begin, snapshot, origin=origin, schema=first.introduction.schema)

    async def _take_over(self, manifest: Manifest) -> tuple[Planner, Checkpointing]:
        """A first generation trains: from the state of live trainers, if their log goes through the parent, or from the parent."""
        for trainer in self._crew.ready:
            check_same(manifest.schema, trainer.introduction.schema, checkpoint=manifest.name)
        answers, election = await self._regrouping.take_over(manifest.progress)
        progress = answers[election.source].progress if election is not None else manifest.progress
        store_bytes = await asyncio.to_thread(smallest_store_bytes)
        planner = self._planner = Planner(
            new_cutter(self._spec, progress, ends=manifest.ends),
            progress=progress,
            budget=self._spec.source.reject_budget,
            buffer=buffer_of(step_rows=self._spec.batch.span_rows, store_bytes=store_bytes),
            skips=await asyncio.to_thread(skips, self._ledger.store),
            shuffle_seed=self._spec.shuffle_seed,
        )
        self._tracker.waits_for = lambda: planner.waits_for
        checkpoints = self._checkpoints = Checkpointing(
            self._ledger,
            durable=manifest,
            planner=planner,
            readers=self._readers,
            tracker=self._tracker,
            clock=self._clock,
            wake=self.wake,
            fail=self.fail,
            on_checkpoint=self._on_checkpoint,
        )
        self._reading = Reading(
            planner,
            manifest,
            on_blocks=self.wake,
            on_change=self._changes,
            on_error=self._cannot_read,
            code_sha256=self._ledger.program_sha256,
        )
        if self._allow_gap:
            self._pass_gaps(await self._readers.gaps(self._reading), planner, checkpoints)
        self._readers.follow(self._reading)
        if planner.dealer.missing:
            self._tasks.run(self._reopen(planner, manifest))
        if not await self._regrouping.form(answers, election, progress=progress, planner=planner, checkpoints=checkpoints):
            await self._regrouping.reform(planner, checkpoints)
        return planner, checkpoints

    async def _reopen(self, planner: Planner, manifest: Manifest) -> None:
        """The rows of the span that was open when this began are read again; where they are gone and that is allowed, the log says so."""
        try:
            rows, num_bytes = await self._readers.fetch(planner.dealer.missing, schema=manifest.schema)
            planner.reopen(rows, num_bytes=num_bytes)
        except DataLossError as error:
            if not self._allow_gap:
                self._cannot_read(error)
                return
            self._tracker.happened("gap", f"the rest of a span is not trained: {error.reason}")
            planner.dealer.give_up()
        self.wake()

    def _pass_gaps(self, change: Change, planner: Planner, checkpoints: Checkpointing) -> None:
        """What is lost is passed over, which is in the log soon: another loss wants another permission."""
        if change.moves:
            self._tell(change, "gap")
            planner.change(change)
            checkpoints.want()

    # --- training

    async def _train(self, planner: Planner, checkpoints: Checkpointing) -> Outcome:
        """One turn: see what failed, decide on control steps, issue data steps, wait for news."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._regrouping.is_due:
                await self._regrouping.reform(planner, checkpoints)
            durable = checkpoints.durable
            if self._is_ending and durable.progress.plan_number == planner.plan_number:
                if self._loss is not None and not self.is_stopping:
                    raise self._loss
                is_enough = bool(self.message) and not self.is_stopping
                return Outcome.SUCCEEDED if durable.is_final or is_enough else Outcome.STOPPED
            is_control = self._cut_control(planner, checkpoints)
            if planner.cut(now_s=self._clock.monotonic_s(), may_open=not self._may_end) or is_control:
                self._announce()
            self._readers.refill()
            await self._wait_changed()

    def _cut_control(self, planner: Planner, checkpoints: Checkpointing) -> bool:
        """A membership step, where somebody waits to join or is to leave; a checkpoint, where one is due."""
        if planner.is_barred:
            return False
        is_last = self._is_last(planner)
        if not is_last and not self._membership.is_as_wanted:
            planner.membership()
            return True
        if not is_last and self._change_if_due(planner):
            return True
        if not checkpoints.cut_if_due(is_last=is_last):
            return False
        self._is_ending = is_last
        return True

    @property
    def _may_end(self) -> bool:
        """The job is to end before its stream does, where no span is open."""
        return bool(self.message) or self._loss is not None

    def _is_last(self, planner: Planner) -> bool:
        """Nothing more is trained. A span that is open is trained to its end before that, unless somebody wants to stop now, or its
        rows cannot be read again.
        """
        if self.is_stopping or planner.dealer.is_finished:
            return True
        return self._may_end and (not planner.dealer.is_open or (self._loss is not None and bool(planner.dealer.missing)))

    def _change_if_due(self, planner: Planner) -> bool:
        """What is read changes, if partitions have come, or rows have waited for too long and the job wants none of those."""
        change, kind = self._change or Change(), "partition"
        on_lag, now_s = self._spec.source.on_lag, self._clock.monotonic_s()
        if not change.moves and on_lag != "wait" and now_s > self._shed_at_s + _LOOK_EVERY_S:
            self._shed_at_s, kind = now_s, "lag"
            ends = self._tracker.end_offsets
            change = shed(planner.cutter, end_offsets=ends, over_s=on_lag.over, now_s=self._clock.wall_s())
        if not change.moves or self._reading is None:
            return False
        self._tell(change, kind)
        planner.change(change)
        self._change = None
        self._readers.follow(self._reading)
        return True

    def _changes(self, change: Change) -> None:
        """Partitions have come."""
        self._change = change
        self.wake()

    def _cannot_read(self, error: DtrainError) -> None:
        """Nothing more comes. What was trained before a loss is kept, behind a last checkpoint."""
        if isinstance(error, DataLossError):
            self._loss = error
            self.wake()
        else:
            self.fail(error)

    def _tell(self, change: Change, kind: str) -> None:
        for move in change.moves:
            self._tracker.happened(kind, str(move))

    async def _watch_progress(self) -> None:
        """Who computes one step for ever is evicted; who is slower than the others gets less to do."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._membership.look_at_speeds()
            pulses = self._crew.pulses
            places = {m.serial: pulses.places[m.serial] for m in self._membership.present if m.serial in pulses.places}
            fresh = {serial for serial in places if not pulses.row_s.get(serial)}
            for serial in stuck(places, fresh=fresh, steps_s=self._steps_s, now_s=self._clock.monotonic_s()):
                self._crew.lose(serial, f"it has computed plan {places[serial].plan_number} for too long", is_death=False)

    # --- waiting

    def _announce(self) -> None:
        """Whoever waits for plans looks again."""
        issued, self._issued = self._issued, asyncio.Event()
        issued.set()

    async def _wait_issued(self, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self._issued.wait(), timeout_s)
        except TimeoutError:
            return

    async def _wait_changed(self) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), _TURN_S)
        except TimeoutError:
            return
        finally:
            self._changed.clear()
