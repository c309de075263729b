import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.errors import CorruptError
from dtrain.steplog.entries import GENESIS, Entry, extend_hash
from dtrain.steplog.segments import Segment, hash_of, seal, unseal
from tests.support.steplogs import LOG


@given(LOG)
def test_unseal_returns_what_was_sealed(entries: list[Entry]) -> None:
    segment, content = seal(entries)
    assert unseal(segment, content) == entries
    assert (segment.first, segment.last, segment.num_bytes) == (entries[0].number, entries[-1].number, len(content))
    assert Segment.from_json(segment.to_json()) == segment
    assert content.count(b"\n") == len(entries)


@given(LOG, st.data())
def test_unseal_of_other_bytes_is_corrupt(entries: list[Entry], data: st.DataObject) -> None:
    segment, content = seal(entries)
    place = data.draw(st.integers(0, len(content) - 1))
    for other in (content[:place], content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], content + b"\n"):
        with pytest.raises(CorruptError):
            unseal(segment, other)


@given(LOG, st.integers(-2, 2), st.integers(-2, 2))
def test_unseal_by_a_name_that_lies_is_corrupt(entries: list[Entry], first: int, last: int) -> None:
    segment, content = seal(entries)
    lie = replace(segment, first=segment.first + first, last=segment.last + last)
    if lie != segment:
        with pytest.raises(CorruptError):
            unseal(lie, content)


@given(LOG)
def test_unseal_of_entries_out_of_order_is_corrupt(entries: list[Entry]) -> None:
    segment, content = seal([*entries, replace(entries[-1], number=entries[-1].number + 2)])
    with pytest.raises(CorruptError):
        unseal(segment, content)


@pytest.mark.parametrize("content", [b"x\n", b"{}\n", b"[]\n", b"3\n", b'{"n":1,"kind":"data","rows":1,"ranges":[3]}\n'])
def test_unseal_of_signed_nonsense_is_corrupt(content: bytes) -> None:
    with pytest.raises(CorruptError):
        unseal(Segment(hashlib.sha256(content).hexdigest(), 1, 1, len(content)), content)


@given(LOG, st.integers(0, 10))
def test_hash_of_a_log_is_that_of_its_parts_in_turn(entries: list[Entry], cut: int) -> None:
    assert hash_of(hash_of(GENESIS, entries[:cut]), entries[cut:]) == hash_of(GENESIS, entries)
    assert hash_of(GENESIS, entries[:1]) == extend_hash(GENESIS, entries[0])
