"""Jobs in a SQL database. SQLite: write-ahead log, every write an immediate transaction that is on the disk when it returns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from threading import Lock
from typing import Any

import sqlalchemy as sa

from dtrain.errors import CorruptError, DtrainError, InternalError, NotFoundError, StorageError, UnavailableError
from dtrain.job.lifecycle import State
from dtrain.job.protocols import JobRecord, check_same
from dtrain.job.status import Happening, JobStatus, StoredEvent
from dtrain.logs import printable

_SCHEMA_VERSION = 4
_TABLES = sa.MetaData()
_JOBS = sa.Table(
    "jobs",
    _TABLES,
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("job_id", sa.String, unique=True, nullable=False),
    sa.Column("name", sa.String, index=True, nullable=False),
    sa.Column("spec_json", sa.Text, nullable=False),
    sa.Column("state", sa.String, index=True, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("incarnation", sa.Integer, nullable=False),
    sa.Column("has_actors", sa.Boolean, index=True, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("furthest_plan", sa.Integer, nullable=False),
    sa.Column("cursor", sa.Integer, nullable=False),
    sa.Column("accept_code_change", sa.Boolean, nullable=False),
    sa.Column("skip_step", sa.Boolean, nullable=False),
    sa.Column("allow_gap", sa.Boolean, nullable=False),
    sa.Column("workers", sa.Integer, nullable=False),
    sa.Column("code_archive", sa.String, nullable=False),
    sa.Column("code_sha256", sa.String, nullable=False),
    sa.Column("request_id", sa.String, unique=True, nullable=False),
    sa.Column("created_at_s", sa.Float, nullable=False),
    sa.Column("updated_at_s", sa.Float, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)
_EVENTS = sa.Table(
    "events",
    _TABLES,
    sa.Column("job_id", sa.String, sa.ForeignKey("jobs.job_id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at_s", sa.Float, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
)
_LATER = {
    **dict.fromkeys(("skip_step", "workers", "allow_gap"), "INTEGER NOT NULL DEFAULT 0"),
    **dict.fromkeys(("code_archive", "code_sha256"), "VARCHAR NOT NULL DEFAULT ''"),
}
"""Columns that jobs of earlier versions lack, and what they begin with."""
_TERMINAL = [state.value for state in State if state.is_terminal]


class SqlJobStore:
    """A `JobStore` in one SQLite file. `open` makes it."""

    def __init__(self, engine: sa.Engine, *, timeout_s: float) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._turn = Lock()
        self._reads = engine.execution_options(is_read=True)

    @classmethod
    def open(cls, path: Path, *, timeout_s: float = 3.0) -> SqlJobStore:
        """The store in `path`, made if there is none.

        Args:
            path: of the database; its folder exists.
            timeout_s: how long a call waits for somebody else's lock before it raises `UnavailableError`.

        Raises:
            CorruptError: the file is damaged, is no database, or was written by a later dtrain. It was not changed.
        """
        engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": timeout_s}, pool_size=16)
        sa.event.listen(engine, "connect", _prepare)
        sa.event.listen(engine, "begin", _begin)
        store = cls(engine, timeout_s=timeout_s)
        with _mapped(path):
            store._check(path)
            with engine.begin() as db:
                _upgrade(db)
                _TABLES.create_all(db)
                db.exec_driver_sql(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        return store

    def close(self) -> None:
        """Every connection is closed."""
        self._engine.dispose()

    def create(self, record: JobRecord, happenings: Sequence[Happening] = ()) -> JobRecord:
        """See `JobStore.create`."""
        with self._write() as db:
            row = db.execute(sa.select(_JOBS).where(_JOBS.c.request_id == record.request_id)).first()
            if row is not None:
                kept = _record(row)
                check_same(kept, record)
                return kept
            if db.execute(sa.select(_JOBS.c.job_id).where(_JOBS.c.job_id == record.job_id)).first():
                raise UnavailableError(f"the job id {record.job_id} is taken", fix="submit again")
            new = _storable(replace(record, version=1))
            db.execute(sa.insert(_JOBS).values(_columns(new)))
            _append(db, new.job_id, happenings)
        return new

    def get(self, job: str) -> JobRecord:
        """See `JobStore.get`."""
        is_id = _JOBS.c.job_id == job
        query = sa.select(_JOBS).where(is_id | (_JOBS.c.name == job)).order_by(is_id.desc(), _JOBS.c.sequence.desc()).limit(1)
        rows = self._read(query)
        if not rows:
            raise NotFoundError(f"there is no job {job!r}", fix="`dtrain list` shows all jobs")
        return _record(rows[0])

    def page(self, *, after: str, limit: int, state: State | None = None) -> Sequence[JobRecord]:
        """See `JobStore.page`."""
        query = sa.select(_JOBS).order_by(_JOBS.c.sequence).limit(limit)
        if after:
            query = query.where(_JOBS.c.sequence > sa.select(_JOBS.c.sequence).where(_JOBS.c.job_id == after).scalar_subquery())
        if state is not None:
            query = query.where(_JOBS.c.state == state.value)
        return [_record(row) for row in self._read(query)]

    def unsettled(self) -> Sequence[JobRecord]:
        """See `JobStore.unsettled`."""
        is_unsettled = _JOBS.c.state.not_in(_TERMINAL) | _JOBS.c.has_actors
        return [_record(row) for row in self._read(sa.select(_JOBS).where(is_unsettled).order_by(_JOBS.c.sequence))]

    def swap(self, old: JobRecord, new: JobRecord, happenings: Sequence[Happening] = ()) -> JobRecord | None:
        """See `JobStore.swap`."""
        kept = _storable(replace(new, version=old.version + 1))
        is_old = (_JOBS.c.job_id == old.job_id) & (_JOBS.c.version == old.version)
        with self._write() as db:
            if db.execute(sa.update(_JOBS).where(is_old).values(_columns(kept))).rowcount == 0:
                return None
            _append(db, old.job_id, happenings)
        return kept

    def events(self, job_id: str, *, after: int, limit: int) -> Sequence[StoredEvent]:
        """See `JobStore.events`."""
        is_new = (_EVENTS.c.job_id == job_id) & (_EVENTS.c.number > after)
        rows = self._read(sa.select(_EVENTS).where(is_new).order_by(_EVENTS.c.number).limit(limit))
        return [StoredEvent(row.number, Happening(at_s=row.at_s, kind=row.kind, message=row.message)) for row in rows]

    def _read(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        with _mapped(), self._reads.connect() as db:
            return db.execute(query).all()

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        """A transaction. Threads take turns: SQLite's own wait for a lock sleeps, and is unfair."""
        if not self._turn.acquire(timeout=self._timeout_s):
            raise UnavailableError("the job store is busy", fix="try again")
        try:
            with _mapped(), self._engine.begin() as db:
                yield db
        finally:
            self._turn.release()

    def _check(self, path: Path) -> None:
        with self._reads.connect() as db:
            version = db.exec_driver_sql("PRAGMA user_version").scalar_one()
            if version > _SCHEMA_VERSION:
                raise CorruptError(
                    f"the jobs in {path} were written by a later dtrain", fix="run that version, or use another home"
                )
            found = db.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
            if found != "ok":
                raise _corrupt(path, str(found))


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions are begun by `_begin`, not by the driver's guess
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(db: sa.Connection) -> None:
    """A transaction takes the write lock at its beginning: two that read first and write later cannot both lose."""
    db.exec_driver_sql("BEGIN" if db.get_execution_options().get("is_read") else "BEGIN IMMEDIATE")


