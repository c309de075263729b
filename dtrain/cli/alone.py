"""`local`: a whole job in this process, seen as `watch` shows it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence
from itertools import count

from dtrain import local
from dtrain.cli.exits import Exit
from dtrain.cli.output import Form, console, line
from dtrain.cli.watch import Viewer, verdict
from dtrain.job.lifecycle import State
from dtrain.job.status import Happening, JobStatus, Outcome, StoredEvent
from dtrain.job.view import Job, Update
from dtrain.spec.job import JobSpec

_STATES = {Outcome.SUCCEEDED: State.SUCCEEDED, Outcome.STOPPED: State.SUSPENDED, Outcome.BLOCKED: State.BLOCKED}


def run_alone(spec: JobSpec, form: Form, *, allow_gap: bool, accept_code_change: bool) -> Exit:
    """The job has come to its end, or was stopped by SIGINT or SIGTERM after a last checkpoint.

    JSON is one status a line; the last says the outcome too.
    """
    folder = spec.checkpoint.place_of(spec.name)
    began_s, numbers, stopped = time.time(), count(1), list[int]()
    viewer = Viewer(form, console())

    def seen(status: JobStatus, state: State = State.RUNNING, reason: str = "", message: str = "") -> Job:
        return Job(spec.name, spec.name, state, reason, message, spec.to_json(), began_s, time.time(), 1, status)

    def on_status(status: JobStatus, happenings: Sequence[Happening]) -> None:
        if form is Form.TABLE:
            viewer.show(Update(seen(status), tuple(StoredEvent(next(numbers), h) for h in happenings)))
        else:
            line(status.to_dict(), form)

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second time ends it at once: the last checkpoint is the truth

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with viewer.running():
        end = local.run(
            spec,
            folder=folder,
            on_status=on_status,
            should_stop=lambda: bool(stopped),
            allow_gap=allow_gap,
            accept_code_change=accept_code_change,
        )
        status = end.status or JobStatus()
        job = seen(status, _STATES.get(end.outcome, State.FAILED), end.reason, end.message)
        if form is Form.TABLE:
            viewer.show(Update(job))
    if form is not Form.TABLE:
        line({**status.to_dict(), "outcome": end.outcome, "reason": end.reason, "message": end.message}, form)
    if end.outcome is not Outcome.STOPPED:
        return verdict(job, form)
    words = f"stopped at {status.last_checkpoint} in {json.dumps(folder)}: the same command goes on from there"
    console(is_error=True).print(words, style="yellow")
    return Exit.INTERRUPTED
