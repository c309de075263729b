"""The intake: the coordinator's end of one reader. Blocks of its partitions come ahead of need, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayActorError

from dtrain.checkpoint.manifest import Manifest
from dtrain.clock import Clock
from dtrain.errors import DtrainError, UnavailableError
from dtrain.policy.blocking import call_size, weight_bytes
from dtrain.runtime.crew import settled
from dtrain.runtime.messages import Following, ReadReport
from dtrain.runtime.planner import Planner
from dtrain.runtime.tasks import TaskSet
from dtrain.runtime.tracker import Tracker
from dtrain.steplog.moves import Change
from dtrain.steplog.positions import Partition
from dtrain.stream.log import Identity

IN_FLIGHT = 3
"""Calls to a reader that are made before the first of them has answered; one alone where the last one brought nothing."""

_RETRY_S = 1.0


@dataclass(slots=True)
class Reading:
    """What is read for, and whom to tell.

    Args:
        planner: gets the blocks.
        manifest: of the checkpoint that the attempt began with: which topic, and where it ends.
        on_blocks: called when blocks have come.
        on_change: called when partitions have come.
        on_error: called with what ends the attempt.
        code_sha256: digest of the attempt's code, and of the lock of its packages.
        room: set whenever there may be room for more.
        num_readers: among which the buffer is shared.
    """

    planner: Planner
    manifest: Manifest
    on_blocks: Callable[[], None]
    on_change: Callable[[Change], None]
    on_error: Callable[[DtrainError], None]
    code_sha256: str = ""
    room: asyncio.Event = field(default_factory=asyncio.Event)
    num_readers: int = 1

    def following(self, partitions: Collection[Partition], *, epoch: int = 0) -> Following:
        """From where on `partitions` are to be read now, and what they were."""
        manifest, planner, read_to = self.manifest, self.planner, self.planner.cutter.read_to
        return Following(
            epoch=epoch,
            positions={p: read_to[p] for p in partitions},
            ends=None if manifest.ends is None else {p: end for p, end in manifest.ends.items() if p in partitions},
            schema=manifest.schema,
            identity=Identity.from_json(manifest.identity, later=planner.topics).to_json(),
            marks={p: mark for p, mark in planner.cutter.marks.items() if p in partitions},
            code_sha256=self.code_sha256,
        )


class Intake:
    """One reader's process, its partitions, and the calls to it that are in flight. On the coordinator's event loop.

    Args:
        index: of the reader in the job; never used again.
        actor: its process.
        tracker: told of lag and of what the source says.
        clock: for the time at which blocks came.
        on_news: called when the process has answered for the first time, is lost, or has read its partitions to their ends.
    """

    def __init__(self, index: int, actor: Any, *, tracker: Tracker, clock: Clock, on_news: Callable[[], None]) -> None:
        self.index = index
        self.actor = actor
        self.pid = 0
        """Of the process; 0 until it has answered."""
        self.is_lost = False
        self.partitions: frozenset[Partition] = frozenset()
        self.cpu_s = 0.0
        """Processor time that the process has used, in seconds, as last heard."""
        self.loads: dict[Partition, int] = {}
        """What has come of each partition, in bytes, since somebody emptied this."""
        self._tracker = tracker
        self._clock = clock
        self._on_news = on_news
        self._epoch = 0
        self._task: asyncio.Task[None] | None = None
        self._tasks = TaskSet(lambda _: self.lost())
        self._tasks.run(self._introduce())

    def follow(self, reading: Reading, partitions: frozenset[Partition]) -> None:
        """Blocks of `partitions`, and no others, flow into the planner from now on, from where others have come before."""
        self.pause()
        self.partitions = partitions
        if partitions:
            self._task = TaskSet(reading.on_error).run(self._read_until_lost(reading))

    def pause(self) -> None:
        """No block flows any more."""
        self.partitions = frozenset()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def lost(self) -> None:
        """The process has ended; one that never came to life is said to be so a little later, and so is not replaced in a hurry."""
        if not self.is_lost:
            self.is_lost = True
            asyncio.get_running_loop().call_later(0.0 if self.pid else _RETRY_S, self._on_news)

    async def _introduce(self) -> None:
        self.pid = await self.actor.pid.remote()
        self._on_news()

    async def _read_until_lost(self, reading: Reading) -> None:
        while unread := self.partitions & reading.planner.cutter.unread:
            try:
                await self._follow_from_here(reading, unread)
                await self._read(reading, set(unread))
            except RayActorError:
                self.lost()
                return
            except UnavailableError as error:
                self._tracker.happened("source", error.reason)
                await asyncio.sleep(_RETRY_S)
        self.partitions = frozenset()  # whoever has more to read may get it
        self._on_news()

    async def _follow_from_here(self, reading: Reading, partitions: frozenset[Partition]) -> None:
        """The reader stands where the last blocks of `partitions` have ended."""
        self._epoch += 1
        await settled(self.actor.follow.remote(reading.following(partitions, epoch=self._epoch)))

    async def _read(self, reading: Reading, unread: set[Partition]) -> None:
        """Blocks come until nothing of `unread` is left, or until positions were moved under them."""
        flying: deque[tuple[Any, Any]] = deque()  # answers come in the order of the calls, so blocks of a partition do too
        cutter, is_busy = reading.planner.cutter, False
        while unread:
            self._call(reading, flying, at_most=IN_FLIGHT if is_busy else 1)
            if not flying:
                reading.room.clear()
                await reading.room.wait()
                continue
            reference, rows = flying.popleft()
            report: ReadReport = await settled(reference)
            self.cpu_s = report.cpu_s
            for words in report.news:
                self._tracker.happened("source", words)
            self._tracker.end_offsets.update(report.end_offsets)
            cutter.heard(report.end_offsets)
            firsts = {meta.partition: meta for meta in reversed(report.blocks)}
            if not all(map(cutter.is_next, firsts.values())):
                return
            is_busy = bool(firsts)
            if is_busy:
                self._add(reading, report, rows)
                unread.difference_update([partition for partition in firsts if cutter.has_read(partition)])

    def _call(self, reading: Reading, flying: deque[tuple[Any, Any]], *, at_most: int) -> None:
        planner = reading.planner
        while planner.wants_blocks and len(flying) < at_most:
            size = call_size(planner.buffer, num_calls=IN_FLIGHT * reading.num_readers)
            sated = planner.sated & self.partitions
            flying.append(self.actor.next.options(num_returns=2).remote(self._epoch, size, sated))

    def _add(self, reading: Reading, report: ReadReport, rows: Any) -> None:
        reading.planner.add_blocks(report.blocks, rows, now_s=self._clock.monotonic_s())
        for meta in report.blocks:
            self.loads[meta.partition] = self.loads.get(meta.partition, 0) + weight_bytes(meta)
            self._tracker.read(meta)
        reading.on_blocks()
