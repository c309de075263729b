"""A job's requirements come to a lock once, and every later start has the same, whatever the index has by then."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtrain import logs
from dtrain.checkpoint.places import open_store
from dtrain.job.status import Outcome
from dtrain.packages.lock import Lock
from dtrain.runtime.coordinator import Coordinator, Orders
from dtrain.runtime.requirements import lock_of
from dtrain.spec.job import JobSpec
from tests.support.packages import INDEX, offer
from tests.support.ranks import spec


@pytest.fixture
def _logs() -> Iterator[None]:
    yield
    logs.configure()


def a_job(folder: Path, *requirements: str) -> JobSpec:
    (folder / "code").mkdir()
    checkpoint = {"to": str(folder / "checkpoints")}
    value = spec(numerics="fast").model_dump(mode="json") | {"requirements": list(requirements), "code": str(folder / "code")}
    return JobSpec.model_validate_json(JobSpec.model_validate({**value, "checkpoint": checkpoint}).to_json())


def test_newer_version_in_the_index_changes_nothing_for_a_job_that_has_its_lock(tmp_path: Path) -> None:
    shutil.rmtree(INDEX / "dtrain-settled", ignore_errors=True)
    offer("dtrain-settled", ["1.0"])
    job = a_job(tmp_path, "dtrain-settled")
    store, told = open_store(job.checkpoint.place_of("a")), list[str]()
    first = lock_of(job, store, code=job.code, tell=told.append)
    offer("dtrain-settled", ["1.0", "1.1"])
    assert lock_of(job, store, code=job.code, tell=told.append) == first
    other = open_store(job.checkpoint.place_of("b"))
    locks = [Lock.from_json(text).versions for text in (first, lock_of(job, other, code=job.code, tell=told.append))]
    assert locks == [{"dtrain-settled": "1.0"}, {"dtrain-settled": "1.1"}]
    assert told == [
        "resolving dtrain-settled",
        "settled for the life of the job, besides what the workers have: dtrain-settled 1.0",
        "resolving dtrain-settled",
        "settled for the life of the job, besides what the workers have: dtrain-settled 1.1",
    ]


def test_job_without_requirements_has_no_lock(tmp_path: Path) -> None:
    job = a_job(tmp_path)
    assert lock_of(job, open_store(job.checkpoint.place_of("a")), code=job.code, tell=print) == ""


@pytest.mark.usefixtures("_logs")
def test_job_whose_requirements_cannot_be_had_is_blocked_before_anything_starts(tmp_path: Path) -> None:
    job = a_job(tmp_path, "dtrain-nowhere")
    found = Coordinator(Orders("job-1", 1, job.to_json(), str(tmp_path / "logs"), 1, False))
    asyncio.run(found._run())
    assert (found._outcome, found._reason) == (Outcome.BLOCKED, "REQUIREMENTS")
    assert "dtrain-nowhere was not found" in found._message
    assert (found._crew, found._readers) == (None, None)
