"""No history breaks the protocol, and some history breaks it as soon as one of its rules is taken out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, replace

import pytest

from tests.simulation.rules import Rules
from tests.simulation.run import search, small_world

NUM_HISTORIES = 300
NUM_SEARCHED = 1000
"""From a rule's seed on. Who changes the code that is simulated changes the histories: look for seeds again with `--off RULE`."""
SEEDS = {
    "claim_first": 34,
    "close_lower": 3665,
    "recheck": 130,
    "promise": 26,
    "adopt_min": 18212,
    "lineage_hash": 646,
    "confirmed": 23323,
    "plans_fixed": 177,
    "rollback_claims": 303,
    "segments_in_replica": 40,
    "snapshot_tag": 23811,
    "snapshot_abandon": 681,
    "rejects_from_log": 0,
    "attempt_check": 5,
    "dirty_check": 40,
}
RARE = {"all_fences", "by_number", "adopt_atomic", "keep_counting"}
"""No seed is known. `unit/checkpoint/test_races.py` takes the first and the last out; the others have unit tests: fences, election."""


@pytest.fixture(autouse=True, scope="module")
def world() -> Iterator[None]:
    with small_world():
        yield


def test_protocol_no_history_breaks_it() -> None:
    assert search(Rules(), range(NUM_HISTORIES), limit=1) == []


def test_protocol_no_history_breaks_it_where_rows_are_shuffled() -> None:
    counts: Counter[str] = Counter()
    assert search(Rules(), range(NUM_HISTORIES), limit=1, counts=counts, is_shuffled=True) == []
    assert counts["open spans"] > 20, "attempts that began in the middle of one"


@pytest.mark.parametrize("is_shuffled", [False, True])
def test_protocol_no_history_breaks_it_where_partitions_come_rows_are_passed_over_and_members_leave(is_shuffled: bool) -> None:
    counts: Counter[str] = Counter()
    kinds = {"is_shuffled": is_shuffled, "is_changing": True}
    assert search(Rules(), range(NUM_HISTORIES // 3), limit=1, counts=counts, **kinds) == []
    assert counts["moves"] > NUM_HISTORIES // 3
    assert counts["leaves"] > NUM_HISTORIES // 10


@pytest.mark.parametrize(("rule", "seed"), SEEDS.items())
def test_protocol_without_one_rule_is_seen_to_break(rule: str, seed: int) -> None:
    assert search(replace(Rules(), **{rule: False}), range(seed, seed + NUM_SEARCHED), limit=1)


def test_protocol_every_rule_is_tried() -> None:
    assert {rule.name for rule in fields(Rules)} == SEEDS.keys() | RARE
