"""What a coordinator does by itself, without Ray: its spec and store, what it was allowed, and its figures."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtrain import logs
from dtrain.checkpoint.manifest import Snapshot
from dtrain.errors import DriftError, MemberLostError
from dtrain.job.status import Outcome
from dtrain.runtime.coordinator import Coordinator, Orders
from dtrain.runtime.ledger import Origin
from dtrain.spec.job import JobSpec
from tests.support.checkpoints import BEGIN
from tests.support.ranks import spec


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    yield
    logs.configure()  # a coordinator has a file of its own


def coordinator(folder: Path, job: JobSpec | str, **allowed: bool) -> Coordinator:
    spec_json = job if isinstance(job, str) else job.to_json()
    orders = Orders("job-1", 1, spec_json, str(folder / "logs"), 1, **{"accept_code_change": False, **allowed})
    return Coordinator(orders)


def a_job(folder: Path) -> JobSpec:
    job = spec(numerics="fast")
    (folder / "code").mkdir(exist_ok=True)
    checkpoint = job.checkpoint.model_copy(update={"to": str(folder / "checkpoints")})
    return job.model_copy(update={"code": str(folder / "code"), "checkpoint": checkpoint})


async def _recovered(found: Coordinator, *, has_committed: bool) -> None:
    """As after an attempt that lost its last member; a trainer is there for the next."""
    attempt: Any = SimpleNamespace(has_committed=has_committed)
    crew: Any = SimpleNamespace(ready=["trainer"], failure=None, fill=lambda: None)
    found._attempt, found._crew = attempt, crew
    await found._recover(MemberLostError("gone"))


def test_permission_for_other_code_ends_with_the_first_checkpoint_that_has_it(tmp_path: Path) -> None:
    found = coordinator(tmp_path, a_job(tmp_path), accept_code_change=True)
    module = tmp_path / "code" / "task.py"

    async def live() -> None:
        found._open()
        module.write_text("a = 1")
        ledger = await found._open_ledger()
        ledger.begin(Snapshot(BEGIN, ledger.store.put_blob(b"genesis"), {}), origin=Origin({}, None), schema={})
        module.write_text("a = 2")
        await _recovered(found, has_committed=False)
        await found._open_ledger()  # allowed, and no checkpoint says so yet
        await _recovered(found, has_committed=True)
        await found._open_ledger()

    with pytest.raises(DriftError, match="code changed"):
        asyncio.run(live())


@pytest.mark.parametrize("trouble", ["spec", "store"])
def test_job_whose_spec_or_store_cannot_be_opened_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """In the constructor the error would be a dead actor: `10 coordinators in a row were lost`."""
    job = a_job(tmp_path)
    if trouble == "store":
        monkeypatch.setitem(sys.modules, "dtrain.checkpoint.objects", None)  # as without the extra
        job = job.model_copy(update={"checkpoint": job.checkpoint.model_copy(update={"to": "s3://bucket/x"})})
    found = coordinator(tmp_path, "{}" if trouble == "spec" else job)
    asyncio.run(found._run())
    assert (found._outcome, found._reason) == (Outcome.FAILED, "INPUT")
    assert ("dtrain[objects]" if trouble == "store" else "`name`") in found._message


def test_metrics_move_on_while_nobody_trains(tmp_path: Path) -> None:
    """A job that recovers or waits for rows reports nothing: its figures are those of now all the same."""
    found = coordinator(tmp_path, "{}")  # which trains nothing at all

    async def live() -> None:
        await found.start()
        for number in (1, 2):
            found._tracker.num_recoveries = number
            wanted = f'dtrain_job_recoveries_total{{job_id="job-1"}} {number}.0'
            while wanted not in await asyncio.to_thread(_scrape, found._tracker.metrics_port):
                await asyncio.sleep(0.05)

    try:
        asyncio.run(asyncio.wait_for(live(), 60))
    finally:
        found._metrics.close()


def _scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
