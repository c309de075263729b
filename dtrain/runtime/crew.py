"""The crew: the trainer processes of a job, found or started, and watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dtrain.errors import DtrainError, InternalError
from dtrain.runtime.messages import Introduction
from dtrain.runtime.tasks import TaskSet
from dtrain.runtime.trainer import Trainer
from dtrain.spec.job import JobSpec

NAMESPACE = "dtrain"
_ANSWER_S = 10.0
_END_S = 60.0  # a member may have to finish a long forward first; a dead one raises at once
_MAX_STILLBORN = 5
_SPEAK_EVERY_S = 10.0


@dataclass(slots=True)
class TrainerHandle:
    """A trainer that is ready: its task is built."""

    index: int
    actor: Any
    introduction: Introduction
    rank: int = -1


class Crew:
    """Keeps `size` trainers alive.

    Threads: all on the coordinator's event loop.

    Args:
        spec: the job.
        job_id: its id.
        incarnation: of the coordinator; part of the names of those it starts.
        folder: of the job's checkpoints.
        logs: folder of the job's logs.
        group: the placement group that they run in.
        on_lost: called with each trainer that has died.
        on_ready: called when a trainer that was started is ready, or cannot be.
        on_failed: called with why none can be started.
    """

    def __init__(
        self,
        spec: JobSpec,
        *,
        job_id: str,
        incarnation: int,
        folder: Path,
        logs: Path,
        group: Any,
        on_lost: Callable[[TrainerHandle], None],
        on_ready: Callable[[], None],
        on_failed: Callable[[DtrainError], None],
    ) -> None:
        self._spec = spec
        self._job_id = job_id
        self._incarnation = incarnation
        self._folder = folder
        self._logs = logs
        self._group = group
        self._on_lost = on_lost
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._num_started = 0
        self._num_stillborn = 0
        self._tasks = TaskSet(self._failed)
        self._num_starting = 0
        self.size = len(group.bundle_specs)
        self.ready: list[TrainerHandle] = []
        self.failure: DtrainError | None = None

    async def find(self) -> None:
        """The trainers that an earlier incarnation left are ready again, if they answer; the others are ended."""
        prefix = f"{self._job_id}/trainer/"
        for name in sorted(ray.util.list_named_actors()):
            if not name.startswith(prefix):
                continue
            try:
                actor = ray.get_actor(name, namespace=NAMESPACE)
            except ValueError:
                continue  # it has ended meanwhile
            try:
                await asyncio.wait_for(settled(actor.end.remote()), _ANSWER_S)
                introduction = await asyncio.wait_for(settled(actor.introduce.remote()), _ANSWER_S)
            except (RayActorError, TimeoutError, DtrainError):
                _kill(actor)
            else:
                self._add(actor, introduction)

    def fill(self) -> None:
        """As many trainers as are missing are being started."""
        for _ in range(self.size - len(self.ready) - self._num_starting):
            self._num_starting += 1
            self._tasks.run(self._start())

    async def end_generation(self, members: list[TrainerHandle]) -> list[DtrainError]:
        """No member applies anything more under its generation; those that do not answer are lost. What the others raised."""
        errors: list[DtrainError] = []

        async def end(member: TrainerHandle) -> None:
            try:
                error = await asyncio.wait_for(settled(member.actor.end.remote()), _END_S)
            except (RayActorError, TimeoutError):
                self._lose(member)
            else:
                errors.extend([error] if error is not None else [])

        await asyncio.gather(*map(end, members))
        return errors

    def close(self) -> None:
        """Stop watching and starting; the processes live on."""
        self._tasks.cancel()

    async def _start(self) -> None:
        actor = speaking = None
        try:
            actor = self._new_actor()
            speaking = self._tasks.run(_speak(actor))
            introduction = await settled(actor.introduce.remote())
        except RayActorError as error:
            await self._stillborn(error)
        except DtrainError as error:
            self._failed(error)
            _kill(actor)
        else:
            self._num_stillborn, self.failure = 0, None
            self._add(actor, introduction)
        finally:
            if speaking is not None:
                speaking.cancel()
            self._num_starting -= 1
        if self.failure is None:
            self.fill()
        self._on_ready()

    def _new_actor(self) -> Any:
        name = f"{self._job_id}/trainer/{self._incarnation}-{self._num_started}"
        log_file = self._logs / f"trainer-{self._incarnation}-{self._num_started}.jsonl"
        self._num_started += 1
        options = {
            "name": name,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "num_cpus": self._spec.workers.cpus,
            "num_gpus": self._spec.workers.gpus,
            "max_restarts": 0,
            "max_concurrency": 16,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group),
        }
        return ray.remote(Trainer).options(**options).remote(self._spec.to_json(), str(self._folder), str(log_file))

    async def _stillborn(self, error: RayActorError) -> None:
        """A trainer has died before it was ready: give up after a few, and take more time each."""
        self._num_stillborn += 1
        if self._num_stillborn >= _MAX_STILLBORN:
            self.failure = InternalError(
                f"trainers end while they start: {str(error).splitlines()[0][:300]}", fix="see the job's logs"
            )
        await asyncio.sleep(0.2 * 2**self._num_stillborn)

    def _failed(self, error: DtrainError) -> None:
        """No trainer can be started now; those that are there train on."""
        self.failure = error
        self._on_failed(error)
        self._on_ready()

    def _add(self, actor: Any, introduction: Introduction) -> None:
        index = min(set(range(self.size + len(self.ready) + 1)) - {member.index for member in self.ready})
        member = TrainerHandle(index, actor, introduction)
        self.ready.append(member)
        self._tasks.run(self._watch(member))

    async def _watch(self, member: TrainerHandle) -> None:
        speaking = self._tasks.run(_speak(member.actor))
        try:
            await settled(member.actor.live.remote())
        except RayActorError:
            self._lose(member)
        finally:
            speaking.cancel()

    def _lose(self, member: TrainerHandle) -> None:
        if member in self.ready:
            self.ready.remove(member)
            _kill(member.actor)
            self._on_lost(member)
            self.failure, self._num_stillborn = None, 0  # a new loss, new tries
            self.fill()


async def _speak(actor: Any) -> None:
    """Let a trainer hear from time to time that it is no orphan."""
    while True:
        actor.hear.remote()
        await asyncio.sleep(_SPEAK_EVERY_S)


async def settled(reference: Any) -> Any:
    """What a call gave, or the error that it raised as it was there."""
    try:
        return await reference
    except RayTaskError as error:
        raise cause_of(error) from None


def cause_of(error: RayTaskError) -> DtrainError:
    """What was raised on the other side."""
    if isinstance(error.cause, DtrainError):
        return error.cause
    return InternalError(f"{type(error.cause).__name__}: {error.cause}")


def _kill(actor: Any) -> None:
    """End a process that is dead, or as good as; never waited for: Ray takes seconds where it is stopped."""
    ray.kill(actor, no_restart=True)
