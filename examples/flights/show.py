"""Follows a job through the SDK: waits for what it has seen, remembers every look, and tells people."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console

from dtrain import Client
from dtrain.job.lifecycle import State
from dtrain.job.view import Job, Update
from examples.flights.timeline import Mark, Timeline, sample
from examples.stage import Command

LOOK_S = 0.25
SAY_S = 3.0


class Show:
    """The job as the audience sees it.

    Args:
        client: of the control plane.
        job_id: which.
        console: where the story is told.
        began_s: monotonic time at which the demo began.
    """

    def __init__(self, client: Client, job_id: str, *, console: Console, began_s: float) -> None:
        self.client = client
        self.job: Job = client.get(job_id)
        self.timeline = Timeline()
        self.producer: Command | None = None
        self.recovery_s: float | None = None
        self._console = console
        self._began_s = began_s
        self._said_s = 0.0
        self._updates: queue.Queue[Update | Exception] = queue.Queue()
        threading.Thread(target=self._follow, name="watch", daemon=True).start()

    @property
    def produced(self) -> int:
        """Rows that the broker has acknowledged."""
        return int(self.producer.last.get("rows", 0)) if self.producer else 0

    def until(self, is_so: Callable[[Job], bool], *, what: str, timeout_s: float = 120) -> Job:
        """The job as it was when `is_so` was first seen to hold.

        Raises:
            SystemExit: the job has failed or is blocked, the producer has failed, or it did not come true in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while not is_so(self.job):
            if self.job.state in {State.FAILED, State.BLOCKED, State.CANCELLED}:
                raise SystemExit(f"the job is {self.job.state} ({self.job.reason}): {self.job.message}")
            if time.monotonic() > deadline_s:
                raise SystemExit(
                    f"not seen within {timeout_s:.0f} s: {what}; the job is {self.job.state} at step {self.job.status.step}"
                )
            if self.producer:
                self.producer.check()
            self._look()
        return self.job

    def mark(self, kind: str, text: str) -> None:
        """Something that the demo did or saw: kept for the report, and told."""
        self.timeline.marks.append(Mark(self._now_s(), self.job.status.rows_trained, kind, text))
        self.tell(f"[bold]{text}[/bold]")

    def tell(self, text: str) -> None:
        """A line with the time."""
        self._console.print(f"[dim]{self._now_s():6.1f} s[/dim]  {text}")

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _look(self) -> None:
        """Take in what has come since the last look, and keep a sample."""
        with suppress(queue.Empty):
            found = self._updates.get(timeout=LOOK_S)
            if isinstance(found, Exception):
                raise found
            self.job = found.job
            for event in found.events:
                happening = event.happening
                age_s = max(0.0, time.time() - happening.at_s)
                self.timeline.marks.append(
                    Mark(self._now_s() - age_s, found.job.status.rows_trained, happening.kind, happening.message)
                )
                self.tell(f"         [dim]{happening.kind}: {happening.message}[/dim]")
        at_s = self._now_s()
        self.timeline.samples.append(sample(self.job.status, at_s=at_s, state=self.job.state, produced=self.produced))
        if time.monotonic() - self._said_s > SAY_S:
            self._said_s = time.monotonic()
            self._say_progress()

    def _say_progress(self) -> None:
        status, state = self.job.status, self.job.state
        waiting = f"{max(0, self.produced - status.rows_trained):>7,} waiting"
        if state is not State.RUNNING:
            self.tell(f"{state:<10} {waiting}" if self.produced else f"{state:<10}")
            return
        score = f"AUROC {status.scores['auroc']:.3f}" if "auroc" in status.scores else "no score yet"
        progress = f"step {status.step:>4}   {status.rows_trained:>7,} rows   {status.rows_per_s:>6,.0f} rows/s"
        self.tell(f"{state:<10} {waiting}   {progress}   {score}   workers: {status.world_size}")

    def _follow(self) -> None:
        try:
            for update in self.client.watch(self.job.job_id):
                self._updates.put(update)
        except Exception as error:
            self._updates.put(error)
