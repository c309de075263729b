"""The scheduler: brings every job to where its record says it should be, one cycle after the other.

A cycle is snapshot → decide → record → act. What it did not get done, or did not live to record, the next cycle finds again: acts are
derived from what is recorded, and all of them can be repeated. Only what this process itself launched is kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from threading import Event as Flag
from threading import Thread

from dtrain.clock import Clock
from dtrain.errors import CorruptError, DtrainError, NotFoundError, SpecError, UnavailableError
from dtrain.job.lifecycle import Event, State
from dtrain.job.protocols import JobRecord, JobStore, Launcher, Resources
from dtrain.job.status import Observation
from dtrain.logs import logger
from dtrain.policy.admission import Waiting, admit
from dtrain.policy.failure import backoff_s
from dtrain.policy.supervision import Judgement, judge, moved, said
from dtrain.spec.job import JobSpec

INTERVAL_S = 0.25
LONGEST_SILENCE_S = 60.0
"""Of a coordinator that has spoken once: its trainers wait no longer for a word of it, either."""
_log = logger(role="scheduler")


@dataclass(slots=True)
class _Seat:
    """An incarnation that this process recorded, or heard of."""

    incarnation: int
    is_launched: bool = False
    due_s: float = 0.0
    """Monotonic time of the launch."""
    num_refusals: int = 0
    has_spoken: bool = False
    silent_s: float | None = None
    """Monotonic time since which it answers nothing, though it has spoken; None as long as it does."""


class Scheduler:
    """One queue of jobs over one launcher.

    Threads: `cycle` runs in one thread at a time; `wake` and `snapshot` may be used from any.
    """

    def __init__(
        self, store: JobStore, launcher: Launcher, *, clock: Clock, on_cycle: Callable[[float], None] | None = None
    ) -> None:
        self.snapshot: tuple[JobRecord, ...] = ()
        """Every unsettled job as of the last cycle."""
        self._store = store
        self._launcher = launcher
        self._clock = clock
        self._on_cycle = on_cycle
        self._seats: dict[str, _Seat] = {}
        self._waker, self._stopper = Flag(), Flag()
        self._thread = Thread(target=self._run, name="scheduler", daemon=True)
        self._last_trouble = ""

    def start(self) -> None:
        """Cycles run in a thread of their own from now on."""
        self._thread.start()

    def wake(self) -> None:
        """The next cycle begins at once: something was recorded."""
        self._waker.set()

    def stop(self) -> None:
        """No cycle runs any more. Blocking: until the present one has ended."""
        self._stopper.set()
        self._waker.set()
        if self._thread.is_alive():
            self._thread.join()

    def cycle(self) -> None:
        """Every job is looked after once, then those are admitted that fit.

        Raises:
            UnavailableError: the store does not answer; whatever was done so far is recorded.
        """
        records = self._store.unsettled()
        self._seats = {record.job_id: self._seats[record.job_id] for record in records if record.job_id in self._seats}
        for record in records:
            self._guarded(record, self._tend)
        self.snapshot = tuple(self._store.unsettled())
        self._admit(self.snapshot)

    def _run(self) -> None:
        while not self._stopper.is_set():
            begin_s = self._clock.monotonic_s()
            try:
                self.cycle()
                self._last_trouble = ""
            except Exception as error:  # the top of a thread: the next cycle tries again
                self._complain(error)
            if self._on_cycle is not None:
                self._on_cycle(self._clock.monotonic_s() - begin_s)
            self._waker.wait(INTERVAL_S)
            self._waker.clear()

    def _guarded(self, record: JobRecord, care: Callable[[JobRecord], object]) -> None:
        """`care` is taken of a job; trouble with it is this job's alone, and is told to its user."""
        try:
            care(record)
        except UnavailableError as error:
            self._say(record, f"tries again: {error.reason}")
        except Exception as error:  # the border of one job: the others go on
            self._complain(error, job_id=record.job_id)

    def _tend(self, record: JobRecord) -> None:
        """What the job's coordinator says is judged and kept, then the cluster is told what the record says."""
        seat = self._seats.get(record.job_id)
        is_ours = seat is not None and seat.incarnation == record.incarnation
        is_launched = is_ours and seat is not None and seat.is_launched
        waits_for_launch = is_ours and not is_launched and record.state.is_working
        kept: JobRecord | None = record
        if record.state.holds_resources and not waits_for_launch:
            seen = self._launcher.observe(record.job_id, record.incarnation, cursor=record.cursor)
            if seen.is_alive:
                seen = self._heard(record, seen, seat if is_ours and seat else _Seat(record.incarnation))
            kept = self._keep(record, judge(record, seen, is_known=is_launched, now_s=self._clock.wall_s()))
        if kept is not None:
            self._act(kept)

    def _heard(self, record: JobRecord, seen: Observation, seat: _Seat) -> Observation:
        """`seen` by a process that exists; not alive where it has been silent for too long behind its first word: stopped, or stuck.

        Should it wake, the checkpoint store's fences keep it from doing anything. One whose happenings are kept has spoken, be it to
        a control plane before this one.
        """
        now_s = self._clock.monotonic_s()
        has_spoken = seat.has_spoken or seen.status is not None or record.cursor > 0
        is_silent = has_spoken and seen.status is None
        silent_s = (now_s if seat.silent_s is None else seat.silent_s) if is_silent else None
        self._seats[record.job_id] = _Seat(record.incarnation, is_launched=True, has_spoken=has_spoken, silent_s=silent_s)
        return replace(seen, is_alive=silent_s is None or now_s - silent_s <= LONGEST_SILENCE_S)

    def _keep(self, old: JobRecord, told: Judgement) -> JobRecord | None:
        """`told` is recorded; None when somebody else changed the job first, and the next cycle shall look again."""
        new = told.record
        if old.state.holds_resources and new.state in {State.SUSPENDED, State.CANCELLED}:
            self._launcher.remove(old.job_id)  # before it is recorded: who reads SUSPENDED finds the resources free
            new = replace(new, has_actors=False)
        if new == old and not told.happenings:
            return old
        kept = self._store.swap(old, new, told.happenings)
        if kept is not None and kept.incarnation != old.incarnation:
            due_s = self._clock.monotonic_s() + backoff_s(kept.failures)
            self._seats[kept.job_id] = _Seat(kept.incarnation, due_s=due_s)
        return kept

    def _act(self, record: JobRecord) -> None:
        if record.state.is_working:
            self._launch(record)
            if record.workers and self._seats[record.job_id].is_launched:
                self._launcher.scale(record.job_id, record.incarnation, record.workers)
        elif record.state is State.SUSPENDING:
            self._launcher.stop(record.job_id, record.incarnation)
        elif record.has_actors and not record.state.holds_resources:
            self._launcher.remove(record.job_id)
            self._store.swap(record, replace(record, has_actors=False))

    def _launch(self, record: JobRecord) -> None:
        seat = self._seats[record.job_id]
        if seat.is_launched or self._clock.monotonic_s() < seat.due_s:
            return
        seat.num_refusals += 1
        seat.due_s = self._clock.monotonic_s() + backoff_s(seat.num_refusals)
        try:
            self._launcher.launch(record)
            seat.is_launched = True
        except DtrainError as error:
            if error.retriable:
                raise
            is_lost = isinstance(error, NotFoundError | CorruptError)  # its code: it goes on when that was sent again
            event, reason = (Event.BLOCKED, "CODE_LOST") if is_lost else (Event.FAILED, "CANNOT_START")
            self._keep(record, moved(record, event, now_s=self._clock.wall_s(), reason=reason, message=str(error)))

    def _admit(self, records: Sequence[JobRecord]) -> None:
        """Every queued job is started, or told why it waits."""
        queued = {record.job_id: record for record in records if record.state is State.QUEUED and not record.has_actors}
        if not queued:
            return
        try:
            capacity = self._launcher.capacity()
        except UnavailableError as error:
            for record in queued.values():
                self._say(record, f"waits for the cluster: {error.reason}")
            return
        taken = _sum([_taken(record.spec_json) for record in records if record.has_actors])
        waiting = [Waiting(job_id, need) for job_id, record in queued.items() if (need := self._need_of(record)) is not None]
        admission = admit(waiting, capacity=capacity, taken=taken)
        for job_id in admission.admitted:
            self._guarded(queued[job_id], self._start)
        for job_id, why in admission.pending.items():
            self._say(queued[job_id], why)

    def _need_of(self, record: JobRecord) -> Resources | None:
        """What a queued job needs to start; None for one that never can, which has failed by then: the others do not wait for it."""
        try:
            return _need(record.spec_json)
        except SpecError as error:
            why, now_s = f"this dtrain does not take the job any more: {error}", self._clock.wall_s()
            failed = moved(record, Event.FAILED, now_s=now_s, reason="CANNOT_START", message=why)
            self._guarded(record, lambda old: self._keep(old, failed))
            return None

    def _start(self, record: JobRecord) -> None:
        fresh = replace(record, incarnation=record.incarnation + 1, has_actors=True, failures=0, cursor=0)
        kept = self._keep(record, moved(fresh, Event.ADMITTED, now_s=self._clock.wall_s()))
        if kept is not None:
            self._launch(kept)

    def _say(self, record: JobRecord, message: str) -> None:
        """The job's message is this, where none of its own is lost by it."""
        new = said(record, now_s=self._clock.wall_s(), message=message)
        if new is not record and (record.state is State.QUEUED or record.state.holds_resources):
            self._store.swap(record, new)

    def _complain(self, error: Exception, **context: str) -> None:
        """The log has the error, once however often it comes in a row."""
        trouble = f"{context}{error!r}"
        if trouble != self._last_trouble:
            _log.error("the scheduler has trouble", exc_info=error, **context)
        self._last_trouble = trouble


@lru_cache(maxsize=4096)
def _need(spec_json: str) -> Resources:
    """What a job needs to start: its fewest workers. Coordinator and readers are small and count as nothing."""
    workers = JobSpec.from_json(spec_json).workers
    return Resources(cpus=workers.min * workers.cpus, gpus=workers.min * workers.gpus)


def _taken(spec_json: str) -> Resources:
    """What a job has taken. One that this dtrain would not take any more counts as nothing: its room is reserved in the cluster."""
    try:
        return _need(spec_json)
    except SpecError:
        return Resources()


def _sum(parts: Sequence[Resources]) -> Resources:
    return Resources(cpus=sum(part.cpus for part in parts), gpus=sum(part.gpus for part in parts))
