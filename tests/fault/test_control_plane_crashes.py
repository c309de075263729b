"""Fault 17: the control plane is killed before and after every call of its store and launcher, in every scenario."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dtrain.job.lifecycle import Event, State
from dtrain.job.status import Outcome
from dtrain.policy.failure import MAX_FAILURES
from tests.support.job_world import StrictLauncher, World


def succeeds(world: World) -> None:
    world.submit()
    world.settle()
    world.launcher.finish("flights-00001", Outcome.SUCCEEDED)
    world.settle()


def suspends_and_resumes(world: World) -> None:
    job = world.submit()
    world.settle()
    world.wish(job, Event.SUSPEND)
    world.settle()
    assert world.state(job) is State.SUSPENDED
    assert not world.has_coordinator(job)
    world.wish(job, Event.RESUME)
    world.settle()


def is_suspended_at_once(world: World) -> None:
    job = world.submit()
    world.cycle()
    world.wish(job, Event.SUSPEND)
    world.settle()


def is_cancelled_while_it_runs(world: World) -> None:
    job = world.submit()
    world.cycle(2)
    world.wish(job, Event.CANCEL)
    world.settle()


def is_cancelled_while_it_suspends(world: World) -> None:
    job = world.submit()
    world.cycle(2)
    world.wish(job, Event.SUSPEND)
    world.wish(job, Event.CANCEL)
    world.settle()


def is_cancelled_in_the_queue(world: World) -> None:
    job = world.submit(min=8, max=8)
    world.cycle()
    world.wish(job, Event.CANCEL)
    world.settle()


def loses_its_coordinator(world: World) -> None:
    job = world.submit()
    world.settle()
    world.launcher.kill(job)
    world.settle()
    assert world.has_coordinator(job)


def loses_its_coordinator_while_it_suspends(world: World) -> None:
    job = world.submit()
    world.settle()
    world.launcher.kill(job)
    world.wish(job, Event.SUSPEND)
    world.settle()


def is_blocked_and_resumed(world: World) -> None:
    job = world.submit()
    world.settle()
    world.launcher.finish(job, Outcome.BLOCKED, reason="DATA_LOSS", message="offsets 3 to 7 are gone")
    world.settle()
    assert world.store.get(job).reason == "DATA_LOSS"
    assert world.launcher.coordinators == {}
    world.wish(job, Event.RESUME)
    world.settle()


def fails(world: World) -> None:
    job = world.submit()
    world.settle()
    world.launcher.finish(job, Outcome.FAILED, reason="NAN_LOSS", message="the loss is NaN")
    world.settle()


def waits_for_the_first(world: World) -> None:
    first, second = world.submit("first", min=3, max=3), world.submit("second", min=2, max=2)
    world.settle()
    assert (world.state(first), world.state(second)) == (State.RUNNING, State.QUEUED)
    world.wish(first, Event.CANCEL)
    world.settle()


SCENARIOS: dict[Callable[[World], None], dict[str, State]] = {
    succeeds: {"flights-00001": State.SUCCEEDED},
    suspends_and_resumes: {"flights-00001": State.RUNNING},
    is_suspended_at_once: {"flights-00001": State.SUSPENDED},
    is_cancelled_while_it_runs: {"flights-00001": State.CANCELLED},
    is_cancelled_while_it_suspends: {"flights-00001": State.CANCELLED},
    is_cancelled_in_the_queue: {"flights-00001": State.CANCELLED},
    loses_its_coordinator: {"flights-00001": State.RUNNING},
    loses_its_coordinator_while_it_suspends: {"flights-00001": State.SUSPENDED},
    is_blocked_and_resumed: {"flights-00001": State.RUNNING},
    fails: {"flights-00001": State.FAILED},
    waits_for_the_first: {"first-00001": State.CANCELLED, "second-00001": State.RUNNING},
}


def check(world: World, expected: dict[str, State]) -> None:
    for job, state in expected.items():
        record = world.store.get(job)
        assert record.state is state
        assert record.has_actors is world.has_coordinator(job) is state.holds_resources
        numbers = [event.number for event in world.store.events(job, after=0, limit=999)]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_job_ends_as_it_would_have_wherever_the_control_plane_is_killed(scenario: Callable[[World], None]) -> None:
    world = World()
    scenario(world)
    check(world, SCENARIOS[scenario])
    assert world.fuse.num_places > 20
    for place in range(world.fuse.num_places):
        world = World()
        world.fuse.arm(place)
        scenario(world)
        check(world, SCENARIOS[scenario])
        assert world.num_crashes == 2, "one start, one crash"


@pytest.mark.parametrize("first", range(0, 40, 3))
@pytest.mark.parametrize("between", range(1, 24, 4))
def test_job_ends_as_it_would_have_when_the_control_plane_is_killed_twice(first: int, between: int) -> None:
    world = World()
    world.fuse.arm(first)
    world.submit()
    world.cycle(2)
    world.fuse.arm(between)
    world.wish("flights-00001", Event.SUSPEND)
    world.settle()
    world.wish("flights-00001", Event.RESUME)
    world.settle()
    check(world, {"flights-00001": State.RUNNING})


def test_coordinator_that_dies_again_and_again_without_a_step_fails_the_job() -> None:
    world = World()
    job = world.submit()
    world.cycle()
    for _ in range(MAX_FAILURES):
        world.clock.sleep(31.0)
        world.cycle()
        world.launcher.kill(job)
        world.cycle()
    assert world.state(job) is State.FAILED
    assert world.store.get(job).reason == "COORDINATOR_LOST"


def test_coordinator_that_gets_further_each_time_is_started_for_ever() -> None:
    world = World()
    job = world.submit()
    for _ in range(3 * MAX_FAILURES):
        world.settle()
        world.launcher.kill(job)
    world.settle()
    assert world.state(job) is State.RUNNING
    assert world.store.get(job).failures <= 1


def test_happenings_of_a_coordinator_are_kept_once_over_a_restart() -> None:
    world = World(launcher=StrictLauncher())
    job = world.submit()
    world.settle()
    world.launcher.checkpoint(job, 1)
    world.fuse.arm(5)
    world.settle()
    kinds = [event.happening.kind for event in world.store.events(job, after=0, limit=99)]
    assert (kinds.count("generation"), kinds.count("checkpoint")) == (1, 1)
