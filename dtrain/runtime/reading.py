"""Reading: the coordinator's end of the reader. Blocks come ahead of need, bounded, and a dead reader is replaced."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from dtrain.checkpoint.manifest import Manifest
from dtrain.clock import Clock
from dtrain.errors import DtrainError, UnavailableError
from dtrain.runtime.crew import cause_of, settled
from dtrain.runtime.messages import Beginning, Following, ReadReport
from dtrain.runtime.planner import Planner
from dtrain.runtime.reader import Reader
from dtrain.runtime.tasks import TaskSet
from dtrain.runtime.tracker import Tracker
from dtrain.spec.job import JobSpec
from dtrain.steplog.positions import Partition, Position
from dtrain.steplog.ranges import RowRange

_IN_FLIGHT = 4
_RETRY_S = 1.0
_REPLACE_S = 0.2
_TRIES_TO_BEGIN = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read for, and whom to tell."""

    planner: Planner
    manifest: Manifest
    on_blocks: Callable[[], None]
    on_error: Callable[[DtrainError], None]


class BlockReader:
    """Owns the reader's process. All on the coordinator's event loop, `send_rejects` and `commit` apart.

    Args:
        spec: the job.
        logs: folder of the job's logs.
        tracker: told of lag and of replaced readers.
        clock: for the time at which blocks came.
    """

    def __init__(self, spec: JobSpec, *, logs: Path, tracker: Tracker, clock: Clock) -> None:
        self._spec = spec
        self._logs = logs
        self._tracker = tracker
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._num_started = 0
        self._epoch = 0
        self._task: asyncio.Task[None] | None = None
        self._beginning: Beginning | None = None
        self._actor = self._start()
        self.pid = 0

    async def begin(self) -> Beginning:
        """Topic, first positions and end; asked once, so that they stay what they were.

        Raises:
            NotFoundError: no such topic.
            UnavailableError: no broker, after three tries.
        """
        if self._beginning is not None:
            return self._beginning
        for tries_left in reversed(range(_TRIES_TO_BEGIN)):
            try:
                self._beginning = await settled(self._actor.begin.remote())
            except RayActorError:
                self._replace()
            except UnavailableError:
                if not tries_left:
                    raise
                await asyncio.sleep(_RETRY_S)
            else:
                return self._beginning
        raise UnavailableError("the reader ends while it starts", fix="see the job's logs")

    def follow(self, reading: Reading) -> None:
        """Blocks flow into the planner from now on."""
        self.pause()
        self._task = TaskSet(reading.on_error).run(self._read_until_error(reading))

    def pause(self) -> None:
        """No block flows any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def send_rejects(self, ranges: Sequence[RowRange], *, to_topic: str, job_id: str) -> None:
        """The rejected records are in the dead-letter topic. Blocking; from a thread."""
        try:
            ray.get(self._actor.send_rejects.remote(list(ranges), to_topic, job_id))
        except RayTaskError as error:
            raise cause_of(error) from None
        except RayActorError as error:
            if self._task is None or self._task.done():
                self._loop.call_soon_threadsafe(self._replace)  # nobody reads any more, so nobody else would
            raise UnavailableError("the reader was lost while it wrote dead letters") from error

    def commit(self, positions: Mapping[Partition, Position], *, group: str) -> None:
        """Kafka's lag tools will hear of it; advisory, so nobody waits. From any thread."""
        self._actor.commit.remote(dict(positions), group)

    def _start(self) -> Any:
        log_file = self._logs / f"reader-{self._num_started}.jsonl"
        self._num_started += 1
        actor = ray.remote(Reader).options(num_cpus=0, max_restarts=0)
        return actor.remote(self._spec.to_json(), str(log_file))

    def _replace(self) -> None:
        self._tracker.happened("reader", "the reader was lost; another one goes on from the last position read")
        self._actor = self._start()

    async def _read_until_error(self, reading: Reading) -> None:
        while not reading.planner.cutter.is_read:
            try:
                self.pid = await settled(self._actor.pid.remote())
                await self._follow_from_here(reading)
                await self._read(reading)
            except RayActorError:
                self._replace()
                await asyncio.sleep(_REPLACE_S)
            except UnavailableError as error:
                self._tracker.happened("source", error.reason)
                await asyncio.sleep(_RETRY_S)

    async def _follow_from_here(self, reading: Reading) -> None:
        self._epoch += 1
        manifest = reading.manifest
        following = Following(
            epoch=self._epoch,
            positions=reading.planner.cutter.read_to,
            ends=manifest.ends,
            schema=manifest.schema,
            identity=manifest.identity,
            marks=manifest.progress.marks,
        )
        await settled(self._actor.follow.remote(following))

    async def _read(self, reading: Reading) -> None:
        """Keep a few calls in flight; each brings one block. Order is that of the calls."""
        flying: deque[tuple[Any, Any]] = deque()
        planner = reading.planner
        while not planner.cutter.is_read:
            while planner.wants_blocks and len(flying) < _IN_FLIGHT:
                flying.append(self._actor.next.options(num_returns=2).remote(self._epoch, planner.sated))
            if not flying:
                await asyncio.sleep(0.005)  # backpressure: enough waits
                continue
            report_reference, rows = flying.popleft()
            report: ReadReport = await settled(report_reference)
            self._tracker.end_offsets.update(report.end_offsets)
            if report.epoch == self._epoch and report.meta is not None:
                planner.add_block(report.meta, rows, now_s=self._clock.monotonic_s())
                self._tracker.read(num_offsets=len(report.meta.offsets), num_rows=report.meta.num_rows)
                reading.on_blocks()
        reading.on_blocks()
