"""What a job's requirements came to is settled once, where its checkpoints are."""

from __future__ import annotations

import hashlib

import pytest

from dtrain.checkpoint.locks import read_lock, settle_lock, settled_lock
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import CorruptError
from tests.support.memory_files import MemoryFiles

KEY = "a" * 64


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_who_is_first_settles_the_lock_and_others_get_it() -> None:
    store = CheckpointStore(MemoryFiles())
    assert settled_lock(store, KEY) is None
    assert [settle_lock(store, KEY, "one"), settle_lock(store, KEY, "two"), settled_lock(store, KEY)] == ["one"] * 3
    assert settle_lock(store, "b" * 64, "two") == "two"
    assert read_lock(store, sha256("one")) == "one"
    assert read_lock(store, "") == ""


@pytest.mark.parametrize("damage", ["gone", "changed", "pointer"])
def test_lock_that_is_not_what_was_written_is_named(damage: str) -> None:
    files = MemoryFiles()
    store = CheckpointStore(files)
    settle_lock(store, KEY, "one")
    name = f"requirements/{KEY}.json" if damage == "pointer" else f"locks/{sha256('one')}.json"
    if damage == "gone":
        del files.contents[name]
    else:
        files.contents[name] = b"other"
    with pytest.raises(CorruptError, match="requirements/" if damage == "pointer" else "the lock"):
        settled_lock(store, KEY)
