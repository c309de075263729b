"""Poison steps are recorded once each, whoever else records, and skipped only where that was allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.checkpoint.places import open_store
from dtrain.checkpoint.poison import allow_skips, record_poison, skips
from dtrain.checkpoint.store import CheckpointStore
from dtrain.errors import StorageError
from tests.support.checkpoints import BEGIN, PARTITIONS, take
from tests.support.faulty_files import HookedFiles

ONE, OTHER = take(BEGIN, PARTITIONS[0], 3), take(BEGIN, PARTITIONS[1], 5)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return open_store(tmp_path / "job")


def test_steps_that_were_recorded_are_skipped_once_that_is_allowed(store: CheckpointStore) -> None:
    for _ in range(2):
        assert record_poison(store, [ONE]) is None
    assert skips(store) == ()
    allow_skips(store)
    record_poison(store, [OTHER])
    assert skips(store) == (ONE,)


def test_step_whose_name_somebody_else_takes_at_that_moment_is_recorded_under_another(store: CheckpointStore) -> None:
    def hook(operation: str, _: str) -> None:
        if operation == "create":
            files.hook = lambda *_: None
            record_poison(store, [OTHER])

    files = HookedFiles(store.files._root, hook)
    record_poison(CheckpointStore(files), [ONE])
    allow_skips(store)
    assert skips(store) == (OTHER, ONE)


@pytest.mark.parametrize("fails", ["modified", "create"])
def test_step_that_cannot_be_recorded_says_so_and_raises_nothing(store: CheckpointStore, fails: str) -> None:
    def hook(operation: str, _: str) -> None:
        if operation == fails:
            raise StorageError("no space left")

    error = record_poison(CheckpointStore(HookedFiles(store.files._root, hook)), [ONE])
    assert isinstance(error, StorageError)
    assert skips(store) == ()