def _upgrade(db: sa.Connection) -> None:
    """The table of an earlier version has the columns of this one. By what is there, not by its number: some say 3 and lack them."""
    there = {row.name for row in db.exec_driver_sql("PRAGMA table_info(jobs)")}
    for name, kind in _LATER.items():
        if there and name not in there:
            db.exec_driver_sql(f"ALTER TABLE jobs ADD COLUMN {name} {kind}")


def _storable(record: JobRecord) -> JobRecord:
    """`record` with words that a database takes: a task may raise an error with any text at all."""
    return replace(record, reason=printable(record.reason), message=printable(record.message))


def _columns(record: JobRecord) -> dict[str, Any]:
    return {**asdict(record), "state": record.state.value, "status": json.dumps(record.status.to_dict())}


def _record(row: sa.Row[Any]) -> JobRecord:
    values = dict(row._mapping)
    del values["sequence"]
    try:
        return JobRecord(**{**values, "state": State(row.state), "status": JobStatus.from_dict(json.loads(row.status))})
    except (ValueError, TypeError) as error:
        raise _corrupt(None, f"job {row.job_id}: {error}") from error


def _append(db: sa.Connection, job_id: str, happenings: Sequence[Happening]) -> None:
    if happenings:
        last = db.execute(sa.select(sa.func.max(_EVENTS.c.number)).where(_EVENTS.c.job_id == job_id)).scalar() or 0
        rows = [
            {"job_id": job_id, "number": last + i, **asdict(told), "message": printable(told.message)}
            for i, told in enumerate(happenings, 1)
        ]
        db.execute(sa.insert(_EVENTS), rows)


@contextmanager
def _mapped(path: Path | None = None) -> Iterator[None]:
    """The driver's errors as ours."""
    try:
        yield
    except sa.exc.TimeoutError as error:
        raise UnavailableError("the job store is busy", fix="try again") from error
    except sa.exc.DBAPIError as error:
        raise _ours(error, path) from error
    except UnicodeDecodeError as error:  # sqlite's complaint about a damaged schema quotes the damage
        raise _corrupt(path, "its schema cannot be read") from error


def _ours(error: sa.exc.DBAPIError, path: Path | None) -> DtrainError:
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the extended code's low byte is the kind
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return UnavailableError("the job store is locked by somebody else", fix="try again")
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return _corrupt(path, str(error.orig))
    if code in {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    }:
        return StorageError(f"the job store cannot be written: {error.orig}", fix="free some space, or make it writable")
    return InternalError(f"the job store: {error.orig}")


def _corrupt(path: Path | None, found: str) -> CorruptError:
    where = f" {path}" if path else ""
    return CorruptError(f"the job store{where} is damaged ({found})", fix="put a sound copy in its place, or use another home")
