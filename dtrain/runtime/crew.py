"""The crew: the trainer processes of a job, found or started, and watched."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dtrain.clock import Clock
from dtrain.code.digest import check_code
from dtrain.errors import DtrainError, InternalError
from dtrain.runtime.delivery import NOTHING, Delivery
from dtrain.runtime.messages import Introduction
from dtrain.runtime.pulse import PulseListener
from dtrain.runtime.room import give_back, group_name, has_lost_room, reserve, reserve_free
from dtrain.runtime.tasks import TaskSet
from dtrain.runtime.trainer import Trainer
from dtrain.spec.job import JobSpec

NAMESPACE = "dtrain"
_ANSWER_S = 30.0
_MAX_STILLBORN = 5
_SPEAK_EVERY_S = 10.0
_RETRY_S = 1.0


@dataclass(slots=True, eq=False)
class TrainerHandle:
    """A trainer that is ready: its task is built.

    Args:
        serial: its number within the incarnation; never used again.
        index: its place among the job's trainers, which another takes when it is lost.
        actor: the process.
        introduction: what it said of itself.
        gone: has why the trainer was lost, once it is.
        rank: in the present generation; -1 outside it.
        is_leaving: it is to be no member of the next generation.
    """

    serial: int
    index: int
    actor: Any
    introduction: Introduction
    gone: asyncio.Future[str]
    rank: int = -1
    is_leaving: bool = False

    def __str__(self) -> str:
        return f"trainer {self.index} (pid {self.introduction.pid} on {self.introduction.node})"


class Crew:
    """Keeps `size` trainers alive, of which `target` shall train.

    Threads: all on the coordinator's event loop.

    Args:
        spec: the job.
        job_id: its id.
        incarnation: of the coordinator; part of the names of those it starts.
        place: of the job's checkpoints.
        logs: folder of the job's logs.
        groups: the placement groups that they run in, that of the job's beginning first; more are made where more are wanted.
        target: how many shall train.
        coordinator: the actor that trainers call.
        clock: for leases.
        on_lost: called with each trainer that is lost, why, and whether its process ended by itself.
        on_leaving: called with each trainer that was asked to end and hands over first.
        on_ready: called when a trainer that was started is ready, or cannot be.
        on_failed: called with why none can be started.
        delivery: of the job's code.
    """

    def __init__(
        self,
        spec: JobSpec,
        *,
        job_id: str,
        incarnation: int,
        place: str,
        logs: Path,
        groups: Sequence[PlacementGroup],
        target: int,
        coordinator: Any,
        clock: Clock,
        on_lost: Callable[[TrainerHandle, str, bool], None],
        on_leaving: Callable[[TrainerHandle], None],
        on_ready: Callable[[], None],
        on_failed: Callable[[DtrainError], None],
        delivery: Delivery = NOTHING,
    ) -> None:
        self._spec = spec
        self._job_id = job_id
        self._incarnation = incarnation
        self._place = place
        self._logs = logs
        self._coordinator = coordinator
        self._delivery = delivery
        self._groups = list(groups)
        self._booking = asyncio.Lock()
        self._on_lost = on_lost
        self._on_leaving = on_leaving
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._num_started = 0
        self._num_stillborn = 0
        self._tasks = TaskSet(self._failed)
        self._starting: list[str] = []  # the placement group that each takes a seat in
        self._serials = count(1)
        self.pulses = PulseListener(lease_s=spec.workers.lease, clock=clock, on_silent=self.lose, on_leaving=self._leaves)
        self.size = min(self._num_seats, target + spec.workers.spares)
        self.target = min(self.size, target)
        self.ready: list[TrainerHandle] = []
        self.failure: DtrainError | None = None
        self._code_sha256: str | None = None
        self._is_closed = False

    async def find(self) -> None:
        """The trainers that an earlier incarnation left are ready again, if they answer; the others are ended."""
        await self.pulses.open(ray.util.get_node_ip_address())
        prefix = f"{self._job_id}/trainer/"
        names = sorted(name for name in ray.util.list_named_actors() if name.startswith(prefix))
        await asyncio.gather(*map(self._find, names))

    async def _find(self, name: str) -> None:
        try:
            actor = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            return  # it has ended meanwhile
        serial = next(self._serials)
        try:
            introduction = await asyncio.wait_for(
                settled(actor.introduce.remote(self.pulses.terms(serial), self._coordinator, self._delivery)), _ANSWER_S
            )
        except (RayActorError, TimeoutError, DtrainError):
            self._end(actor)
        else:
            self._add(serial, actor, introduction)

    def require(self, code_sha256: str) -> None:
        """Whoever has imported other code than this is none of the crew, from now on."""
        self._code_sha256 = code_sha256
        for member in [member for member in self.ready if member.introduction.code_sha256 != code_sha256]:
            self.lose(member.serial, "it has other code than the job has now", is_death=False)
        self.fill()

    def fill(self) -> None:
        """As many trainers as are missing are being started."""
        if self._is_closed:
            return
        staying = sum(not member.is_leaving for member in self.ready)
        for _ in range(self.size - staying - len(self._starting)):
            group = self._roomy()
            self._starting.append(group.id.hex())
            self._tasks.run(self._start(group))

    async def scale(self, workers: int) -> None:
        """`workers` shall train; there are as many trainers, and the spares, as soon as the cluster has room."""
        if self._is_closed:
            return
        self.target, self.size = workers, workers + self._spec.workers.spares
        async with self._booking:
            missing = self.size - self._num_seats
            if missing > 0:
                name = f"{group_name(self._job_id)}/{self._incarnation}-{len(self._groups)}"
                self._groups.append(await asyncio.to_thread(reserve, self._spec, name=name, size=missing))
        self.fill()

    async def rebook(self) -> bool:
        """Where nobody is left, and a host has gone with the job's room: other room, as much as there is now. Whether that was so."""
        async with self._booking:
            if self.ready or not await asyncio.to_thread(has_lost_room, self._job_id):
                return False
            self._tasks.cancel()  # those that start have no seats any more
            await asyncio.to_thread(give_back, self._job_id)
            group = await asyncio.to_thread(reserve_free, self._spec, job_id=self._job_id, workers=self.target)
            self._groups, self.size = [group], len(group.bundle_specs)
            self.target = min(self.size, self.target)
        self.fill()
        return True

    def trim(self) -> None:
        """Those who are in no generation and are too many end."""
        idle = sorted((m for m in self.ready if m.rank < 0), key=lambda m: (not m.is_leaving, m.serial))
        num_leaving = sum(member.is_leaving for member in idle)
        for member in idle[: max(num_leaving, len(self.ready) - self.size)]:
            self._release(member)

    def lose(self, serial: int, why: str, is_death: bool) -> None:
        """This trainer is lost for us, whatever it does: nothing waits for it, and it is ended behind our backs.

        Args:
            serial: its number; one that is lost already, or that was let go, is passed over.
            why: said to users.
            is_death: its process ended by itself.
        """
        member = self._member(serial)
        if member is not None and not self._is_closed:
            self._drop(member, why)
            self.failure, self._num_stillborn = None, 0  # a new loss, new tries
            self._on_lost(member, why, is_death)
            self._tasks.run(asyncio.to_thread(self._end, member.actor))

    def _release(self, member: TrainerHandle) -> None:
        self._drop(member, "it was let go")
        member.actor.leave.remote()

    def close(self) -> None:
        """Stop watching and starting; the processes live on, and nobody is told of their ends."""
        self._is_closed = True
        self._tasks.cancel()
        self.pulses.close()

    async def _start(self, group: PlacementGroup) -> None:
        actor = speaking = None
        serial = next(self._serials)
        try:
            actor = await asyncio.to_thread(self._new_actor(group))  # it asks Ray's head, which may be out of reach for a while
            speaking = self._tasks.run(_speak(actor))
            introduction = await settled(actor.introduce.remote(self.pulses.terms(serial), self._coordinator, self._delivery))
            if self._code_sha256 is not None:
                check_code(introduction.code_sha256, wanted=self._code_sha256, who=f"a new trainer on {introduction.node}")
        except RayActorError as error:
            await self._stillborn(error)
        except DtrainError as error:
            self._failed(error)
            self._end(actor)
        else:
            self._num_stillborn, self.failure = 0, None
            self._add(serial, actor, introduction)
        finally:
            if speaking is not None:
                speaking.cancel()
            self._starting.remove(group.id.hex())
        if self.failure is None:
            self.fill()
        self._on_ready()

    @property
    def _num_seats(self) -> int:
        return sum(len(group.bundle_specs) for group in self._groups)

    def _roomy(self) -> PlacementGroup:
        """A placement group with a free seat."""
        seated = Counter([*self._starting, *(member.introduction.placement_group for member in self.ready)])
        return next((g for g in self._groups if seated[g.id.hex()] < len(g.bundle_specs)), self._groups[0])

    def _new_actor(self, group: PlacementGroup) -> Callable[[], Any]:
        """What makes an actor in `group`."""
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
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group),
        }
        trainer = ray.remote(Trainer).options(**options)
        return partial(trainer.remote, self._spec.to_json(), self._place, str(log_file))

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

    def _add(self, serial: int, actor: Any, introduction: Introduction) -> None:
        index = min(set(range(self.size + len(self.ready) + 1)) - {member.index for member in self.ready})
        member = TrainerHandle(serial, index, actor, introduction, asyncio.get_running_loop().create_future())
        self.ready.append(member)
        self._tasks.run(self._watch(member))

    async def _watch(self, member: TrainerHandle) -> None:
        """Speak to it until it is lost; where its socket does not tell of its end, Ray does."""
        speaking = self._tasks.run(_speak(member.actor))
        living = self._tasks.run(self._live(member))
        try:
            await asyncio.shield(member.gone)
        finally:
            speaking.cancel()
            living.cancel()

    async def _live(self, member: TrainerHandle) -> None:
        while True:
            try:
                await settled(member.actor.live.remote())
            except ActorUnavailableError:  # it is Ray that does not reach it: that is not its end
                await asyncio.sleep(_RETRY_S)
            except RayActorError:
                self.lose(member.serial, "its process has ended", is_death=True)
                return
            else:
                return  # another has taken the watch over

    def _member(self, serial: int) -> TrainerHandle | None:
        return next((member for member in self.ready if member.serial == serial), None)

    def _leaves(self, serial: int) -> None:
        member = self._member(serial)
        if member is not None and not member.is_leaving:
            member.is_leaving = True
            self._on_leaving(member)
            self.fill()
            self._on_ready()

    def _end(self, actor: Any) -> None:
        """End a process that is dead, or as good as; never waited for: Ray takes seconds where it is stopped."""
        ray.kill(actor, no_restart=True)

    def _drop(self, member: TrainerHandle, why: str) -> None:
        self.ready.remove(member)
        self.pulses.forget(member.serial)
        member.gone.set_result(why)


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
