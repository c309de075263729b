"""The log tail knows the running hash at each of its entries, and forgets what is sealed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dtrain.steplog.entries import GENESIS, Plan, StepKind, extend_hash
from dtrain.steplog.tail import LogTail


def entries(first: int, last: int) -> list[Plan]:
    return [Plan(number, StepKind.CHECKPOINT) for number in range(first, last + 1)]


def hashes(last: int) -> list[str]:
    found = [GENESIS]
    for entry in entries(1, last):
        found.append(extend_hash(found[-1], entry))
    return found


@given(st.integers(0, 12), st.lists(st.integers(0, 14), max_size=3))
def test_tail_sealed_anywhere_knows_every_hash_behind_the_seal(last: int, seals: list[int]) -> None:
    tail, expected = LogTail(entries=entries(1, last)), hashes(last)
    for seal in seals:
        tail.seal(seal)
    base = max([0, *(seal for seal in seals if seal <= last)])
    assert [entry.number for entry in tail] == list(range(base + 1, last + 1))
    assert [tail.hash_at(number) for number in range(last + 2)] == [None] * base + expected[base:] + [None]


def test_tail_sent_to_a_peer_is_the_same() -> None:
    tail = LogTail(entries=entries(1, 5))
    tail.seal(2)
    twin = LogTail.from_json(tail.to_json())
    assert list(twin) == list(tail)
    assert [twin.hash_at(n) for n in range(6)] == [tail.hash_at(n) for n in range(6)]


def test_copy_of_a_tail_does_not_grow_with_it() -> None:
    tail = LogTail()
    twin = tail.copy()
    tail.append(entries(1, 1)[0], "hash")
    assert (len(tail), len(twin)) == (1, 0)
