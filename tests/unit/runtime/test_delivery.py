"""A job's code comes to a host once, and its processes there use that, whatever became of the user's folder."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import ObjectLostError

from dtrain import logs
from dtrain.checkpoint.manifest import Snapshot
from dtrain.code.archive import Archive, pack
from dtrain.code.cache import host_cache
from dtrain.errors import UnavailableError
from dtrain.policy.blocking import Size
from dtrain.runtime.coordinator import Coordinator, Orders
from dtrain.runtime.delivery import NOTHING, Delivery, with_code_here
from dtrain.runtime.ledger import Origin
from dtrain.runtime.messages import Following
from dtrain.runtime.reader import Reader
from dtrain.spec.job import JobSpec
from tests.support.checkpoints import BEGIN
from tests.support.code import write_code

MAPS = (
    "from delivered_factor import FACTOR\nimport pyarrow as pa\n\n\ndef more(batch):\n    y = batch.column('y').to_pylist()\n"
)
MAPS += "    return pa.record_batch({'y': pa.array([FACTOR * value for value in y], pa.int64())})\n"


class Objects:
    """Stands for Ray's object store."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.num_fetched = 0

    def put(self, value: bytes) -> int:
        self.kept.append(value)
        return len(self.kept) - 1

    def get(self, reference: int, *, timeout: float) -> bytes:
        self.num_fetched += 1
        if reference >= len(self.kept):
            raise ObjectLostError("0" * 56, None, "")
        return self.kept[reference]


@pytest.fixture
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Objects]:
    made = Objects()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(ray, "put", made.put)
    monkeypatch.setattr(ray, "get", made.get)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    host_cache.cache_clear()
    yield made
    host_cache.cache_clear()
    logs.configure()


@pytest.fixture
def job(tmp_path: Path) -> JobSpec:
    (tmp_path / "rows.csv").write_text("y\n1\n2\n", encoding="utf-8")
    code = write_code(tmp_path / "code", {"delivered_maps.py": MAPS, "delivered_factor.py": "FACTOR = 10\n"})
    return JobSpec.model_validate(
        {
            "name": "delivered",
            "task": "delivered_maps:None",
            "code": str(code),
            "source": {"files": str(tmp_path / "rows.csv")},
            "transform": {"map": "delivered_maps:more"},
            "checkpoint": {"to": str(tmp_path / "checkpoints")},
        }
    )


def taken(job: JobSpec) -> Archive:
    """The job's code; its folder is gone."""
    archive = pack(Path(job.code))
    shutil.rmtree(job.code)
    return archive


def test_code_is_fetched_once_a_host(objects: Objects, job: JobSpec) -> None:
    archive = taken(job)
    delivery = Delivery.of(archive.sha256, archive.content)
    folders = {with_code_here(job, delivery).code for _ in range(3)}
    assert (len(folders), objects.num_fetched) == (1, 1)
    assert (Path(folders.pop()) / "delivered_factor.py").read_text() == "FACTOR = 10\n"


def test_job_without_delivery_reads_its_folder(job: JobSpec) -> None:
    assert with_code_here(job, NOTHING) is job


def test_code_whose_coordinator_is_gone_can_be_asked_for_again(objects: Objects, job: JobSpec) -> None:
    archive = taken(job)
    with pytest.raises(UnavailableError, match="could not be fetched"):
        with_code_here(job, Delivery(archive.sha256, (99,)))
    assert with_code_here(job, Delivery.of(archive.sha256, archive.content)).code != job.code


def test_reader_maps_by_the_code_that_was_delivered(objects: Objects, job: JobSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.logs.configure", lambda **_: None)
    archive = taken(job)
    reader = Reader(job.to_json(), "", Delivery.of(archive.sha256, archive.content))
    beginning: Any = reader.begin()
    reader.follow(
        Following(
            1, beginning.positions, beginning.ends, {"y": "int64"}, beginning.identity, {}, code_sha256=archive.code_sha256
        )
    )
    rows: list[int] = []
    while len(rows) < 2:
        _, batch = reader.next(1, Size(100, 1 << 20), ())
        rows += batch.column("y").to_pylist() if batch is not None else []
    assert rows == [10, 20]


def test_coordinator_knows_the_code_that_was_delivered_and_its_checkpoints_name_the_users_folder(
    objects: Objects, job: JobSpec, tmp_path: Path
) -> None:
    archive = taken(job)
    orders = Orders("job-1", 1, job.to_json(), str(tmp_path / "logs"), 1, False, code_archive=archive.sha256)

    async def live() -> None:
        found = Coordinator(orders, archive.content)
        found._open()
        await found._unpack()
        ledger = await found._open_ledger()
        made = ledger.begin(Snapshot(BEGIN, ledger.store.put_blob(b"genesis"), {}), origin=Origin({}, None), schema={})
        assert made.code_sha256 == archive.code_sha256
        assert JobSpec.from_json(made.spec_json).code == job.code

    asyncio.run(live())
