"""What users ask of jobs: recorded here, acted on by the scheduler."""

from __future__ import annotations

from dataclasses import replace

from dtrain.errors import UnavailableError
from dtrain.job.lifecycle import Event, next_state
from dtrain.job.protocols import JobRecord, JobStore
from dtrain.policy.supervision import moved

_TRIES = 20


def wish(store: JobStore, job: str, event: Event, *, now_s: float, accept_code_change: bool = False) -> JobRecord:
    """The job, with the user's wish kept durably; unchanged if the wish is fulfilled already.

    Args:
        store: where the job is kept.
        job: its id or name.
        event: SUSPEND, RESUME or CANCEL.
        now_s: wall time.
        accept_code_change: of a RESUME: go on although the code is not the checkpoint's.

    Raises:
        NotFoundError: there is no such job.
        StateError: not possible in the job's state.
        UnavailableError: the job changed all the time.
    """
    for _ in range(_TRIES):
        record = store.get(job)
        if next_state(record.state, event) is record.state:
            return record
        told = moved(record, event, now_s=now_s, message="asked for by its user")
        accepts = accept_code_change if event is Event.RESUME else record.accept_code_change
        kept = store.swap(record, replace(told.record, accept_code_change=accepts), told.happenings)
        if kept is not None:
            return kept
    raise UnavailableError(f"the job {job!r} changes too fast", fix="try again")
