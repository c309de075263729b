"""The coordinator: the detached actor that runs one job, attempt after attempt. Imports no torch."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import ray
from ray.util.placement_group import PlacementGroup

from dtrain import __version__, logs
from dtrain.checkpoint.manifest import Snapshot
from dtrain.checkpoint.places import open_store
from dtrain.checkpoint.poison import allow_skips, record_poison
from dtrain.checkpoint.store import CheckpointStore
from dtrain.clock import SystemClock
from dtrain.errors import DtrainError, InternalError, MemberLostError, PoisonError, StateError
from dtrain.job.status import Member, Observation, Outcome
from dtrain.metrics.job import JobMetrics
from dtrain.policy.poison import Deaths
from dtrain.policy.verdict import verdict_of
from dtrain.runtime.attempt import AttemptRun
from dtrain.runtime.crew import Crew, TrainerHandle
from dtrain.runtime.delivery import NOTHING, Delivery, with_code_here
from dtrain.runtime.ledger import Ledger
from dtrain.runtime.messages import PlanBatch
from dtrain.runtime.reading import Readers
from dtrain.runtime.requirements import lock_of
from dtrain.runtime.room import groups_of
from dtrain.runtime.tracker import Tracker
from dtrain.spec.job import JobSpec
from dtrain.steplog.report import TrainReport

MAX_FRUITLESS = 20
"""So many lost attempts without a checkpoint in between, and the job has failed."""

_ROOM_S = 5.0
"""How often it is looked whether the room that trainers wait for was lost."""

_METER_S = 1.0
"""How often scrapes see new figures."""

_IDLE_S = 5.0
"""A generation that has not stepped for so long after it formed had no rows."""

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Orders:
    """What the launcher tells a coordinator."""

    job_id: str
    incarnation: int
    spec_json: str
    logs: str
    workers: int
    accept_code_change: bool
    skip_poison: bool = False
    allow_gap: bool = False
    is_metrics_on_node: bool = False
    code_archive: str = ""


class _StoppedError(Exception):
    """Told to stop while it waited."""


class Coordinator:
    """One incarnation. Every method runs on one event loop."""

    def __init__(self, orders: Orders, archive: bytes = b"") -> None:
        folder = Path(orders.logs) / orders.job_id
        logs.configure(file=folder / f"coordinator-{orders.incarnation}.jsonl")
        self._log = logs.logger(role="coordinator", pid=os.getpid(), incarnation=orders.incarnation)
        self._orders = orders
        self._archive = archive
        self._delivery = NOTHING
        self._code: str | None = None
        self._spec: JobSpec
        self._place: str
        self._store: CheckpointStore
        self._clock = SystemClock()
        self._tracker = Tracker(self._clock)
        self._metrics = JobMetrics(orders.job_id, version=__version__)
        self._logs = folder
        self._run_task: asyncio.Task[None] | None = None
        self._meter_task: asyncio.Task[None] | None = None
        self._attempt: AttemptRun | None = None
        self._crew: Crew | None = None
        self._readers: Readers | None = None
        self._lost_at_s: float | None = None
        self._formed_at_s = 0.0
        self._phase = "starting"
        self._outcome, self._reason, self._message = Outcome.NONE, "", "starting"
        self._is_stopping = False
        self._num_fruitless = 0
        self._accept_code_change = orders.accept_code_change
        self._allow_gap = orders.allow_gap
        self._deaths = Deaths()
        self._steps_s: deque[float] = deque(maxlen=200)

    # --- the control plane's words

    async def start(self) -> None:
        """The job runs from now on; called again, nothing happens."""
        if self._run_task is None:
            self._tracker.metrics_port = self._metrics.serve(
                host=self._node() if self._orders.is_metrics_on_node else "127.0.0.1"
            )
            self._run_task = asyncio.get_running_loop().create_task(self._run())
            self._meter_task = asyncio.get_running_loop().create_task(self._meter())

    async def observe(self, cursor: int) -> Observation:
        """How the job is, and what has happened after `cursor`."""
        await self.start()
        self._tracker.members = self._members()
        happenings, cursor = self._tracker.happenings(cursor)
        return Observation(
            is_alive=True,
            phase=self._phase,
            outcome=self._outcome,
            reason=self._reason,
            message=self._message,
            status=self._tracker.status(),
            happenings=happenings,
            cursor=cursor,
        )

    async def stop(self) -> None:
        """Come to an end behind a last checkpoint."""
        self._is_stopping = True
        if self._attempt is not None:
            self._attempt.is_stopping = True
            self._attempt.wake()

    async def checkpoint(self) -> None:
        """Cut a checkpoint soon."""
        if self._attempt is not None:
            self._attempt.want_checkpoint()

    async def scale(self, workers: int) -> None:
        """So many workers train as soon as there is room."""
        if self._crew is not None and workers != self._crew.target:
            await self._crew.scale(workers)
            self._tracker.happened("scale", f"{workers} workers are wanted")
            self._ready()

    # --- the trainers' words; those of other generations are not heard

    async def pull(self, key: Key, rank: int, after: int) -> PlanBatch:
        """The next plans of a rank."""
        attempt = self._present(key)
        return await attempt.pull(rank, after=after) if attempt is not None else PlanBatch(is_over=True)

    async def report(self, key: Key, report: TrainReport) -> None:
        """The lowest rank says where its generation stands."""
        attempt = self._present(key)
        if attempt is None:
            return
        attempt.report(report)
        for step_s in report.steps_s:
            self._metrics.observe_step(step_s)
        if report.steps_s:
            self._stepped()

    async def arrived(self, key: Key, rank: int) -> None:
        """A member stands behind a membership step."""
        if (attempt := self._present(key)) is not None:
            attempt.arrived(rank)

    async def wrote(self, attempt: int, member: int, snapshot: Snapshot | None, error: DtrainError | None) -> None:
        """A member has written a checkpoint, or could not. Generations may have come and gone since it was cut."""
        if self._attempt is not None and self._attempt.key[0] == attempt:
            self._attempt.wrote(member, snapshot, error)

    async def raised(self, key: Key, rank: int, error: DtrainError) -> None:
        """A member's generation has ended by an error."""
        self._log.warning("raised", attempt=key[0], generation=key[1], rank=rank, error=str(error))
        if (attempt := self._present(key)) is not None:
            attempt.raised(error)

    def _present(self, key: Key) -> AttemptRun | None:
        """The attempt, if `key` is that of its present generation."""
        return self._attempt if self._attempt is not None and self._attempt.key == key else None

    # --- the run

    async def _meter(self) -> None:
        """Scrapes see how the job is: also while nobody trains, which is when somebody looks."""
        while True:
            self._metrics.update(self._tracker.status())
            await asyncio.sleep(_METER_S)

    async def _run(self) -> None:
        try:
            self._open()
            await self._unpack()
            await self._lock()
            self._outcome = await self._try_attempts()
        except _StoppedError:
            self._outcome = Outcome.STOPPED  # while it waited: nothing is trained beyond the last checkpoint
        except DtrainError as error:
            if isinstance(error, PoisonError):
                unrecorded = await asyncio.to_thread(record_poison, self._store, error.ranges)
                if unrecorded is not None:
                    self._tracker.happened("poison", f"the step is not recorded, `--skip-step` will find it anew: {unrecorded}")
            self._outcome, self._reason = verdict_of(error)
            self._message = str(error)
        except Exception as error:  # the actor's top: the job must not hang because of a bug
            self._log.exception("bug")
            self._outcome, self._reason, self._message = Outcome.FAILED, "INTERNAL", f"{type(error).__name__}: {error}"
        self._log.info("ended", outcome=self._outcome.value, reason=self._reason, message=self._message)
        self._tracker.happened("end", self._message or self._outcome.value)
        if self._crew is not None:
            self._crew.close()
        if self._reason == "FENCED":
            os._exit(0)  # a later incarnation runs the job: this one must not be heard any more

    def _open(self) -> None:
        """What the orders name is known. Not in the constructor: an error there would be a dead actor that nobody can ask why."""
        self._spec = JobSpec.from_json(self._orders.spec_json)
        self._place = self._spec.checkpoint.place_of(self._orders.job_id)
        self._store = open_store(self._place)

    async def _unpack(self) -> None:
        """The job's code is in a folder here, for its digest: none of it is imported. The others can fetch it."""
        if self._orders.code_archive:
            self._delivery = Delivery.of(self._orders.code_archive, self._archive)
            self._archive = b""
            self._code = (await asyncio.to_thread(with_code_here, self._spec, self._delivery)).code

    async def _lock(self) -> None:
        """The job's requirements have come to exact packages, the same for its whole life. Nothing of them is installed here."""
        if not self._spec.requirements:
            return
        self._message = "resolving its requirements"
        loop, code = asyncio.get_running_loop(), self._spec.code if self._code is None else self._code

        def tell(words: str) -> None:
            loop.call_soon_threadsafe(self._tracker.happened, "packages", words)

        lock = await asyncio.to_thread(lock_of, self._spec, self._store, code=code, tell=tell)
        self._delivery = replace(self._delivery, lock=lock)

    async def _try_attempts(self) -> Outcome:
        if self._orders.skip_poison:
            await asyncio.to_thread(allow_skips, self._store)
        await self._assemble()
        while True:
            ledger = await self._open_ledger()
            crew, readers = self._crew, self._readers
            if crew is None or readers is None:
                raise InternalError("no crew")
            crew.require(ledger.program_sha256)
            await self._wait_for_trainers(1)
            self._attempt = AttemptRun(
                ledger,
                crew=crew,
                readers=readers,
                tracker=self._tracker,
                deaths=self._deaths,
                steps_s=self._steps_s,
                clock=self._clock,
                on_formed=self._formed,
                on_checkpoint=self._metrics.observe_checkpoint,
                allow_gap=self._allow_gap,
            )
            self._attempt.is_stopping = self._is_stopping
            try:
                outcome = await self._attempt.run()
                self._message = self._attempt.message
                return outcome
            except MemberLostError as error:
                await self._recover(error)

    async def _assemble(self) -> None:
        """Reader and trainers are there: those of an earlier incarnation, and new ones."""
        groups = await asyncio.to_thread(groups_of, self._orders.job_id)
        self._crew = Crew(
            self._spec,
            job_id=self._orders.job_id,
            incarnation=self._orders.incarnation,
            place=self._place,
            logs=self._logs,
            groups=groups,
            target=self._orders.workers,
            coordinator=ray.get_runtime_context().current_actor,
            clock=self._clock,
            on_lost=self._lost,
            on_leaving=lambda member: self._tracker.happened("member", f"{member} was asked to end, and hands over"),
            on_ready=self._ready,
            on_failed=lambda error: self._tracker.happened("member", f"no trainer can be started: {error}"),
            delivery=self._delivery,
        )
        await self._crew.find()
        if not self._crew.ready:  # those who are go on, also where a host was lost and there is no room for all
            self._message = "waiting for the cluster's resources"
            await self._wait_for_room(groups[0], self._crew)
        self._readers = Readers(self._spec, logs=self._logs, tracker=self._tracker, clock=self._clock, delivery=self._delivery)
        installing = "; hosts that lack its packages install them first" if self._delivery.lock else ""
        self._message = f"starting trainers{installing}"
        self._crew.fill()
        if not await asyncio.to_thread(self._store.history):
            await self._readers.begin()  # while trainers start: a topic that is not there is said at once
        first = min(self._crew.target, len(groups[0].bundle_specs))  # there may be no room yet for those that scaling added
        await self._wait_for_trainers(1 if self._crew.ready else first)
        self._message = ""

    async def _wait_for_trainers(self, number: int) -> None:
        looked_at_s = self._clock.monotonic_s()
        while self._crew is not None and len(self._crew.ready) < number:
            if self._crew.failure is not None:
                raise self._crew.failure
            if self._is_stopping:
                raise _StoppedError
            if self._clock.monotonic_s() - looked_at_s > _ROOM_S:
                looked_at_s = self._clock.monotonic_s()
                if await self._has_other_room(self._crew):
                    number = min(number, self._crew.size)
            await asyncio.sleep(0.02)

    async def _wait_for_room(self, group: PlacementGroup, crew: Crew) -> None:
        """`group` is there; or other room, where a host was lost meanwhile with the room that `group` had."""
        reference, looked_at_s = group.ready(), self._clock.monotonic_s()
        while not (await asyncio.to_thread(ray.wait, [reference], timeout=0.5))[0]:
            if self._is_stopping:
                raise _StoppedError
            if self._clock.monotonic_s() - looked_at_s > _ROOM_S:
                looked_at_s = self._clock.monotonic_s()
                if await self._has_other_room(crew):
                    return

    async def _has_other_room(self, crew: Crew) -> bool:
        """Whether the crew's room was lost, with all of the crew: it has other room now."""
        if not await crew.rebook():
            return False
        self._tracker.happened("member", f"its room was on a host that is lost: there is room for {crew.size}")
        return True

    async def _open_ledger(self) -> Ledger:
        ledger = await asyncio.to_thread(
            Ledger.open,
            self._store,
            self._spec,
            job_id=self._orders.job_id,
            incarnation=self._orders.incarnation,
            accept_code_change=self._accept_code_change,
            clock=self._clock,
            code=self._code,
            lock=self._delivery.lock,
        )
        for note in ledger.notes:
            self._tracker.happened("checkpoint", note)
        return ledger

    async def _recover(self, error: MemberLostError) -> None:
        """Nobody has the attempt's state any more: go on from the last checkpoint with whoever comes."""
        if self._lost_at_s is None:
            self._lost_at_s = self._clock.monotonic_s()
        self._phase = "recovering"
        self._tracker.happened("recovery", f"{error.reason}; going back to the last checkpoint")
        if self._attempt is None or self._crew is None:
            raise InternalError("a member was lost before there was an attempt")
        self._num_fruitless = 0 if self._attempt.has_committed else self._num_fruitless + 1
        if self._attempt.has_committed:  # what was allowed is in the log, and in the manifest
            self._accept_code_change = self._allow_gap = False
        if self._num_fruitless > MAX_FRUITLESS:
            raise StateError(f"{MAX_FRUITLESS} attempts were lost in a row without a checkpoint; the last: {error.reason}")
        self._crew.fill()
        await self._wait_for_trainers(1)

    def _formed(self) -> None:
        """A generation is there: it trains, or waits for rows."""
        self._phase, self._message, self._formed_at_s = "running", "", self._clock.monotonic_s()

    def _stepped(self) -> None:
        """A generation has trained: whatever was lost is made good. Time for which it waited for rows is not counted."""
        if self._lost_at_s is not None:
            now_s = self._clock.monotonic_s()
            took_s = (now_s if now_s - self._formed_at_s < _IDLE_S else self._formed_at_s) - self._lost_at_s
            self._lost_at_s = None
            self._tracker.num_recoveries += 1
            self._tracker.last_recovery_s = took_s
            self._metrics.observe_recovery(took_s)
            self._tracker.happened("recovery", f"training again after {took_s:.2f} s")

    def _lost(self, member: TrainerHandle, why: str, is_death: bool) -> None:
        self._tracker.happened("member", f"{member} {'ended' if is_death else 'is evicted'}: {why}")
        if self._attempt is not None and self._attempt.lost(member, is_death=is_death):
            self._phase = "recovering"
            self._lost_at_s = self._lost_at_s or self._clock.monotonic_s()
        elif self._crew is not None:
            self._crew.fill()

    def _ready(self) -> None:
        if self._attempt is not None:
            self._attempt.wake()

    def _node(self) -> str:
        address: str = ray.util.get_node_ip_address()
        return address

    def _members(self) -> tuple[Member, ...]:
        node = self._node()
        members = [Member("coordinator", self._orders.incarnation, -1, os.getpid(), node, self._phase)]
        for index, pid in (self._readers.pids if self._readers is not None else {}).items():
            members.append(Member("reader", index, -1, pid, node, "ready"))
        for trainer in self._crew.ready if self._crew is not None else []:
            state = "training" if trainer.rank >= 0 and self._phase == "running" else "ready"
            members.append(
                Member("trainer", trainer.index, trainer.rank, trainer.introduction.pid, trainer.introduction.node, state)
            )
        return tuple(members)
