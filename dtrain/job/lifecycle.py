"""The lifecycle of a job: one table. No state is assigned anywhere else.

QUEUED → STARTING → RUNNING ⇄ RECOVERING → SUCCEEDED
             any of these → BLOCKED(reason) | FAILED(reason)
             any that is not terminal → SUSPENDING → SUSPENDED → QUEUED,  CANCELLING → CANCELLED
"""

from __future__ import annotations

from enum import StrEnum

from dtrain.errors import StateError


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    RECOVERING = "RECOVERING"
    BLOCKED = "BLOCKED"
    SUSPENDING = "SUSPENDING"
    SUSPENDED = "SUSPENDED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        """Nothing will ever happen to the job again."""
        return self in {State.SUCCEEDED, State.FAILED, State.CANCELLED}

    @property
    def is_working(self) -> bool:
        """The job should have a coordinator that trains."""
        return self in _WORKING

    @property
    def holds_resources(self) -> bool:
        """A coordinator and its actors exist, or are being made or unmade."""
        return self.is_working or self in {State.SUSPENDING, State.CANCELLING}


class Event(StrEnum):
    """What can happen to a job: what the scheduler decides, what its coordinator says, what its user asks for."""

    ADMITTED = "admitted"
    STARTED = "started"
    LOST = "lost"
    BLOCKED = "blocked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    SUSPEND = "suspend"
    RESUME = "resume"
    CANCEL = "cancel"


_WORKING = (State.STARTING, State.RUNNING, State.RECOVERING)

TABLE: dict[tuple[State, Event], State] = {
    (State.QUEUED, Event.ADMITTED): State.STARTING,
    (State.QUEUED, Event.FAILED): State.FAILED,
    (State.QUEUED, Event.SUSPEND): State.SUSPENDED,
    (State.QUEUED, Event.CANCEL): State.CANCELLED,
    **{(state, Event.STARTED): State.RUNNING for state in _WORKING},
    **{(state, Event.LOST): State.RECOVERING for state in _WORKING},
    **{(state, Event.BLOCKED): State.BLOCKED for state in _WORKING},
    **{(state, Event.SUCCEEDED): State.SUCCEEDED for state in _WORKING},
    **{(state, Event.FAILED): State.FAILED for state in _WORKING},
    **{(state, Event.SUSPEND): State.SUSPENDING for state in _WORKING},
    **{(state, Event.CANCEL): State.CANCELLING for state in _WORKING},
    (State.BLOCKED, Event.RESUME): State.QUEUED,
    (State.BLOCKED, Event.SUSPEND): State.SUSPENDED,
    (State.BLOCKED, Event.CANCEL): State.CANCELLED,
    (State.SUSPENDING, Event.STOPPED): State.SUSPENDED,
    (State.SUSPENDING, Event.LOST): State.SUSPENDED,
    (State.SUSPENDING, Event.BLOCKED): State.BLOCKED,
    (State.SUSPENDING, Event.SUCCEEDED): State.SUCCEEDED,
    (State.SUSPENDING, Event.FAILED): State.FAILED,
    (State.SUSPENDING, Event.CANCEL): State.CANCELLING,
    (State.SUSPENDED, Event.RESUME): State.QUEUED,
    (State.SUSPENDED, Event.CANCEL): State.CANCELLED,
    **{(State.CANCELLING, event): State.CANCELLED for event in (Event.STOPPED, Event.LOST, Event.BLOCKED, Event.FAILED)},
    (State.CANCELLING, Event.SUCCEEDED): State.SUCCEEDED,
}
"""(state, event) → next state. What is not here is not possible."""

REPEATS: dict[Event, frozenset[State]] = {
    Event.SUSPEND: frozenset({State.SUSPENDING, State.SUSPENDED}),
    Event.RESUME: frozenset({State.QUEUED, *_WORKING}),
    Event.CANCEL: frozenset({State.CANCELLING, State.CANCELLED}),
}
"""States in which a user's wish is fulfilled already: asking again changes nothing and is no error."""


def next_state(state: State, event: Event) -> State:
    """The state after `event`.

    Raises:
        StateError: `event` is not possible in `state`.
    """
    if state in REPEATS.get(event, frozenset()):
        return state
    found = TABLE.get((state, event))
    if found is None:
        possible = sorted({e.value for s, e in TABLE if s is state and e in REPEATS})
        raise StateError(
            f"cannot {event.value} a job that is {state.value}",
            fix=f"possible now: {', '.join(possible)}" if possible else "it is over; submit it again",
        )
    return found
