"""What users ask of jobs: recorded here, acted on by the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dtrain.errors import InputError, StateError, UnavailableError
from dtrain.job.lifecycle import Event, next_state
from dtrain.job.protocols import JobRecord, JobStore
from dtrain.job.status import Happening
from dtrain.policy.supervision import Judgement, moved
from dtrain.spec.job import JobSpec

_TRIES = 20


def wish(
    store: JobStore,
    job: str,
    event: Event,
    *,
    now_s: float,
    accept_code_change: bool = False,
    skip_step: bool = False,
    allow_gap: bool = False,
    code: tuple[str, str] = ("", ""),
) -> JobRecord:
    """The job, with the user's wish kept durably; unchanged if the wish is fulfilled already.

    Args:
        store: of the job.
        job: its id or name.
        event: what is wished.
        now_s: wall time.
        accept_code_change: to the next start, as the two that follow.
        skip_step: see `JobRecord`.
        allow_gap: see `JobRecord`.
        code: archive and digest of what a resumed job goes on with; empty for the code that it has.

    Raises:
        NotFoundError: there is no such job.
        StateError: not possible in the job's state; or something is allowed to a start that has been made already.
        UnavailableError: the job changed all the time.
    """
    allowances = {"accept_code_change": accept_code_change, "skip_step": skip_step, "allow_gap": allow_gap}

    def change(record: JobRecord) -> Judgement:
        if next_state(record.state, event) is record.state:
            lost = [
                f"--{name.replace('_', '-')}" for name, is_given in allowances.items() if is_given and not getattr(record, name)
            ]
            if code[0] not in ("", record.code_archive):
                lost.append("other code")
            if lost:
                raise StateError(
                    f"the job is {record.state.value} already: {lost[0]} is for its next start",
                    fix="suspend it, and resume it with that",
                )
            return Judgement(record)
        told = moved(record, event, now_s=now_s, message="asked for by its user")
        if event is not Event.RESUME:
            return told
        allowed = replace(told.record, accept_code_change=accept_code_change, skip_step=skip_step, allow_gap=allow_gap)
        if code[0]:
            allowed = replace(allowed, code_archive=code[0], code_sha256=code[1])
        return Judgement(allowed, told.happenings)

    return _change(store, job, change)


def wish_workers(store: JobStore, job: str, workers: int, *, now_s: float) -> JobRecord:
    """The job, with the number of workers that its user wants, kept durably.

    Raises:
        NotFoundError: there is no such job.
        InputError: its spec does not allow so many, or so few.
        StateError: it is over.
        UnavailableError: the job changed all the time.
    """

    def change(record: JobRecord) -> Judgement:
        allowed = JobSpec.from_json(record.spec_json).workers
        if not allowed.min <= workers <= allowed.max:
            raise InputError(
                f"{workers} workers are not between `workers.min` ({allowed.min}) and `workers.max` ({allowed.max})",
                fix="choose a number between them",
            )
        if record.state.is_terminal:
            raise StateError(f"cannot scale a job that is {record.state.value}", fix="it is over; submit it again")
        if record.workers == workers:
            return Judgement(record)
        happening = Happening(now_s, "scale", f"{workers} workers, asked for by its user")
        return Judgement(replace(record, workers=workers, updated_at_s=now_s), (happening,))

    return _change(store, job, change)


def _change(store: JobStore, job: str, change: Callable[[JobRecord], Judgement]) -> JobRecord:
    for _ in range(_TRIES):
        record = store.get(job)
        told = change(record)
        kept = record if told.record is record else store.swap(record, told.record, told.happenings)
        if kept is not None:
            return kept
    raise UnavailableError(f"the job {job!r} changes too fast", fix="try again")
