"""How many workers a user wants is kept, told to the coordinator, and refused where the spec does not allow it."""

from __future__ import annotations

import pytest

from dtrain.control.wishes import wish, wish_workers
from dtrain.errors import InputError, StateError
from dtrain.job.lifecycle import Event, State
from dtrain.job.protocols import Resources
from tests.support.job_world import StrictLauncher, World


def test_wanted_workers_reach_the_coordinator_and_its_successors() -> None:
    world = World(launcher=StrictLauncher(capacity=Resources(cpus=4)))
    job = world.submit(max=3)
    world.settle()
    assert wish_workers(world.store, job, 2, now_s=1.0).workers == 2
    world.settle()
    assert world.launcher.coordinators[job].workers == 2
    world.launcher.coordinators[job].is_alive = False
    world.settle()
    assert (world.launcher.coordinators[job].incarnation, world.launcher.coordinators[job].workers) == (2, 2)


def test_wanted_workers_beyond_the_spec_or_the_end_are_refused() -> None:
    world = World(launcher=StrictLauncher(capacity=Resources(cpus=4)))
    job = world.submit(max=3)
    world.settle()
    with pytest.raises(InputError, match=r"4 workers are not between `workers.min` \(1\) and `workers.max` \(3\)"):
        wish_workers(world.store, job, 4, now_s=1.0)
    world.wish(job, Event.CANCEL)
    world.settle()
    assert world.state(job) is State.CANCELLED
    with pytest.raises(StateError):
        wish_workers(world.store, job, 2, now_s=1.0)


@pytest.mark.parametrize("allowed", ["accept_code_change", "skip_step", "allow_gap"])
def test_what_is_allowed_to_a_start_that_was_made_is_refused_and_not_forgotten(allowed: str) -> None:
    world = World()
    job = world.submit()
    world.settle()
    with pytest.raises(StateError, match=f"is RUNNING already: --{allowed.replace('_', '-')}"):
        wish(world.store, job, Event.RESUME, now_s=1.0, **{allowed: True})
    assert wish(world.store, job, Event.RESUME, now_s=1.0).state is State.RUNNING
    world.wish(job, Event.SUSPEND)
    world.settle()
    for _ in range(2):  # whose answer was lost asks again
        assert getattr(wish(world.store, job, Event.RESUME, now_s=1.0, **{allowed: True}), allowed)
