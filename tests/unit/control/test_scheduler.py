from __future__ import annotations

import pytest

from dtrain.errors import DtrainError, TaskError, UnavailableError
from dtrain.job.lifecycle import Event, State
from dtrain.job.protocols import JobRecord, Resources
from dtrain.job.status import Outcome
from tests.support.job_world import StrictLauncher, World


class Stubborn(StrictLauncher):
    """Refuses what a test tells it to refuse."""

    refused: dict[str, Exception]

    def __init__(self, **refused: Exception) -> None:
        super().__init__(capacity=Resources(cpus=2))
        self.refused = refused

    def launch(self, record: JobRecord) -> None:
        self._raise("launch")
        super().launch(record)

    def remove(self, job_id: str) -> None:
        self._raise("remove")
        super().remove(job_id)

    def capacity(self) -> Resources:
        self._raise("capacity")
        return super().capacity()

    def _raise(self, name: str) -> None:
        if name in self.refused:
            raise self.refused[name]


AWAY = UnavailableError("Ray does not answer")


@pytest.mark.parametrize(("call", "state"), [("launch", State.STARTING), ("capacity", State.QUEUED)])
def test_cluster_that_is_away_keeps_the_job_waiting_and_says_so(call: str, state: State) -> None:
    world = World(launcher=Stubborn(**{call: AWAY}))
    job = world.submit()
    world.settle()
    assert world.state(job) is state
    assert "Ray does not answer" in world.store.get(job).message
    world.launcher.refused.clear()
    world.settle()
    assert (world.state(job), world.store.get(job).message) == (State.RUNNING, "")


def test_launch_that_can_never_work_fails_the_job() -> None:
    error: DtrainError = TaskError("no module named flights", fix="put it into `code`")
    world = World(launcher=Stubborn(launch=error))
    job = world.submit()
    world.settle()
    record = world.store.get(job)
    assert (record.state, record.reason, record.message) == (State.FAILED, "CANNOT_START", str(error))
    assert not record.has_actors


def test_job_whose_processes_cannot_be_removed_keeps_its_room_and_its_reason() -> None:
    world = World(launcher=Stubborn())
    first, second = world.submit("first", min=2, max=2), world.submit("second", min=2, max=2)
    world.settle()
    world.launcher.refused["remove"] = AWAY
    world.launcher.kill(first)
    world.wish(first, Event.CANCEL)
    world.settle()
    assert (world.state(first), world.state(second)) == (State.CANCELLING, State.QUEUED)
    world.launcher.refused.clear()
    world.settle()
    assert (world.state(first), world.state(second)) == (State.CANCELLED, State.RUNNING)


def test_finished_job_whose_processes_linger_keeps_its_room() -> None:
    world = World(launcher=Stubborn(remove=AWAY))
    first, second = world.submit("first", min=2, max=2), world.submit("second", min=2, max=2)
    world.settle()
    world.launcher.finish(first, Outcome.FAILED, reason="NAN_LOSS", message="the loss is NaN")
    world.settle()
    assert (world.state(first), world.store.get(first).reason, world.state(second)) == (State.FAILED, "NAN_LOSS", State.QUEUED)
    world.launcher.refused.clear()
    world.settle()
    assert world.state(second) is State.RUNNING


def test_bug_over_one_job_leaves_the_others_alone() -> None:
    world = World(launcher=StrictLauncher(capacity=Resources(cpus=4)))
    job = world.submit("first")
    world.settle()
    world.launcher.coordinators[job].happenings = None  # type: ignore[assignment]
    second = world.submit("second")
    with pytest.raises(AssertionError, match="TypeError"):
        world.settle()
    world.troubles.clear()
    world.scheduler.cycle()
    assert world.state(second) is State.RUNNING


def test_backoff_after_a_loss_is_kept() -> None:
    world = World()
    job = world.submit()
    world.settle()
    world.launcher.kill(job)
    world.cycle(3)
    assert not world.has_coordinator(job)
    world.clock.sleep(1.0)
    world.cycle()
    assert world.has_coordinator(job)
