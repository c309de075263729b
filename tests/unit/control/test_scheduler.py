from __future__ import annotations

import pytest

from dtrain.control.scheduler import LONGEST_SILENCE_S
from dtrain.errors import DtrainError, TaskError, UnavailableError
from dtrain.job.lifecycle import Event, State
from dtrain.job.protocols import JobRecord, Resources
from dtrain.job.status import Observation, Outcome
from tests.support.control_plane import a_spec
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


class Freezer(StrictLauncher):
    """Coordinators that are stopped: there, and silent."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen: set[int] = set()

    def observe(self, job_id: str, incarnation: int, *, cursor: int) -> Observation:
        if incarnation in self.frozen:
            return Observation(is_alive=True, cursor=cursor)
        return super().observe(job_id, incarnation, cursor=cursor)

    def launch(self, record: JobRecord) -> None:
        if record.incarnation - 1 in self.frozen:
            self.coordinators.pop(record.job_id, None)  # fenced: it may be there
        super().launch(record)


@pytest.mark.parametrize("is_restarted", [False, True])
def test_coordinator_that_falls_silent_is_lost_after_a_minute(is_restarted: bool) -> None:
    world = World(launcher=(launcher := Freezer()))
    job = world.submit()
    world.settle()
    launcher.frozen.add(1)
    if is_restarted:
        world._start()
    world.cycle()
    world.clock.sleep(LONGEST_SILENCE_S)
    world.cycle(2)
    assert world.store.get(job).incarnation == 1  # a short silence is nothing
    world.clock.sleep(1.0)
    world.settle()
    assert (world.state(job), world.store.get(job).incarnation) == (State.RUNNING, 2)


def test_control_plane_that_was_away_for_long_takes_no_coordinator_for_lost() -> None:
    """It is the coordinator's silence that counts, not the time in which nobody asked."""
    world = World(launcher=(launcher := Freezer()))
    job = world.submit()
    world.settle()
    world.clock.sleep(10 * LONGEST_SILENCE_S)
    launcher.frozen.add(1)
    world.cycle()
    launcher.frozen.clear()
    world.cycle()
    assert (world.state(job), world.store.get(job).incarnation) == (State.RUNNING, 1)


def test_coordinator_that_never_spoke_may_take_its_time() -> None:
    world = World(launcher=(launcher := Freezer()))
    launcher.frozen.add(1)
    job = world.submit()
    world.settle()
    world.settle()
    assert (world.state(job), world.store.get(job).incarnation) == (State.STARTING, 1)
    launcher.frozen.clear()
    world.cycle()
    assert world.state(job) is State.RUNNING


def test_job_whose_coordinator_is_frozen_can_be_suspended() -> None:
    world = World(launcher=(launcher := Freezer()))
    job = world.submit()
    world.settle()
    launcher.frozen.add(1)
    world.wish(job, Event.SUSPEND)
    world.settle()
    assert world.state(job) is State.SUSPENDED


def test_launch_that_can_never_work_fails_the_job() -> None:
    error: DtrainError = TaskError("no module named flights", fix="put it into `code`")
    world = World(launcher=Stubborn(launch=error))
    job = world.submit()
    world.settle()
    record = world.store.get(job)
    assert (record.state, record.reason, record.message) == (State.FAILED, "CANNOT_START", str(error))
    assert not record.has_actors


def old_spec(name: str) -> str:
    """What an earlier dtrain took and this one refuses."""
    return a_spec(name, min=2, max=2).to_json().replace('"bootstrap":"localhost:9092"', '"bootstrap":"kafka"')


def test_queued_job_that_this_version_does_not_take_fails_by_itself_and_holds_up_nobody() -> None:
    world = World(launcher=Stubborn())
    world.store.create(JobRecord(job_id="old-00001", name="old", spec_json=old_spec("old"), request_id="old"))
    new = world.submit("new")
    world.settle()
    record = world.store.get("old-00001")
    assert (record.state, record.reason) == (State.FAILED, "CANNOT_START")
    assert "'kafka' is not host:port; write for example localhost:9092" in record.message
    assert world.state(new) is State.RUNNING


def test_job_at_work_that_this_version_does_not_take_holds_up_nobody() -> None:
    world = World(launcher=Stubborn())
    record = JobRecord(
        "old-00001", "old", State.RUNNING, spec_json=old_spec("old"), request_id="o", incarnation=1, has_actors=True
    )
    world.launcher.launch(world.store.create(record))
    new = world.submit("new")
    world.settle()
    assert (world.state("old-00001"), world.state(new)) == (State.RUNNING, State.RUNNING)


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
