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
from dtrain.job.status import Happening

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


OLD_TABLES = """
CREATE TABLE jobs (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, job_id VARCHAR NOT NULL, name VARCHAR NOT NULL, spec_json TEXT NOT NULL,
    state VARCHAR NOT NULL, reason VARCHAR NOT NULL, message TEXT NOT NULL, incarnation INTEGER NOT NULL, has_actors BOOLEAN NOT NULL,
    failures INTEGER NOT NULL, furthest_plan INTEGER NOT NULL, cursor INTEGER NOT NULL, accept_code_change BOOLEAN NOT NULL, {later}
    request_id VARCHAR NOT NULL, created_at_s FLOAT NOT NULL, updated_at_s FLOAT NOT NULL, version INTEGER NOT NULL,
    status TEXT NOT NULL, UNIQUE (job_id), UNIQUE (request_id));
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE INDEX ix_jobs_has_actors ON jobs (has_actors);
CREATE INDEX ix_jobs_name ON jobs (name);
CREATE TABLE events (
    job_id VARCHAR NOT NULL, number INTEGER NOT NULL, at_s FLOAT NOT NULL, kind VARCHAR NOT NULL, message TEXT NOT NULL,
    PRIMARY KEY (job_id, number), FOREIGN KEY(job_id) REFERENCES jobs (job_id));
INSERT INTO jobs (job_id, name, spec_json, state, reason, message, incarnation, has_actors, failures, furthest_plan, cursor,
    accept_code_change, {names} request_id, created_at_s, updated_at_s, version, status)
VALUES ('old-00001', 'old', '{{}}', 'RUNNING', '', '', 3, 1, 0, 7, 2, 1, {values} 'r0', 1.5, 2.5, 9, '{{}}');
PRAGMA user_version = {number};
"""


@pytest.mark.parametrize(
    ("number", "later", "workers"), [(1, (), 0), (2, ("skip_step", "workers"), 1), (3, (), 0), (3, ("skip_step", "workers"), 1)]
)
def test_store_of_an_earlier_version_is_brought_up_to_date(
    path: Path, number: int, later: tuple[str, ...], workers: int
) -> None:
    """Two say that they are of this version, and are not: they were opened once by one that did not look."""
    columns = {"later": " INTEGER NOT NULL, ", "names": ", ", "values": ", "}
    texts = {key: "".join(("1" if key == "values" else name) + end for name in later) for key, end in columns.items()}
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD_TABLES.format(number=number, **texts))
    for _ in range(2):
        with closing(SqlJobStore.open(path)) as store:
            old = store.get("old")
            assert (old.incarnation, old.accept_code_change, old.skip_step, old.workers) == (3, True, bool(later), workers)
            assert (old.allow_gap, old.code_archive, old.code_sha256) == (False, "", "")  # its folder is read, as it was
            assert store.unsettled()[0] == old
            assert store.swap(old, replace(old, message="changed")) is not None
    with closing(SqlJobStore.open(path)) as store:
        kept = store.create(replace(RECORD, code_archive="a" * 64))
        assert (kept.allow_gap, store.get(kept.job_id).code_archive) == (False, "a" * 64)


def test_words_of_user_code_that_are_no_characters_are_kept_as_far_as_they_go(store: SqlJobStore) -> None:
    """`raise ValueError("bad \\udcff")` must not keep a job from coming to its end."""
    kept = store.create(RECORD)
    new = store.swap(kept, replace(kept, message="bad \udcff"), [Happening(at_s=1.0, kind="state", message="bad \ud800")])
    assert new is not None
    assert new.message == "bad ?"
    assert store.get(kept.job_id) == new
    assert [event.happening.message for event in store.events(kept.job_id, after=0, limit=9)] == ["bad ?"]
