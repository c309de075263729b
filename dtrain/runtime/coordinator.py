"""The coordinator: the detached actor that runs one job, attempt after attempt. Imports no torch."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import ray

from dtrain import __version__, logs
from dtrain.checkpoint.manifest import Snapshot
from dtrain.checkpoint.store import CheckpointStore
from dtrain.clock import SystemClock
from dtrain.errors import DtrainError, InternalError, MemberLostError, StateError
from dtrain.job.status import Member, Observation, Outcome
from dtrain.metrics.job import JobMetrics
from dtrain.policy.verdict import verdict_of
from dtrain.runtime.attempt import AttemptRun
from dtrain.runtime.crew import Crew, TrainerHandle
from dtrain.runtime.ledger import Ledger
from dtrain.runtime.messages import PlanBatch
from dtrain.runtime.reading import BlockReader
from dtrain.runtime.tracker import Tracker
from dtrain.spec.job import JobSpec
from dtrain.steplog.report import TrainReport

MAX_FRUITLESS = 20
"""So many lost generations without a checkpoint in between, and the job has failed."""

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
    placement_group: str
    accept_code_change: bool


class _StoppedError(Exception):
    """Told to stop while it waited."""


class Coordinator:
    """One incarnation. Every method runs on one event loop."""

    def __init__(self, orders: Orders) -> None:
        folder = Path(orders.logs) / orders.job_id
        logs.configure(file=folder / f"coordinator-{orders.incarnation}.jsonl")
        self._log = logs.logger(role="coordinator", pid=os.getpid(), incarnation=orders.incarnation)
        self._orders = orders
        self._spec = JobSpec.from_json(orders.spec_json)
        self._folder = self._spec.checkpoint.folder_of(orders.job_id)
        self._store = CheckpointStore(self._folder)
        self._clock = SystemClock()
        self._tracker = Tracker(self._clock)
        self._metrics = JobMetrics(orders.job_id, version=__version__)
        self._logs = folder
        self._run_task: asyncio.Task[None] | None = None
        self._attempt: AttemptRun | None = None
        self._crew: Crew | None = None
        self._reader: BlockReader | None = None
        self._lost_at_s: float | None = None
        self._formed_at_s = 0.0
        self._phase = "starting"
        self._outcome, self._reason, self._message = Outcome.NONE, "", "starting"
        self._is_stopping = False
        self._num_fruitless = 0

    # --- the control plane's words

    async def start(self) -> None:
        """The job runs from now on; called again, nothing happens."""
        if self._run_task is None:
            self._tracker.metrics_port = self._metrics.serve()
            self._run_task = asyncio.get_running_loop().create_task(self._run())

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

    # --- the trainers' words; those of other generations are not heard

    async def pull(self, key: Key, rank: int, after: int) -> PlanBatch:
        """The next plans of a rank."""
        if self._attempt is None or self._attempt.key != key:
            return PlanBatch(is_over=True)
        return await self._attempt.pull(rank, after=after)

    async def report(self, key: Key, report: TrainReport) -> None:
        """The lowest rank says where its generation stands."""
        if self._attempt is None or self._attempt.key != key:
            return
        self._attempt.report(report)
        for step_s in report.steps_s:
            self._metrics.observe_step(step_s)
        if report.steps_s:
            self._stepped()
        self._metrics.update(self._tracker.status())

    async def wrote(self, key: Key, snapshot: Snapshot | None, error: DtrainError | None) -> None:
        """The lowest rank has written a checkpoint, or could not. A join in between changes the generation, not the state."""
        if self._attempt is not None and self._attempt.key[0] == key[0]:
            self._attempt.wrote(snapshot, error)

    async def raised(self, key: Key, rank: int, error: DtrainError) -> None:
        """A member's generation has ended by an error."""
        self._log.warning("raised", attempt=key[0], generation=key[1], rank=rank, error=str(error))
        if self._attempt is not None and self._attempt.key == key:
            self._attempt.fail(error)

    # --- the run

    async def _run(self) -> None:
        try:
            self._outcome = await self._run_attempts()
        except DtrainError as error:
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

    async def _run_attempts(self) -> Outcome:
        try:
            return await self._try_attempts()
        except _StoppedError:
            return Outcome.STOPPED  # while it waited: nothing is trained beyond the last checkpoint

    async def _try_attempts(self) -> Outcome:
        await self._assemble()
        while True:
            ledger = await self._open_ledger()
            crew, reader = self._crew, self._reader
            if crew is None or reader is None:
                raise InternalError("no crew")
            self._attempt = AttemptRun(
                ledger,
                crew=crew,
                reader=reader,
                tracker=self._tracker,
                coordinator=ray.get_runtime_context().current_actor,
                clock=self._clock,
                on_formed=self._formed,
                on_checkpoint=self._metrics.observe_checkpoint,
            )
            self._attempt.is_stopping = self._is_stopping
            try:
                return await self._attempt.run()
            except MemberLostError as error:
                await self._recover(error)

    async def _assemble(self) -> None:
        """Reader and trainers are there: those of an earlier incarnation, and new ones."""
        group = ray.util.get_placement_group(self._orders.placement_group)
        self._message = "waiting for the cluster's resources"
        await self._unless_stopped(group.ready())
        self._crew = Crew(
            self._spec,
            job_id=self._orders.job_id,
            incarnation=self._orders.incarnation,
            folder=self._folder,
            logs=self._logs,
            group=group,
            on_lost=self._lost,
            on_ready=self._ready,
            on_failed=lambda error: self._tracker.happened("member", f"no trainer can be started: {error}"),
        )
        self._reader = BlockReader(self._spec, logs=self._logs, tracker=self._tracker, clock=self._clock)
        self._message = "starting trainers"
        await self._crew.find()
        self._crew.fill()
        if not await asyncio.to_thread(self._store.history):
            await self._reader.begin()  # while trainers start: a topic that is not there is said at once
        await self._wait_for_trainers(min(self._crew.size, self._spec.workers.max))
        self._message = ""

    async def _wait_for_trainers(self, number: int) -> None:
        while self._crew is not None and len(self._crew.ready) < number:
            if self._crew.failure is not None:
                raise self._crew.failure
            if self._is_stopping:
                raise _StoppedError
            await asyncio.sleep(0.02)

    async def _unless_stopped(self, reference: ray.ObjectRef) -> None:
        while not (await asyncio.to_thread(ray.wait, [reference], timeout=0.5))[0]:
            if self._is_stopping:
                raise _StoppedError

    async def _open_ledger(self) -> Ledger:
        ledger = await asyncio.to_thread(
            Ledger.open,
            self._store,
            self._spec,
            job_id=self._orders.job_id,
            incarnation=self._orders.incarnation,
            accept_code_change=self._orders.accept_code_change,
            clock=self._clock,
        )
        for note in ledger.notes:
            self._tracker.happened("checkpoint", note)
        return ledger

    async def _recover(self, error: MemberLostError) -> None:
        """A member is gone: end the generation everywhere, and go on with whoever is left, at once."""
        if self._lost_at_s is None:
            self._lost_at_s = self._clock.monotonic_s()
        self._phase = "recovering"
        self._tracker.happened("recovery", f"{error.reason}; going back to the last checkpoint")
        if self._attempt is None:
            raise InternalError("a member was lost before there was an attempt")
        self._num_fruitless = 0 if self._attempt.has_committed else self._num_fruitless + 1
        fatal = await self._attempt.end_generation()
        if fatal is not None:
            raise fatal
        if self._num_fruitless > MAX_FRUITLESS:
            raise StateError(f"{MAX_FRUITLESS} generations were lost in a row without a checkpoint; the last: {error.reason}")
        if self._crew is not None:
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

    def _lost(self, member: TrainerHandle) -> None:
        self._tracker.happened("member", f"trainer {member.index} (pid {member.introduction.pid}) is gone")
        if self._attempt is not None and self._attempt.lost(member) and self._lost_at_s is None:
            self._lost_at_s = self._clock.monotonic_s()

    def _ready(self) -> None:
        if self._attempt is not None:
            self._attempt.wake()

    def _members(self) -> tuple[Member, ...]:
        node = ray.util.get_node_ip_address()
        members = [Member("coordinator", self._orders.incarnation, -1, os.getpid(), node, self._phase)]
        if self._reader is not None and self._reader.pid:
            members.append(Member("reader", 0, -1, self._reader.pid, node, "ready"))
        for trainer in self._crew.ready if self._crew is not None else []:
            state = "training" if trainer.rank >= 0 and self._phase == "running" else "ready"
            members.append(
                Member("trainer", trainer.index, trainer.rank, trainer.introduction.pid, trainer.introduction.node, state)
            )
        return tuple(members)
