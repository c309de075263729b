import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.errors import StateError
from dtrain.steplog.entries import GENESIS, Entry, StepKind, canonical, extend_hash
from tests.support.steplogs import ENTRY, JSON


@given(ENTRY)
def test_entry_read_is_what_was_written(entry: Entry) -> None:
    assert Entry.from_json(json.loads(canonical(entry.to_json()))) == entry


@given(st.dictionaries(st.text(), JSON))
def test_canonical_is_json_of_one_spelling(value: dict[str, object]) -> None:
    content = canonical(value)
    assert json.loads(content) == value
    assert canonical(json.loads(content)) == content == canonical(dict(reversed(value.items())))
    assert content.isascii()
    assert b"\n" not in content


def test_canonical_holds_half_a_character() -> None:
    assert json.loads(canonical('"\ud800"')) == '"\ud800"'


@given(ENTRY, ENTRY)
def test_hash_tells_entries_and_their_order_apart(first: Entry, second: Entry) -> None:
    one, other = extend_hash(GENESIS, first), extend_hash(GENESIS, second)
    assert (one == other) == (first == second)
    assert (extend_hash(one, second) == extend_hash(other, first)) == (first == second)


def test_hash_is_the_documented_one() -> None:
    """Written here by hand, so that a log that was sealed once can be checked for ever."""
    content = b'{"kind":"checkpoint","n":1,"ranges":[],"rows":0}'
    assert extend_hash(GENESIS, Entry(1, StepKind.CHECKPOINT)) == hashlib.sha256(b"0" * 64 + content).hexdigest()


def test_hash_of_a_skipped_step_says_so() -> None:
    content = b'{"kind":"data","n":1,"ranges":[],"rows":3,"skipped":"non_finite"}'
    entry = Entry(1, StepKind.DATA, num_rows=3, skipped="non_finite")
    assert extend_hash(GENESIS, entry) == hashlib.sha256(b"0" * 64 + content).hexdigest()


@pytest.mark.parametrize("value", [{"n": 1}, {"n": 1, "kind": None, "rows": 0, "ranges": []}])
def test_entry_of_other_json_is_an_error(value: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        Entry.from_json(value)


def test_entry_of_a_kind_that_is_not_known_is_another_dtrains_and_not_corrupt() -> None:
    with pytest.raises(StateError, match="log entry 1 was written by another dtrain, as a 'dance' step"):
        Entry.from_json({"n": 1, "kind": "dance", "rows": 0, "ranges": []})
