"""Fault 25: wishes, deaths and ends race each other; every job's life stays legal and comes to one lawful end."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dtrain.errors import StateError
from dtrain.job.lifecycle import Event, State
from dtrain.job.status import Outcome
from dtrain.spec.job import JobSpec
from tests.support.job_world import World

JOBS = st.sampled_from(["a-00001", "b-00001", "c-00001"])
ENDS = st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED, Outcome.BLOCKED, Outcome.STOPPED])


class Lives(RuleBasedStateMachine):
    """Three jobs that need 1, 2 and 3 of 4 CPUs. The strict twins inside `World` refuse every illegal write and launch."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        for cpus, name in enumerate("abc", 1):
            self.world.submit(name, cpus=cpus)

    @rule(job=JOBS, event=st.sampled_from([Event.SUSPEND, Event.RESUME, Event.CANCEL]))
    def wish(self, job: str, event: Event) -> None:
        before = self.world.state(job)
        try:
            self.world.wish(job, event)
        except StateError:
            assert self.world.state(job) is before

    @rule(times=st.integers(1, 4))
    def cycle(self, times: int) -> None:
        self.world.cycle(times)

    @rule(duration_s=st.sampled_from([0.1, 1.0, 31.0]))
    def pass_time(self, duration_s: float) -> None:
        self.world.clock.sleep(duration_s)

    @rule(in_places=st.integers(0, 30))
    def light_the_fuse(self, in_places: int) -> None:
        self.world.fuse.arm(in_places)

    @rule(num_calls=st.integers(1, 6))
    def cluster_is_away(self, num_calls: int) -> None:
        self.world.launcher.num_refusals = num_calls

    @rule(job=JOBS)
    def kill(self, job: str) -> None:
        if self.world.has_coordinator(job):
            self.world.launcher.kill(job)

    @rule(job=JOBS, outcome=ENDS)
    def finish(self, job: str, outcome: Outcome) -> None:
        if self.world.has_coordinator(job):
            self.world.launcher.finish(job, outcome)

    @invariant()
    def cluster_is_never_overbooked(self) -> None:
        records = [self.world.store.get(f"{name}-00001") for name in "abc"]
        assert sum(JobSpec.from_json(record.spec_json).workers.cpus for record in records if record.has_actors) <= 4

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.fuse.burns_at, self.world.launcher.num_refusals = -1, 0
        self.world.settle()
        for name in "abc":
            record = self.world.store.get(f"{name}-00001")
            assert record.state not in {State.STARTING, State.RECOVERING, State.SUSPENDING, State.CANCELLING}
            assert record.has_actors is self.world.has_coordinator(record.job_id) is record.state.holds_resources
            if not record.state.is_terminal:
                self.world.wish(record.job_id, Event.CANCEL)
        self.world.settle()
        assert self.world.launcher.coordinators == {}
        assert all(self.world.state(f"{name}-00001").is_terminal for name in "abc")


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
