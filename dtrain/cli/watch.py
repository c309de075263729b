"""`watch` and `submit --watch`: a job as it changes, until it is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from dtrain.cli.exits import Exit
from dtrain.cli.output import Form, console, job_value, line
from dtrain.cli.screen import JobScreen, clock, event_line, plain_line
from dtrain.job.lifecycle import State
from dtrain.job.view import Job, Update

if TYPE_CHECKING:
    from dtrain.client.client import Client

_LINE_EVERY_S = 1.0


class Viewer:
    """Shows updates: a live screen on a terminal, lines elsewhere, JSON lines for programs."""

    def __init__(self, form: Form, out: Console) -> None:
        self._form = form
        self._out = out
        self._screen = JobScreen()
        self._state: State | None = None
        self._line, self._line_at_s = "", 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within it the screen is live; afterwards its last picture stays."""
        is_live = self._form is Form.TABLE and self._out.is_terminal
        with Live(self._screen, console=self._out, refresh_per_second=4) if is_live else nullcontext():
            yield

    def show(self, update: Update) -> None:
        """The user sees `update`; where lines stay, at most one a second and none twice, but each change of state and each event."""
        self._screen.add(update)
        if self._form is not Form.TABLE:
            line({"job": job_value(update.job), "events": update.events}, self._form)
        elif not self._out.is_terminal:
            for event in update.events:
                self._out.print(event_line(event.happening))
            words, now_s = plain_line(update.job), time.monotonic()
            is_due = update.job.state is not self._state or now_s - self._line_at_s >= _LINE_EVERY_S
            if words != self._line and is_due:
                self._state, self._line, self._line_at_s = update.job.state, words, now_s
                self._out.print(f"{clock(time.time())}  {words}")


def follow(client: Client, job_id: str, form: Form) -> Exit:
    """The job is over or blocked, or the user has had enough; what that means for a caller."""
    viewer = Viewer(form, console())
    job: Job | None = None
    try:
        with viewer.running():
            for update in client.watch(job_id):
                job = update.job
                viewer.show(update)
                if job.state.is_terminal or job.state is State.BLOCKED:
                    break
    except KeyboardInterrupt:
        words = f"detached: {job_id} goes on. See it again with: dtrain watch {job_id}   End it with: dtrain cancel {job_id}"
        console(is_error=True).print(words, style="yellow")
        return Exit.INTERRUPTED
    return verdict(job, form)


def verdict(job: Job | None, form: Form) -> Exit:
    """Success, or the job's own words on standard error and the code for it."""
    if job is not None and job.state is State.SUCCEEDED:
        return Exit.OK
    if job is not None and form is Form.TABLE:
        reason = f" ({job.reason})" if job.reason else ""
        words = f"{job.job_id} is {job.state.value}{reason}{': ' if job.message else ''}{job.message}"
        console(is_error=True).print(words, style="bold red", soft_wrap=True)
    return Exit.JOB
