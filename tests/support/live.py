"""A job in a thread of this process, beside which a test changes the topics that it reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

from dtrain.checkpoint.places import open_store
from dtrain.job.status import Happening, JobStatus, Observation, Outcome
from dtrain.local import run
from dtrain.replay.replay import Verdict, replay
from dtrain.spec.job import JobSpec
from dtrain.steplog.entries import Entry, StepKind
from dtrain.stream.source import Source


class LiveJob:
    """`local.run` from the newest checkpoint in `folder`, again and again."""

    def __init__(self, spec: JobSpec, *, folder: Path, source: Callable[[], Source]) -> None:
        self.spec = spec
        self.store = open_store(folder)
        self.status = JobStatus()
        self.happenings: list[Happening] = []
        self._folder = folder
        self._source = source
        self._stop = Event()
        self._thread: Thread | None = None
        self._ended: Observation | None = None

    def start(self, **options: Any) -> LiveJob:
        """It runs, from now on."""
        self._stop.clear()
        self._ended, self.status = None, JobStatus()
        self._thread = Thread(target=self._run, kwargs=options, daemon=True)
        self._thread.start()
        return self

    def wait(self, is_reached: Callable[[JobStatus], bool], *, timeout_s: float = 120) -> JobStatus:
        """The first status of which `is_reached` is true."""
        deadline_s = time.monotonic() + timeout_s
        while not is_reached(self.status):
            assert self._ended is None, self._ended
            assert time.monotonic() < deadline_s, (self.status, self.happenings[-5:])
            time.sleep(0.02)
        return self.status

    def wait_for_rows(self, number: int) -> JobStatus:
        return self.wait(lambda status: status.rows_trained >= number)

    def wait_for_end(self, *, timeout_s: float = 120) -> Observation:
        assert self._thread is not None
        self._thread.join(timeout_s)
        assert self._ended is not None, self.status
        return self._ended

    def stop(self) -> None:
        """It has ended behind a last checkpoint."""
        self._stop.set()
        assert self.wait_for_end().outcome is Outcome.STOPPED, self._ended

    def moves(self) -> list[Entry]:
        """The log's steps that set positions."""
        entries = self.store.entries(self.store.find(None).progress)
        return [entry for entry in entries if entry.kind is StepKind.MOVE]

    def replay(self, *, start: str | None = None) -> Verdict:
        """Oracle 2: proven, from checkpoint `start`."""
        source = self._source()
        verdict = replay(self.store, source=source, start=start)
        source.close()
        assert verdict.is_equal, verdict.sentence
        assert (verdict.audit.lost, verdict.audit.doubled) == (0, 0), verdict.audit
        return verdict

    def told(self, words: str) -> list[str]:
        return [happening.message for happening in self.happenings if words in happening.message]

    def _run(self, **options: Any) -> None:
        source = self._source()
        self._ended = run(
            self.spec,
            folder=self._folder,
            on_status=self._see,
            should_stop=self._stop.is_set,
            source=source,
            **options,
        )

    def _see(self, status: JobStatus, happenings: Sequence[Happening]) -> None:
        self.status = status
        self.happenings += happenings
