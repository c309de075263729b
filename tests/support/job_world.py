"""Jobs, a scheduler and a make-believe cluster, in which the control plane can die between any two instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dtrain.control.scheduler import Scheduler
from dtrain.control.wishes import wish
from dtrain.errors import UnavailableError
from dtrain.job.lifecycle import TABLE, Event, State
from dtrain.job.memory import MemoryJobStore, MemoryLauncher
from dtrain.job.protocols import JobRecord, JobStore, Launcher, Resources
from dtrain.job.status import Happening, Observation, Outcome
from tests.support.control_plane import a_spec

LEGAL = {(state, following) for (state, _), following in TABLE.items()} | {(state, state) for state in State}


class HandClock:
    """Time stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


class Crash(BaseException):
    """The control plane is killed here; nothing may catch it."""


class Fuse:
    """Burns at one of the places that are passed, counted from 0: each call of a store or launcher has one before and one after."""

    def __init__(self) -> None:
        self.num_places = 0
        self.burns_at = -1

    def arm(self, in_places: int) -> None:
        self.burns_at = self.num_places + in_places

    def pass_by(self) -> None:
        place, self.num_places = self.num_places, self.num_places + 1
        if place == self.burns_at:
            raise Crash


class Wired:
    """`inner`, with the fuse before and after each call of a method."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._fuse.pass_by()
            answer = method(*args, **kwargs)
            self._fuse.pass_by()
            return answer

        return call


class StrictStore(MemoryJobStore):
    """Refuses every write that no job's life allows."""

    def swap(self, old: JobRecord, new: JobRecord, happenings: Sequence[Happening] = ()) -> JobRecord | None:
        assert (old.state, new.state) in LEGAL, f"{old.state} → {new.state}"
        assert new.incarnation - old.incarnation in {0, 1}
        assert new.has_actors or not new.state.holds_resources, "what holds resources has actors"
        assert [told.kind for told in happenings].count("state") == (old.state is not new.state), (
            "one line for each change of state"
        )
        return super().swap(old, new, happenings)


class StrictLauncher(MemoryLauncher):
    """Refuses to launch what was not recorded before, or what is second to another. For `num_refusals` calls the cluster is away."""

    store: JobStore
    num_refusals = 0

    def capacity(self) -> Resources:
        self._refuse()
        return super().capacity()

    def observe(self, job_id: str, incarnation: int, *, cursor: int) -> Observation:
        self._refuse()
        return super().observe(job_id, incarnation, cursor=cursor)

    def stop(self, job_id: str, incarnation: int) -> None:
        self._refuse()
        super().stop(job_id, incarnation)

    def remove(self, job_id: str) -> None:
        self._refuse()
        super().remove(job_id)

    def launch(self, record: JobRecord) -> None:
        self._refuse()
        kept = self.store.get(record.job_id)
        assert kept.incarnation == record.incarnation, "record, then act"
        assert kept.has_actors
        other = self.coordinators.get(record.job_id)
        is_other = (
            other is not None and other.is_alive and other.outcome is Outcome.NONE and other.incarnation != record.incarnation
        )
        assert not is_other, "two coordinators of one job"
        super().launch(record)

    def _refuse(self) -> None:
        if self.num_refusals:
            self.num_refusals -= 1
            raise UnavailableError("the cluster is away")


class World:
    """A store and a launcher that survive, and a scheduler that may not."""

    def __init__(self, *, store: JobStore | None = None, launcher: StrictLauncher | None = None) -> None:
        self.clock, self.fuse = HandClock(), Fuse()
        self.store: JobStore = store or StrictStore()
        self.launcher = launcher or StrictLauncher()
        self.launcher.store = self.store
        self.num_crashes = 0
        self._start()

    def submit(self, name: str = "flights", **workers: float) -> str:
        """Submitted, and submitted again by the same client when the control plane died over it."""
        spec = a_spec(name, **workers)
        record = JobRecord(job_id=f"{name}-00001", name=name, spec_json=spec.to_json(), request_id=name)
        return self._until_answered(lambda: self._wired_store.create(record)).job_id

    def wish(self, job: str, event: Event) -> None:
        """Asked for, and asked again when the control plane died over it."""
        self._until_answered(lambda: wish(self._wired_store, job, event, now_s=self.clock.wall_s()))

    def cycle(self, times: int = 1) -> None:
        """So many cycles; one in which the control plane dies is followed by those of its successor."""
        for _ in range(times):
            try:
                self.scheduler.cycle()
            except Crash:
                self._start()
            assert not self.troubles, self.troubles

    def settle(self) -> None:
        """Cycles, and time for every backoff, until there is nothing left to be done."""
        for _ in range(6):
            self.cycle()
            self.clock.sleep(31.0)

    def state(self, job: str) -> State:
        return self.store.get(job).state

    def has_coordinator(self, job: str) -> bool:
        found = self.launcher.coordinators.get(job)
        return found is not None and found.is_alive

    def _start(self) -> None:
        self.num_crashes += 1
        self._wired_store: JobStore = Wired(self.store, self.fuse)  # type: ignore[assignment]
        launcher: Launcher = Wired(self.launcher, self.fuse)  # type: ignore[assignment]
        self.scheduler = Scheduler(self._wired_store, launcher, clock=self.clock)
        self.troubles: list[Exception] = []
        self.scheduler._complain = lambda error, **_: self.troubles.append(error)  # type: ignore[method-assign]

    def _until_answered(self, ask: Callable[[], JobRecord]) -> JobRecord:
        while True:
            try:
                return ask()
            except Crash:
                self._start()
