from __future__ import annotations

import pytest

from dtrain.errors import StateError
from dtrain.job.lifecycle import REPEATS, TABLE, Event, State, next_state


def test_terminal_states_are_left_by_nothing() -> None:
    assert not [pair for pair in TABLE if pair[0].is_terminal]


@pytest.mark.parametrize("state", [state for state in State if not state.is_terminal])
def test_every_state_that_is_not_terminal_can_be_cancelled(state: State) -> None:
    seen = next_state(state, Event.CANCEL)
    assert seen is State.CANCELLED or next_state(seen, Event.STOPPED) is State.CANCELLED


@pytest.mark.parametrize("state", State)
def test_every_state_is_reached_from_queued(state: State) -> None:
    reached = {State.QUEUED}
    for _ in State:
        reached |= {following for (known, _), following in TABLE.items() if known in reached}
    assert state in reached


@pytest.mark.parametrize(("event", "states"), REPEATS.items())
def test_wish_that_is_fulfilled_changes_nothing(event: Event, states: frozenset[State]) -> None:
    assert all(next_state(state, event) is state for state in states)


@pytest.mark.parametrize(("state", "event"), [(s, e) for s in State for e in Event])
def test_event_leads_where_the_table_says_or_is_refused_with_a_fix(state: State, event: Event) -> None:
    if (state, event) in TABLE or state in REPEATS.get(event, ()):
        assert next_state(state, event) in State
        return
    with pytest.raises(StateError, match=state.value) as caught:
        next_state(state, event)
    assert caught.value.fix
