"""Leases end for members that are silent, not for those whom nobody listened to."""

from __future__ import annotations

from dtrain.policy.lease import FIRST_STEP_S, Leases, Phase, Place, stuck


def test_expired_names_the_silent_member_alone() -> None:
    leases = Leases(lease_s=1.0, tick_s=0.1)
    for tick in range(11):
        leases.hear(1, now_s=tick / 10)
        if tick == 0:
            leases.hear(2, now_s=0.0)
        found = leases.expired(now_s=tick / 10)
    assert found == [2]


def test_expired_a_stalled_listener_evicts_nobody() -> None:
    leases = Leases(lease_s=1.0, tick_s=0.1)
    leases.hear(1, now_s=0.0)
    assert leases.expired(now_s=0.0) == []
    assert leases.expired(now_s=30.0) == [], "it was the listener that slept"
    assert leases.expired(now_s=30.1) == []
    assert [leases.expired(now_s=30.1 + tick / 10) for tick in range(1, 12)][-1] == [1], "it is silent still"


def test_forget_ends_the_lease() -> None:
    leases = Leases(lease_s=1.0, tick_s=1.0)
    leases.hear(1, now_s=0.0)
    leases.forget(1)
    assert leases.expired(now_s=1.5) == []


def test_stuck_is_who_computes_not_who_waits_for_it() -> None:
    places = {0: Place(Phase.COLLECTIVE, 7, 0.0), 1: Place(Phase.WORK, 7, 0.0), 2: Place(Phase.IDLE, 6, 0.0)}
    assert stuck(places, fresh=(), steps_s=[0.1], now_s=9.0) == []
    assert stuck(places, fresh=(), steps_s=[0.1, 0.1, 60.0], now_s=10.5) == [1]
    assert stuck(places, fresh=(), steps_s=[5.0] * 10, now_s=40.0) == [], "steps of this job are long"


def test_stuck_first_step_of_a_process_or_of_a_job_may_take_long() -> None:
    places = {0: Place(Phase.WORK, 7, 0.0), 1: Place(Phase.WORK, 7, 0.0)}
    assert stuck(places, fresh={0}, steps_s=[0.1], now_s=FIRST_STEP_S) == [1]
    assert stuck(places, fresh=(), steps_s=[], now_s=FIRST_STEP_S) == []
    assert stuck(places, fresh={0}, steps_s=[0.1], now_s=FIRST_STEP_S + 0.1) == [0, 1]
