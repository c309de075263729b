"""What the SQL store does when its file or its neighbours misbehave (fault 18)."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from dtrain.control.store import SqlJobStore
from dtrain.errors import CorruptError, DtrainError, StorageError, UnavailableError
from dtrain.job.protocols import JobRecord

RECORD = JobRecord(job_id="flights-00001", name="flights", spec_json="{}", request_id="r1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlJobStore]:
    with closing(SqlJobStore.open(path, timeout_s=0.05)) as made:
        yield made


def test_store_opened_again_has_what_was_kept(path: Path) -> None:
    with closing(SqlJobStore.open(path)) as store:
        kept = store.create(RECORD)
    with closing(SqlJobStore.open(path)) as store:
        assert store.get("flights") == kept


def test_write_reaches_the_disk_before_it_returns(store: SqlJobStore) -> None:
    with store._engine.connect() as db:
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
        assert db.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2  # FULL


def test_locked_store_is_unavailable_for_writes_and_changes_nothing(store: SqlJobStore, path: Path) -> None:
    kept = store.create(RECORD)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError, match="locked"):
            store.swap(kept, replace(kept, message="changed"))
        assert store.get(kept.job_id) == kept  # readers are not held up
    assert store.swap(kept, replace(kept, message="changed")) is not None


def test_error_inside_a_write_changes_nothing(store: SqlJobStore) -> None:
    kept = store.create(RECORD)
    with pytest.raises(TypeError):
        store.swap(kept, replace(kept, message="changed"), [None])  # type: ignore[list-item]
    assert store.get(kept.job_id) == kept


@pytest.mark.parametrize("content", [b"this is not a database" * 100, os.urandom(4_096)])
def test_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptError, match=r"jobs\.db is damaged"):
        SqlJobStore.open(path)
    assert path.read_bytes() == content


def test_store_of_a_later_version_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(CorruptError, match="later dtrain"):
        SqlJobStore.open(path)


def test_store_in_a_folder_that_is_not_there_is_a_matter_of_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        SqlJobStore.open(tmp_path / "none" / "jobs.db")


def test_store_with_damaged_pages_is_refused_or_answers_but_never_anything_else(path: Path) -> None:
    with closing(SqlJobStore.open(path)) as store:
        for number in range(50):
            store.create(replace(RECORD, job_id=f"flights-{number}", request_id=str(number)))
    sound, chance = path.read_bytes(), random.Random(7)
    num_refused = 0
    for _ in range(30):
        at = chance.randrange(len(sound) - 64)
        path.write_bytes(sound[:at] + chance.randbytes(64) + sound[at + 64 :])
        try:
            with closing(SqlJobStore.open(path)) as store:
                store.page(after="", limit=100)
        except DtrainError:
            num_refused += 1
    assert num_refused > 5
