"""Following a job: waiting for what it has come to."""

from __future__ import annotations

import time
from collections.abc import Callable

from dtrain import Client
from dtrain.job.lifecycle import State
from dtrain.job.view import Job

LOOK_S = 0.1


def until(client: Client, job_id: str, is_so: Callable[[Job], bool], *, what: str, timeout_s: float = 120) -> Job:
    """The job as it was when `is_so` was first seen to hold.

    Raises:
        SystemExit: the job has failed or is blocked, or it did not come true in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while not is_so(job := client.get(job_id)):
        if job.state in {State.FAILED, State.BLOCKED, State.CANCELLED}:
            raise SystemExit(f"the job is {job.state} ({job.reason}): {job.message}")
        if time.monotonic() > deadline_s:
            raise SystemExit(f"not seen within {timeout_s:.0f} s: {what}; the job is {job.state} at step {job.status.step}")
        time.sleep(LOOK_S)
    return job


def until_step(client: Client, job_id: str, step: int) -> Job:
    """The job, once it has made so many steps."""
    return until(client, job_id, lambda job: job.status.step >= step, what=f"step {step}")
