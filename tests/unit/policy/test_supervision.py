from __future__ import annotations

from dataclasses import replace

import pytest

from dtrain.job.lifecycle import State
from dtrain.job.protocols import JobRecord
from dtrain.job.status import Happening, JobStatus, Observation, Outcome
from dtrain.policy.failure import MAX_FAILURES
from dtrain.policy.supervision import judge

RUNNING = JobRecord(
    job_id="a-1", name="a", spec_json="{}", state=State.RUNNING, incarnation=2, has_actors=True, furthest_plan=50, cursor=4
)
DEAD = Observation(is_alive=False)


def judged(record: JobRecord, seen: Observation, *, is_known: bool = True) -> JobRecord:
    return judge(record, seen, is_known=is_known, now_s=9.0).record


def test_lost_coordinator_gets_a_successor_and_counts() -> None:
    found = judge(RUNNING, DEAD, is_known=True, now_s=9.0)
    assert (found.record.state, found.record.incarnation, found.record.failures) == (State.RECOVERING, 3, 1)
    assert found.record.cursor == 0
    assert [told.message for told in found.happenings] == ["RECOVERING: coordinator 2 was lost; the next starts in 1 s"]


def test_second_loss_in_a_row_has_its_own_line_of_history() -> None:
    record = replace(RUNNING, state=State.RECOVERING, failures=1)
    (told,) = judge(record, DEAD, is_known=True, now_s=9.0).happenings
    assert told == Happening(at_s=9.0, kind="recovery", message="coordinator 2 was lost; the next starts in 2 s")


def test_absence_of_an_unknown_coordinator_is_no_failure_but_its_number_is_used_up() -> None:
    found = judged(replace(RUNNING, state=State.STARTING), DEAD, is_known=False)
    assert (found.state, found.incarnation, found.failures) == (State.STARTING, 3, 0)


def test_last_failure_fails_the_job() -> None:
    found = judged(replace(RUNNING, failures=MAX_FAILURES - 1), DEAD)
    assert (found.state, found.reason) == (State.FAILED, "COORDINATOR_LOST")


@pytest.mark.parametrize(("plan_number", "failures"), [(50, 3), (51, 0)])
def test_only_a_plan_beyond_the_furthest_ever_forgives_failures(plan_number: int, failures: int) -> None:
    seen = Observation(is_alive=True, phase="running", status=JobStatus(plan_number=plan_number), cursor=4)
    assert judged(replace(RUNNING, failures=3), seen).failures == failures


@pytest.mark.parametrize(
    ("status", "left"),
    [
        (JobStatus(), {"accept_code_change", "skip_step", "allow_gap"}),
        (JobStatus(attempt=3, plan_number=51), {"accept_code_change", "allow_gap"}),
        (JobStatus(attempt=3, plan_number=51, last_checkpoint="p000000000051-a00000003"), set()),
    ],
)
def test_what_was_allowed_a_start_is_spent_once_it_is_kept_beside_the_checkpoints(status: JobStatus, left: set[str]) -> None:
    """A skip before the first generation of an attempt; other code and gaps by its first checkpoint, and not before."""
    seen = Observation(is_alive=True, phase="running", status=status, cursor=4)
    record = judged(replace(RUNNING, accept_code_change=True, skip_step=True, allow_gap=True), seen)
    heir = judged(record, DEAD)
    assert {name for name in ("accept_code_change", "skip_step", "allow_gap") if getattr(heir, name)} == left


def test_figures_of_a_job_stay_while_its_next_coordinator_has_none_yet() -> None:
    record = replace(RUNNING, status=JobStatus(attempt=2, step=40))
    assert judged(record, Observation(is_alive=True, phase="starting", status=JobStatus())).status == record.status
    assert judged(record, Observation(is_alive=True, phase="running", status=JobStatus(attempt=3))).status == JobStatus(
        attempt=3
    )


@pytest.mark.parametrize(
    ("state", "phase", "expected"),
    [
        (State.STARTING, "starting", State.STARTING),
        (State.STARTING, "running", State.RUNNING),
        (State.RUNNING, "recovering", State.RECOVERING),
        (State.RECOVERING, "starting", State.RECOVERING),
        (State.RECOVERING, "running", State.RUNNING),
        (State.SUSPENDING, "running", State.SUSPENDING),
        (State.CANCELLING, "running", State.CANCELLED),
    ],
)
def test_phase_of_a_living_coordinator_moves_its_job(state: State, phase: str, expected: State) -> None:
    assert judged(replace(RUNNING, state=state), Observation(is_alive=True, phase=phase)).state is expected


@pytest.mark.parametrize("is_alive", [True, False])
@pytest.mark.parametrize(
    ("state", "outcome", "expected"),
    [
        (State.RUNNING, Outcome.SUCCEEDED, State.SUCCEEDED),
        (State.STARTING, Outcome.FAILED, State.FAILED),
        (State.RECOVERING, Outcome.BLOCKED, State.BLOCKED),
        (State.RUNNING, Outcome.STOPPED, State.RECOVERING),
        (State.SUSPENDING, Outcome.STOPPED, State.SUSPENDED),
        (State.SUSPENDING, Outcome.SUCCEEDED, State.SUCCEEDED),
        (State.SUSPENDING, Outcome.BLOCKED, State.BLOCKED),
        (State.CANCELLING, Outcome.SUCCEEDED, State.SUCCEEDED),
        (State.CANCELLING, Outcome.BLOCKED, State.CANCELLED),
    ],
)
def test_outcome_of_a_coordinator_ends_what_its_job_was_doing(
    state: State, outcome: Outcome, expected: State, is_alive: bool
) -> None:
    assert judged(replace(RUNNING, state=state), Observation(is_alive=is_alive, outcome=outcome)).state is expected


def test_reason_and_message_of_a_blocked_job_are_kept_for_its_user() -> None:
    seen = Observation(is_alive=True, outcome=Outcome.BLOCKED, reason="DATA_LOSS", message="offsets 3 to 7 are gone")
    found = judge(RUNNING, seen, is_known=True, now_s=9.0)
    assert (found.record.reason, found.record.message, found.record.updated_at_s) == ("DATA_LOSS", seen.message, 9.0)
    assert found.happenings[-1].message == "BLOCKED(DATA_LOSS): offsets 3 to 7 are gone"


def test_nothing_new_leaves_the_record_as_it_is() -> None:
    seen = Observation(is_alive=True, phase="running", status=RUNNING.status, cursor=4)
    assert judge(RUNNING, seen, is_known=True, now_s=9.0).record == RUNNING
