"""Whose state a generation begins with."""

from __future__ import annotations

from dataclasses import replace

from dtrain.policy.election import Standing, adopt, elect

AT_7 = Standing(attempt=2, plan_number=7, log_hash="seven", is_clean=True, parent_hash="parent")
AT_8 = replace(AT_7, plan_number=8, log_hash="eight")


def test_elect_the_most_advanced_is_the_source_and_the_others_are_behind() -> None:
    election = elect({0: AT_7, 1: AT_8, 2: AT_8}, attempt=2)
    assert election is not None
    assert (election.source, election.plan_number, election.behind) == (1, 8, {0})


def test_elect_dirty_or_unconfirmed_state_is_never_the_source() -> None:
    dirty = replace(AT_8, is_clean=False)
    older = replace(AT_8, attempt=1, log_hash="another")
    election = elect({0: AT_7, 1: dirty, 2: older}, attempt=2)
    assert election is not None
    assert (election.source, election.behind) == (0, {1, 2})


def test_elect_nobody_left_is_none() -> None:
    assert elect({}, attempt=2) is None
    assert elect({0: replace(AT_7, is_clean=False), 1: replace(AT_7, attempt=1)}, attempt=2) is None


def test_elect_who_was_left_out_long_ago_is_never_the_source() -> None:
    assert elect({0: AT_7}, attempt=2, at_least=8) is None
    election = elect({0: AT_7, 1: AT_8}, attempt=2, at_least=8)
    assert election is not None
    assert (election.source, election.behind) == (1, {0})


def test_adopt_the_log_must_go_through_the_parent() -> None:
    stranger = replace(AT_8, parent_hash="other")
    unknown = replace(AT_8, parent_hash=None)
    election = adopt({0: AT_7, 1: stranger, 2: unknown}, parent_hash="parent")
    assert election is not None
    assert (election.source, election.behind) == (0, {1, 2})


def test_adopt_a_later_attempt_wins_over_a_later_step() -> None:
    zombie = replace(AT_8, attempt=1)
    election = adopt({0: AT_7, 1: zombie}, parent_hash="parent")
    assert election is not None
    assert election.source == 0


def test_adopt_a_fresh_trainer_has_no_state() -> None:
    fresh = Standing(attempt=0, plan_number=0, log_hash="", is_clean=True, parent_hash="parent")
    assert adopt({0: fresh}, parent_hash="parent") is None


def test_source_among_equals_is_one_that_stays() -> None:
    for election in (
        elect({0: AT_8, 1: AT_8, 2: AT_7}, attempt=2, preferred={1, 2}),
        adopt({0: AT_8, 1: AT_8, 2: AT_7}, parent_hash="parent", preferred={1, 2}),
    ):
        assert election is not None
        assert (election.source, election.behind) == (1, {2})
    alone = elect({0: AT_8, 1: AT_7}, attempt=2, preferred={1})
    assert alone is not None
    assert alone.source == 0
