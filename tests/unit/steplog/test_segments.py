import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.errors import CorruptError
from dtrain.steplog.entries import Entry
from dtrain.steplog.segments import JOINED_BYTES, Segment, check_tiling, is_joined, listed, merge, ripe, seal, unseal
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


@pytest.mark.parametrize("num_bytes", [1, 3000, 10**6])
@given(number=st.integers(0, 3000))
@settings(max_examples=20, deadline=None)
def test_line_of_a_long_log_is_short_and_tiles_it(num_bytes: int, number: int) -> None:
    line: list[Segment] = []
    for entry in range(1, number + 1):
        group = line[ripe(line)]
        if group:
            contents = [b"x" * segment.num_bytes for segment in group] if is_joined(group) else []
            line[ripe(line)] = [merge(group, contents)[0]]
        line.append(Segment(f"{entry:064x}", entry, entry, num_bytes))
    check_tiling(line, first=1, last=number)
    assert [segment.tier for segment in line] == sorted((segment.tier for segment in line), reverse=True)
    assert len(line) <= 10 * len(str(number)) + 1
    assert all(segment.is_index or segment.num_bytes <= JOINED_BYTES for segment in line)


def test_index_lists_what_was_merged_and_nothing_else() -> None:
    group = [Segment(f"{n:064x}", 2 * n + 1, 2 * n + 2, JOINED_BYTES) for n in range(10)]
    index, content = merge(group, [])
    assert (index.first, index.last, index.tier, index.is_index) == (1, 20, 1, True)
    assert listed(index, content) == group
    assert Segment.from_json(index.to_json()) == index
    for lie in (replace(index, first=0), replace(index, last=21), replace(index, is_index=False)):
        with pytest.raises(CorruptError):
            listed(lie, content) if lie.is_index else unseal(lie, content)
    with pytest.raises(CorruptError):
        listed(index, content[:-1])


@given(LOG, st.integers(0, 15))
def test_unseal_after_a_number_is_the_rest(entries: list[Entry], after: int) -> None:
    segment, content = seal(entries)
    assert unseal(segment, content, after=after) == [entry for entry in entries if entry.number > after]
