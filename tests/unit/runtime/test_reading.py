"""A job has a reader for as long as it runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtrain.clock import SystemClock
from dtrain.policy.cutting import Cutter
from dtrain.runtime.intake import Intake, Reading
from dtrain.runtime.reading import Readers
from dtrain.runtime.tracker import Tracker
from dtrain.steplog.positions import Partition, Position
from tests.support.crews import Calls
from tests.support.ranks import spec


class LocalReader:
    """Has nothing left to read."""

    def pid(self) -> int:
        return 7

    def recall(self, identity: object) -> None:
        pass


class LocalReaders(Readers):
    """Readers in this process."""

    def _start(self) -> None:
        actor = Calls(LocalReader())
        self._intakes[self._num_started] = Intake(
            self._num_started, actor, tracker=self._tracker, clock=self._clock, on_news=self._heard
        )
        self._num_started += 1


def test_reader_that_is_lost_when_everything_was_read_is_replaced() -> None:
    async def main() -> None:
        end = {Partition("topic", 0): Position(0)}
        cutter = Cutter(positions=end, ends=end, rows=5, max_wait_s=1.0, is_strict=False, step=0)
        planner: Any = SimpleNamespace(cutter=cutter)
        manifest: Any = SimpleNamespace(identity={}, ends=end)
        is_read = asyncio.Event()
        readers = LocalReaders(spec(numerics="fast"), logs=Path(), tracker=Tracker(SystemClock()), clock=SystemClock())
        readers.follow(
            Reading(planner, manifest, on_blocks=is_read.set, on_change=lambda _: None, on_error=lambda e: pytest.fail(str(e)))
        )
        await is_read.wait()
        while not readers.pids:
            await asyncio.sleep(0)
        lost = readers._any()
        lost.lost()
        while readers._any() is lost or not readers.pids:
            await asyncio.sleep(0)
        readers.pause()

    asyncio.run(asyncio.wait_for(main(), 30.0))
