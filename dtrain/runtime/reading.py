"""Reading: as many readers as are useful, each with partitions of its own; those of one that dies go to the others."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dtrain.clock import Clock
from dtrain.errors import DtrainError, UnavailableError
from dtrain.policy.assignment import ReaderCount, assign
from dtrain.runtime.crew import cause_of, settled
from dtrain.runtime.delivery import NOTHING, Delivery
from dtrain.runtime.intake import Intake, Reading
from dtrain.runtime.messages import Beginning
from dtrain.runtime.reader import Reader
from dtrain.runtime.tasks import TaskSet
from dtrain.runtime.tracker import Tracker
from dtrain.spec.job import JobSpec
from dtrain.steplog.moves import Change
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import RowRange

_RETRY_S = 1.0
_LOOK_EVERY_S = 1.0
_MOVE_EVERY_S = 10.0
_TRIES_TO_BEGIN = 3
_GIVE_BACK_S = 5.0
_DISCOVER_EVERY_S = 2.0


class Readers:
    """Owns the readers' processes. All on the coordinator's event loop, `send_rejects` and `commit` apart.

    Args:
        spec: the job.
        logs: folder of the job's logs.
        tracker: told of lag and of lost readers.
        clock: for rates, and the time at which blocks came.
        delivery: of the job's code.
    """

    def __init__(self, spec: JobSpec, *, logs: Path, tracker: Tracker, clock: Clock, delivery: Delivery = NOTHING) -> None:
        self._spec = spec
        self._delivery = delivery
        self._logs = logs
        self._tracker = tracker
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        fixed = spec.source.readers
        self._count = ReaderCount(0 if fixed == "auto" else fixed, cpus=len(os.sched_getaffinity(0)))
        self._intakes: dict[int, Intake] = {}
        self._num_started = 0
        self._news = asyncio.Event()
        self._reading: Reading | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._beginning: Beginning | None = None
        self._identity: Mapping[str, Any] | None = None
        self._used_s: dict[int, float] = {}  # processor time, by reader, at the last look
        self._loads: dict[Partition, float] = {}  # bytes a second, lately
        self._committed: Any = None
        self._looked_s = self._moved_s = clock.monotonic_s()
        self._tend()

    @property
    def pids(self) -> dict[int, int]:
        """The processes that are ready, by index."""
        return {intake.index: intake.pid for intake in self._intakes.values() if intake.pid}

    async def begin(self) -> Beginning:
        """Topic, first positions and end; asked once, so that they stay what they were.

        Raises:
            NotFoundError: no such topic.
            UnavailableError: no broker, after three tries.
        """
        if self._beginning is None:
            beginning: Beginning = await self._ask(lambda reader: reader.begin.remote())
            self._beginning = beginning
            self._count.look((), num_partitions=len(beginning.positions), is_starved=False)
            self._tend()
        return self._beginning

    async def gaps(self, reading: Reading) -> Change:
        """How the job gets past what is lost of its topics; asked before `follow`, which would raise.

        Raises:
            DataLossError: no records are left.
            UnavailableError: no broker, after three tries.
        """
        following = reading.following(reading.planner.cutter.read_to)
        change: Change = await self._ask(lambda reader: reader.gaps.remote(following))
        return change

    async def fetch(self, ranges: Sequence[RowRange], *, schema: Mapping[str, Any]) -> tuple[Any, int]:
        """A reference to the rows of `ranges`, one range's after the other's, and how many bytes they are.

        Blocking: for as long as there is no broker, or no reader.

        Raises:
            DataLossError: they are gone, or are others than those that the ranges were cut from.
        """
        while True:
            intake = self._any()
            num_bytes, rows = intake.actor.fetch.options(num_returns=2).remote(list(ranges), schema)
            try:
                return rows, await settled(num_bytes)
            except RayActorError:
                intake.lost()
            except UnavailableError as error:
                self._tracker.happened("source", error.reason)
            await asyncio.sleep(_RETRY_S)
            self._tend()

    def follow(self, reading: Reading) -> None:
        """Blocks flow into the planner from now on."""
        self.pause()
        self._reading = reading
        self._identity = reading.manifest.identity
        for intake in self._intakes.values():
            intake.actor.recall.remote(self._identity)
        tasks = TaskSet(reading.on_error)
        self._tasks = [tasks.run(self._conduct(reading))]
        if self._spec.source.grows:
            self._tasks.append(tasks.run(self._discover(reading)))

    def pause(self) -> None:
        """No block flows any more."""
        self._reading = None
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        for intake in self._intakes.values():
            intake.pause()

    def refill(self) -> None:
        """Rows were taken: there may be room for more."""
        if self._reading is not None:
            self._reading.room.set()

    def send_rejects(self, ranges: Sequence[RowRange], *, to_topic: str, job_id: str) -> None:
        """The rejected records are in the dead-letter topic. Blocking; from a thread."""
        intake = self._any()
        try:
            ray.get(intake.actor.send_rejects.remote(list(ranges), to_topic, job_id))
        except RayTaskError as error:
            raise cause_of(error) from None
        except RayActorError as error:
            self._loop.call_soon_threadsafe(intake.lost)
            raise UnavailableError("the reader was lost while it wrote dead letters") from error

    def commit(self, positions: Mapping[Partition, Position], *, group: str) -> None:
        """Kafka's lag tools will hear of it; advisory, so nobody waits. From any thread."""
        self._committed = self._any().actor.commit.remote(dict(positions), group)

    async def given_back(self) -> None:
        """The last `commit` has come to Kafka, if that is possible: soon nobody may be left to do it."""
        if self._committed is not None:
            with suppress(DtrainError, RayActorError, TimeoutError):
                await asyncio.wait_for(settled(self._committed), _GIVE_BACK_S)

    async def _ask(self, question: Callable[[Any], Any]) -> Any:
        """A reader's answer; asked up to three times while there is no broker, or no reader."""
        for tries_left in reversed(range(_TRIES_TO_BEGIN)):
            intake = self._any()
            try:
                return await settled(question(intake.actor))
            except RayActorError:
                intake.lost()
                await asyncio.sleep(_RETRY_S)
                self._tend()
            except UnavailableError:
                if not tries_left:
                    raise
                await asyncio.sleep(_RETRY_S)
        raise UnavailableError("the reader ends while it starts", fix="see the job's logs")

    async def _discover(self, reading: Reading) -> None:
        """Partitions that come are told. While there is no broker, or no reader, those that read say so."""
        while True:
            await asyncio.sleep(_DISCOVER_EVERY_S)
            following = reading.following(reading.planner.cutter.read_to)
            with suppress(UnavailableError, RayActorError):
                change = await settled(self._any().actor.discover.remote(following))
                if change.moves:
                    reading.on_change(change)

    # --- processes

    def _any(self) -> Intake:
        """A reader for errands: one that is ready, if any is."""
        return min(list(self._intakes.values()), key=lambda intake: (not intake.pid, intake.index))

    def _heard(self) -> None:
        """A reader is ready, is lost, or has nothing left to read. One is needed behind that too: for dead letters, and for positions."""
        self._tend()
        self._news.set()

    def _tend(self) -> None:
        """There are as many readers as there shall be, at least one, none of them lost."""
        for intake in [intake for intake in self._intakes.values() if intake.is_lost]:
            self._retire(intake)
            self._tracker.happened(
                "reader", f"reader {intake.index} was lost; its partitions are read on from the last positions read"
            )
        for intake in list(self._intakes.values())[self._count.number :]:
            self._retire(intake)
        while len(self._intakes) < self._count.number:
            self._start()

    def _start(self) -> None:
        log_file = self._logs / f"reader-{self._num_started}.jsonl"
        beside_us = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor = ray.remote(Reader).options(num_cpus=0, max_restarts=0, scheduling_strategy=beside_us)
        process: Any = actor.remote(self._spec.to_json(), str(log_file), self._delivery)
        if self._identity is not None:
            process.recall.remote(self._identity)
        self._intakes[self._num_started] = Intake(
            self._num_started, process, tracker=self._tracker, clock=self._clock, on_news=self._heard
        )
        self._num_started += 1

    def _retire(self, intake: Intake) -> None:
        """Its process ends when nobody refers to it any more."""
        intake.pause()
        del self._intakes[intake.index]

    # --- partitions

    async def _conduct(self, reading: Reading) -> None:
        """Partitions have readers, until all of them are read to their ends."""
        while not reading.planner.cutter.is_read:
            self._news.clear()
            self._arrange(reading)
            try:
                await asyncio.wait_for(self._news.wait(), _LOOK_EVERY_S)
            except TimeoutError:
                continue
        reading.on_blocks()

    def _arrange(self, reading: Reading) -> None:
        unread, now_s = reading.planner.cutter.unread, self._clock.monotonic_s()
        if now_s - self._looked_s >= _LOOK_EVERY_S:
            self._look(reading, unread, since_s=now_s - self._looked_s)
            self._looked_s = now_s
        self._tend()
        ready = {intake.index: intake for intake in self._intakes.values() if intake.pid}
        if not ready:
            return
        current = {partition: intake.index for intake in ready.values() for partition in intake.partitions}
        may_move = len(ready) > reading.num_readers or (self._count.is_short and now_s - self._moved_s >= _MOVE_EVERY_S)
        wanted = assign(unread, current=current, loads=self._loads, readers=ready, may_move=may_move)
        reading.num_readers = len(ready)
        moves = {index: frozenset(p for p, reader in wanted.items() if reader == index) for index in ready}
        changed = [intake for intake in ready.values() if intake.partitions & unread != moves[intake.index]]
        for intake in changed:  # first all of them: no partition has two readers
            intake.pause()
        for intake in changed:
            intake.follow(reading, moves[intake.index])
            self._moved_s = now_s

    def _look(self, reading: Reading, unread: frozenset[Partition], *, since_s: float) -> None:
        """Measure what readers do, and decide how many there shall be."""
        busy = [
            (intake.cpu_s - (self._used_s.get(intake.index) or intake.cpu_s)) / since_s for intake in self._intakes.values()
        ]
        self._used_s = {intake.index: intake.cpu_s for intake in self._intakes.values()}
        came: Counter[Partition] = Counter()
        for intake in self._intakes.values():
            came.update(intake.loads)
            intake.loads = {}
        self._loads = {p: (self._loads.get(p, rate) + rate) / 2 for p in unread for rate in [came[p] / since_s]}
        read_to = reading.planner.cutter.read_to
        has_more = any(self._tracker.end_offsets.get(p, 0) > read_to[p].offset for p in unread - reading.planner.sated)
        is_starved = has_more and reading.planner.wants_blocks
        self._count.look(busy, num_partitions=len(read_to), is_starved=is_starved)


def smallest_store_bytes() -> int:
    """Capacity of the smallest object store among the hosts of the cluster. Blocking: asks Ray."""
    found = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]]
    return int(min(filter(None, found), default=1 << 30))
