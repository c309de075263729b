"""Supervision: what a coordinator's word, or its silence, means for its job."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dtrain.job.lifecycle import Event, State, next_state
from dtrain.job.protocols import JobRecord
from dtrain.job.status import Happening, Observation, Outcome
from dtrain.policy.failure import backoff_s, is_hopeless

_ENDS = {
    Outcome.SUCCEEDED: Event.SUCCEEDED,
    Outcome.FAILED: Event.FAILED,
    Outcome.BLOCKED: Event.BLOCKED,
    Outcome.STOPPED: Event.STOPPED,
}
_PHASES = {"running": Event.STARTED, "recovering": Event.LOST}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The record as it should be kept next, and what to add to the job's history."""

    record: JobRecord
    happenings: tuple[Happening, ...] = ()


def judge(record: JobRecord, seen: Observation, *, is_known: bool, now_s: float) -> Judgement:
    """What `record` becomes after `seen`, for a job that holds resources.

    A dead coordinator of a job that should work has a successor's number at once: the caller launches that after
    `backoff_s(record.failures)`. An incarnation of which this control plane knows nothing may never have been launched: its absence is
    no failure, but its number is not used again all the same.

    Args:
        record: as it is kept.
        seen: what the record's incarnation said, from the record's cursor on.
        is_known: whether this control plane launched that incarnation or heard of it.
        now_s: wall time.
    """
    told = _with_progress(record, seen)
    if record.state is State.CANCELLING:
        done = Event.SUCCEEDED if seen.outcome is Outcome.SUCCEEDED else Event.STOPPED
        judgement = moved(told, done, now_s=now_s)
    elif seen.outcome is Outcome.NONE and seen.is_alive:
        judgement = _heard(told, seen, now_s=now_s)
    elif seen.outcome is Outcome.NONE or (seen.outcome is Outcome.STOPPED and record.state.is_working):
        judgement = _lost(told, is_known=is_known, now_s=now_s)
    else:
        judgement = moved(told, _ENDS[seen.outcome], now_s=now_s, reason=seen.reason, message=seen.message)
    return replace(judgement, happenings=seen.happenings + judgement.happenings)


def moved(record: JobRecord, event: Event, *, now_s: float, reason: str = "", message: str = "") -> Judgement:
    """`record` after `event`, by the lifecycle's table, with a line of history where the state changed.

    Raises:
        StateError: `event` is not possible in the record's state.
    """
    state = next_state(record.state, event)
    if not state.holds_resources:  # nobody works on it any more
        record = replace(record, status=replace(record.status, members=(), rows_per_s=0.0))
    new = said(replace(record, state=state), now_s=now_s, reason=reason, message=message)
    if state is record.state:
        return Judgement(new)
    words = f"{state.value}({reason})" if reason else state.value
    line = f"{words}: {message}" if message else words
    return Judgement(replace(new, updated_at_s=now_s), (Happening(at_s=now_s, kind="state", message=line),))


def said(record: JobRecord, *, now_s: float, reason: str = "", message: str = "") -> JobRecord:
    """`record` with these words, dated only if they are new."""
    if (reason, message) == (record.reason, record.message):
        return record
    return replace(record, reason=reason, message=message, updated_at_s=now_s)


def _with_progress(record: JobRecord, seen: Observation) -> JobRecord:
    """The coordinator's status and cursor taken over; a plan beyond the furthest ever forgives all failures.

    One that has no attempt yet knows less than its predecessor told. What the user allowed its start is spent as soon as it is kept
    beside the checkpoints: skips before the first generation, changed code and gaps with the incarnation's first checkpoint.
    """
    status = record.status
    has_formed = seen.status is not None and seen.status.attempt > 0
    has_committed = seen.status is not None and bool(seen.status.last_checkpoint)
    if seen.status is not None and seen.status.attempt >= status.attempt:
        status = seen.status
    is_further = status.plan_number > record.furthest_plan
    return replace(
        record,
        status=status,
        cursor=max(record.cursor, seen.cursor),
        furthest_plan=max(record.furthest_plan, status.plan_number),
        failures=0 if is_further else record.failures,
        skip_step=record.skip_step and not has_formed,
        accept_code_change=record.accept_code_change and not has_committed,
        allow_gap=record.allow_gap and not has_committed,
    )


def _heard(record: JobRecord, seen: Observation, *, now_s: float) -> Judgement:
    """A living coordinator's phase; one that stops or is ended says nothing that counts."""
    if not record.state.is_working:
        return Judgement(record)
    event = _PHASES.get(seen.phase)
    if event is None:
        return Judgement(said(record, now_s=now_s, message=seen.message))
    return moved(record, event, now_s=now_s, message=seen.message)


def _lost(record: JobRecord, *, is_known: bool, now_s: float) -> Judgement:
    if not record.state.is_working:
        return moved(record, Event.LOST, now_s=now_s)
    failures = record.failures + is_known
    if is_hopeless(failures):
        message = f"{failures} coordinators in a row were lost without progress; see `dtrain logs {record.job_id}`"
        return moved(replace(record, failures=failures), Event.FAILED, now_s=now_s, reason="COORDINATOR_LOST", message=message)
    heir = replace(record, failures=failures, incarnation=record.incarnation + 1, cursor=0)
    if not is_known and record.state is State.STARTING:
        return Judgement(heir)
    message = f"coordinator {record.incarnation} was lost; the next starts in {backoff_s(failures):g} s"
    told = moved(heir, Event.LOST, now_s=now_s, message=message)
    line = Happening(at_s=now_s, kind="recovery", message=message)
    return told if told.happenings else replace(told, happenings=(line,))
