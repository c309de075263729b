"""Partitions are spread by load, move rarely, and each is read by one reader; readers are added while that helps."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.policy.assignment import EVEN, FULL, PATIENCE, REST, ReaderCount, assign
from dtrain.steplog.positions import Partition

PARTITIONS = [Partition("t", number) for number in range(12)]

some_partitions = st.sets(st.sampled_from(PARTITIONS), min_size=1)
some_readers = st.sets(st.integers(0, 5), min_size=1)
some_loads = st.dictionaries(st.sampled_from(PARTITIONS), st.floats(0, 1e9))
some_current = st.dictionaries(st.sampled_from(PARTITIONS), st.integers(0, 5))


@given(some_partitions, some_current, some_loads, some_readers, st.booleans())
def test_assign_every_partition_has_one_reader_that_is_there(
    partitions: set[Partition], current: dict[Partition, int], loads: dict[Partition, float], readers: set[int], may_move: bool
) -> None:
    found = assign(partitions, current=current, loads=loads, readers=readers, may_move=may_move)
    assert set(found) == partitions
    assert set(found.values()) <= readers


@given(some_partitions, some_current, some_loads, some_readers)
def test_assign_what_may_not_move_stays(
    partitions: set[Partition], current: dict[Partition, int], loads: dict[Partition, float], readers: set[int]
) -> None:
    found = assign(partitions, current=current, loads=loads, readers=readers, may_move=False)
    assert all(found[p] == current[p] for p in partitions if current.get(p) in readers)


@given(some_partitions, some_current, some_loads, some_readers)
def test_assign_twice_moves_nothing_the_second_time(
    partitions: set[Partition], current: dict[Partition, int], loads: dict[Partition, float], readers: set[int]
) -> None:
    found = assign(partitions, current=current, loads=loads, readers=readers, may_move=True)
    assert assign(partitions, current=found, loads=loads, readers=readers, may_move=True) == found


@pytest.mark.parametrize("num_readers", [1, 2, 3, 4, 5, 12])
def test_assign_of_equal_or_unknown_loads_is_even(num_readers: int) -> None:
    found = assign(PARTITIONS, current={}, loads={}, readers=range(num_readers), may_move=True)
    counts = Counter(found.values()).values()
    assert max(counts) - min(counts) <= 1


def test_assign_a_hot_partition_gets_a_reader_of_its_own() -> None:
    loads = dict.fromkeys(PARTITIONS, 1.0) | {PARTITIONS[3]: 1000.0}
    found = assign(PARTITIONS, current=dict.fromkeys(PARTITIONS, 0), loads=loads, readers=[0, 1], may_move=True)
    assert [p for p in PARTITIONS if found[p] == found[PARTITIONS[3]]] == [PARTITIONS[3]]


def test_assign_idle_partitions_are_spread_too() -> None:
    found = assign(PARTITIONS, current={}, loads=dict.fromkeys(PARTITIONS, 0.0), readers=[0, 1], may_move=False)
    assert set(Counter(found.values()).values()) == {6}


def test_assign_of_a_dead_reader_goes_to_the_least_busy_and_nothing_else_moves() -> None:
    current = {p: p.number % 3 for p in PARTITIONS}
    loads = dict.fromkeys(PARTITIONS, 1.0)
    found = assign(PARTITIONS, current=current, loads=loads, readers=[0, 2], may_move=False)
    assert all(found[p] == current[p] for p in PARTITIONS if current[p] != 1)
    assert set(Counter(found.values()).values()) == {6}


def test_assign_partitions_that_were_added_go_where_there_is_least() -> None:
    current = dict.fromkeys(PARTITIONS[:8], 0) | dict.fromkeys(PARTITIONS[8:10], 1)
    found = assign(PARTITIONS, current=current, loads={}, readers=[0, 1], may_move=False)
    assert [found[p] for p in PARTITIONS[10:]] == [1, 1]


def test_assign_loads_that_are_even_enough_move_nothing() -> None:
    current = {p: p.number % 2 for p in PARTITIONS}
    loads = {p: 1.0 + 0.2 * (p.number % 2) for p in PARTITIONS}
    assert max(loads.values()) < EVEN
    assert assign(PARTITIONS, current=current, loads=loads, readers=[0, 1], may_move=True) == current


def test_count_a_fixed_number_is_kept_as_far_as_there_are_partitions() -> None:
    count = ReaderCount(fixed=4, cpus=2)
    assert count.look([0.0], num_partitions=8, is_starved=False) == 4
    assert count.look([0.0] * 4, num_partitions=3, is_starved=False) == 3
    assert count.look([0.0] * 3, num_partitions=0, is_starved=False) == 1


def test_count_grows_while_readers_are_full_and_rows_are_wanted_up_to_the_cores() -> None:
    count = ReaderCount(fixed=0, cpus=4)
    seen = [count.look([0.95] * count.number, num_partitions=16, is_starved=True) for _ in range(5 * PATIENCE)]
    assert seen[:PATIENCE] == [1] * (PATIENCE - 1) + [2]
    assert seen[-1] == 4
    assert seen == sorted(seen)


@pytest.mark.parametrize(("busy", "is_starved"), [(0.5 * FULL, True), (0.95, False)])
def test_count_does_not_grow_where_broker_or_trainers_are_the_limit(busy: float, is_starved: bool) -> None:
    count = ReaderCount(fixed=0, cpus=8)
    assert {count.look([busy], num_partitions=16, is_starved=is_starved) for _ in range(100)} == {1}


def test_count_shrinks_only_after_a_long_while() -> None:
    count = ReaderCount(fixed=0, cpus=8, number=3)
    seen = [count.look([0.1] * count.number, num_partitions=16, is_starved=False) for _ in range(3 * REST)]
    assert seen[: REST - 1] == [3] * (REST - 1)
    assert seen[-1] == 1


def test_count_of_readers_that_are_needed_stays() -> None:
    count = ReaderCount(fixed=0, cpus=8, number=2)
    assert {count.look([0.4, 0.4], num_partitions=16, is_starved=False) for _ in range(3 * REST)} == {2}


def test_assign_of_many_partitions_moves_as_many_as_make_it_even_enough() -> None:
    partitions = [Partition("t", number) for number in range(20_000)]  # a pass over all of them a move would take hours
    current = dict.fromkeys(partitions, 0)
    found = assign(partitions, current=current, loads=dict.fromkeys(partitions, 1.0), readers=(0, 1), may_move=True)
    assert max(Counter(found.values()).values()) == pytest.approx(EVEN * len(partitions) / 2, abs=1)
