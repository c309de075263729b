"""An attempt: from its claim to its end, or to the loss of a member. What trainers ask and say arrives here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from ray.exceptions import RayActorError

from dtrain.checkpoint.manifest import Manifest, Snapshot
from dtrain.clock import Clock
from dtrain.errors import CollectiveError, DtrainError, MemberLostError, StorageError, UnavailableError
from dtrain.job.status import Outcome
from dtrain.policy.cadence import CheckpointCadence
from dtrain.runtime.crew import Crew, TrainerHandle, settled
from dtrain.runtime.ledger import Ledger, Origin
from dtrain.runtime.messages import Assignment, PlanBatch
from dtrain.runtime.planner import Planner, new_cutter
from dtrain.runtime.reading import BlockReader, Reading
from dtrain.runtime.tasks import TaskSet
from dtrain.runtime.tracker import Tracker
from dtrain.spec.job import JobSpec
from dtrain.steplog.progress import Progress
from dtrain.steplog.ranges import RowRange
from dtrain.steplog.report import TrainReport

_TURN_S = 0.01
_PULL_S = 1.0
_FORM_S = 90.0
_RETRY_STORAGE_S = 2.0


class AttemptRun:
    """One attempt. All on the coordinator's event loop; the store is asked in threads.

    Args:
        ledger: of this attempt: it was claimed.
        crew: whose trainers make the generations.
        reader: of the job's topic.
        tracker: told of everything.
        coordinator: the actor that trainers call.
        on_formed: told that a generation has formed: it trains, or waits for rows.
        on_checkpoint: told how long each commit took, in seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        crew: Crew,
        reader: BlockReader,
        tracker: Tracker,
        coordinator: Any,
        clock: Clock,
        on_formed: Callable[[], None],
        on_checkpoint: Callable[[float], None],
    ) -> None:
        self._ledger = ledger
        self._spec: JobSpec = ledger.spec
        self._crew = crew
        self._reader = reader
        self._tracker = tracker
        self._coordinator = coordinator
        self._clock = clock
        self._on_formed = on_formed
        self._on_checkpoint = on_checkpoint
        self._generation = 0
        self._members: list[TrainerHandle] = []
        self._planner: Planner | None = None
        self._cadence = CheckpointCadence(self._spec.checkpoint.every, clock.monotonic_s(), 0)
        self._failure: DtrainError | None = None
        self._is_joining = False
        self._is_ending = False
        self._retry_at_s = 0.0
        self._changed = asyncio.Event()
        self._issued = asyncio.Event()
        self._tasks = TaskSet(self.fail)
        self._committed: Manifest | None = ledger.durable
        self.is_stopping = False
        self.has_stepped = False
        self.has_committed = False

    @property
    def key(self) -> tuple[int, int]:
        """(attempt, generation): what every message of a member carries."""
        return self._ledger.attempt.number, self._generation

    async def run(self) -> Outcome:
        """Train until the end of the stream or until told to stop.

        Raises:
            MemberLostError: go on under a new attempt.
            DtrainError: what it makes of the job, `verdict_of` says.
        """
        parent = self._ledger.durable
        if parent is not None and parent.is_final:
            self._tracker.stands_at(parent.progress)
            return Outcome.SUCCEEDED
        try:
            manifest = parent or await self._begin()
            self._planner = self._new_planner(manifest)
            await self._form(manifest)
            self._reader.follow(Reading(self._planner, manifest, on_blocks=self.wake, on_error=self.fail))
            return await self._train(self._planner)
        finally:
            self._reader.pause()
            self._tasks.cancel()

    async def end_generation(self) -> DtrainError | None:
        """No member applies anything more; what user code had raised, if it was that."""
        errors = await self._crew.end_generation(self._members)
        return next((error for error in errors if not isinstance(error, UnavailableError)), None)

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
        self.has_stepped = self.has_stepped or bool(report.steps_s)
        self._tracker.report(report)
        if self._planner is not None:
            self._planner.reported(report.progress.plan_number, report.steps_s)
        self.wake()

    def wrote(self, snapshot: Snapshot | None, error: DtrainError | None) -> None:
        """The lowest rank has written a checkpoint's blob and segment, or could not."""
        if snapshot is not None:
            self._tasks.run(self._commit(snapshot))
        elif isinstance(error, StorageError):
            self._postpone(error)
        else:
            self.fail(error or CollectiveError("a checkpoint was not written"))

    def fail(self, error: DtrainError) -> None:
        """The generation cannot go on."""
        if isinstance(error, UnavailableError):
            error = MemberLostError(error.reason)
        if self._failure is None or isinstance(self._failure, MemberLostError):
            self._failure = error
        self.wake()

    def lost(self, member: TrainerHandle) -> bool:
        """A trainer has died; whether it was a member of the generation."""
        if member in self._members:
            self.fail(MemberLostError(f"trainer {member.index} (pid {member.introduction.pid}) is gone"))
        return member in self._members

    def want_checkpoint(self) -> None:
        """Cut a checkpoint soon."""
        self._cadence.is_wanted = True
        self.wake()

    def wake(self) -> None:
        """Something has changed: look again."""
        self._changed.set()

    # --- beginning and forming

    async def _begin(self) -> Manifest:
        """Checkpoint 0: initial weights from one trainer, positions and end from the reader."""
        beginning = await self._reader.begin()
        try:
            first = self._crew.ready[0]
            snapshot = await settled(first.actor.genesis.remote(beginning.positions))
        except (IndexError, RayActorError) as error:
            raise MemberLostError("no trainer was left to begin with") from error
        origin = Origin(beginning.identity, beginning.ends)
        manifest = await asyncio.to_thread(self._ledger.begin, snapshot, origin=origin, schema=first.introduction.schema)
        self._committed = manifest
        return manifest

    def _new_planner(self, manifest: Manifest) -> Planner:
        planner = Planner(
            new_cutter(self._spec, manifest.progress, ends=manifest.ends),
            progress=manifest.progress,
            budget=self._spec.source.reject_budget,
            buffer_rows=16 * self._spec.batch.rows,
        )
        self._cadence.last_plan = manifest.progress.plan_number
        return planner

    async def _form(self, manifest: Manifest) -> None:
        """The crew's ready trainers are a generation that stands at `manifest`."""
        members = sorted(self._crew.ready, key=lambda member: member.index)[: self._spec.batch.num_slices]
        if not members:
            raise MemberLostError("no trainer is left")
        self._generation += 1
        self._members, self._is_joining = members, False
        if self._planner is not None:
            self._planner.form(len(members), plan_number=manifest.progress.plan_number)
        try:
            host, port = await asyncio.wait_for(settled(members[0].actor.host.remote()), _FORM_S)
            forming = [
                settled(member.actor.form.remote(self._assignment(manifest, rank, len(members), host, port), self._coordinator))
                for rank, member in enumerate(members)
            ]
            await asyncio.wait_for(asyncio.gather(*forming), _FORM_S)
        except (TimeoutError, UnavailableError, RayActorError) as error:
            raise MemberLostError(f"a generation could not form: {error}") from error
        for rank, member in enumerate(members):
            member.rank = rank
        self._tracker.attempt, self._tracker.generation = self.key
        self._tracker.world_size = len(members)
        self._tracker.stands_at(manifest.progress)
        self._tracker.happened(
            "generation",
            f"attempt {self.key[0]}, generation {self.key[1]}: {len(members)} trainers at step {manifest.progress.step}",
        )
        self._on_formed()

    def _assignment(self, manifest: Manifest, rank: int, world_size: int, host: str, port: int) -> Assignment:
        return Assignment(
            attempt=self.key[0],
            generation=self.key[1],
            rank=rank,
            world_size=world_size,
            host=host,
            port=port,
            backend="nccl" if self._spec.workers.gpus else "gloo",
            blob=manifest.blob,
            progress=manifest.progress,
        )

    # --- training

    async def _train(self, planner: Planner) -> Outcome:
        """One turn: see what failed, decide on control steps, issue data steps, wait for news."""
        while True:
            if self._failure is not None:
                raise self._failure
            durable = self._committed
            if self._is_ending and durable is not None and durable.progress.plan_number == planner.plan_number:
                return Outcome.SUCCEEDED if durable.is_final else Outcome.STOPPED
            if self._is_joining and durable is not None and durable.progress.plan_number == planner.plan_number:
                await self._rejoin(durable)
            self._cut_control(planner)
            if planner.cut(now_s=self._clock.monotonic_s()):
                self._announce()
            await self._wait_changed()

    def _cut_control(self, planner: Planner) -> None:
        """A checkpoint, where one is due; behind the last one, and before a join, nothing follows."""
        now_s = self._clock.monotonic_s()
        if self._cadence.is_pending or planner.is_barred or now_s < self._retry_at_s:
            return
        is_ending = self.is_stopping or planner.cutter.is_finished
        is_joining = not is_ending and self.has_stepped and len(self._crew.ready) > len(self._members)
        if (
            is_ending
            or is_joining
            or self._cadence.is_due(now_s=now_s, plan_number=planner.plan_number + bool(planner.cutter.passed))
        ):
            self._is_ending, self._is_joining = is_ending, is_joining
            number = planner.checkpoint(is_barrier=is_ending or is_joining)
            self._cadence.cut(now_s=now_s, plan_number=number)
            self._announce()

    async def _rejoin(self, manifest: Manifest) -> None:
        """Newcomers are members from here on. Members keep their replicas; newcomers adopt the checkpoint that was just written."""
        await self.end_generation()
        if self._failure is None:
            await self._form(manifest)

    async def _commit(self, snapshot: Snapshot) -> None:
        began_s = self._clock.monotonic_s()
        try:
            manifest = await asyncio.to_thread(
                self._ledger.commit,
                snapshot,
                flush_rejects=self._flush_rejects,
                give_back=self._give_back,
            )
        except (StorageError, UnavailableError) as error:
            self._postpone(error)
            return
        if self._planner is not None and snapshot.progress.segments:
            self._planner.seal(snapshot.progress.segments[-1])
        self._cadence.done()
        self._committed, self.has_committed = manifest, True
        self._tracker.last_checkpoint, self._tracker.last_checkpoint_at_s = manifest.name, manifest.written_at_s
        self._on_checkpoint(self._clock.monotonic_s() - began_s)
        self._tracker.happened("checkpoint", f"{manifest.name} at step {manifest.progress.step}")
        self.wake()

    def _postpone(self, error: DtrainError) -> None:
        """The last checkpoint stands and training goes on; another is cut a little later."""
        self._tracker.happened("checkpoint", f"failed, will be tried again: {error}")
        self._retry_at_s = self._clock.monotonic_s() + _RETRY_STORAGE_S
        self._cadence.done()
        self._is_ending = self._is_joining = False
        if self._planner is not None:
            self._planner.is_barred = False
        self._cadence.is_wanted = True

    def _flush_rejects(self, ranges: Sequence[RowRange]) -> None:
        dead_letters = self._spec.source.dead_letters
        if dead_letters is not None:
            self._reader.send_rejects(ranges, to_topic=dead_letters.send_to, job_id=self._ledger.job_id)

    def _give_back(self, progress: Progress) -> None:
        self._reader.commit(progress.positions, group=f"dtrain-{self._ledger.job_id}")

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
