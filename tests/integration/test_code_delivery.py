"""Two versions of one module side by side in Ray's processes, each from an archive; the folders that they were packed from are gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import ray

from dtrain.code.archive import pack
from dtrain.policy.blocking import Size
from dtrain.runtime.delivery import Delivery
from dtrain.runtime.messages import Following
from dtrain.runtime.reader import Reader
from dtrain.spec.job import JobSpec
from tests.support.code import write_code

MAPS = """
import pyarrow as pa
from delivered.factor import FACTOR


def more(batch):
    return pa.record_batch({"y": pa.array([FACTOR * y for y in batch.column("y").to_pylist()], pa.int64())})
"""
pytestmark = pytest.mark.slow


class Reading:
    """A reader's process whose map is of this version."""

    def __init__(self, folder: Path, *, factor: int) -> None:
        files = {"delivered/__init__.py": "", "delivered/factor.py": f"FACTOR = {factor}\n", "delivered_maps.py": MAPS}
        code = write_code(folder / f"code-{factor}", files)
        archive = pack(code)
        (folder / "rows.csv").write_text("y\n1\n2\n", encoding="utf-8")
        self.spec = JobSpec.model_validate(
            {
                "name": "delivered",
                "task": "delivered_maps:None",
                "code": str(code),
                "source": {"files": str(folder / "rows.csv")},
                "transform": {"map": "delivered_maps:more"},
                "checkpoint": {"to": str(folder / "checkpoints")},
            }
        )
        shutil.rmtree(code)
        self.code_sha256 = archive.code_sha256
        delivery = Delivery.of(archive.sha256, archive.content)
        self.actor: Any = (
            ray.remote(Reader).options(num_cpus=0).remote(self.spec.to_json(), str(folder / f"{factor}.jsonl"), delivery)
        )

    def rows(self) -> list[int]:
        found = ray.get(self.actor.begin.remote())
        following = Following(1, found.positions, found.ends, {"y": "int64"}, found.identity, {}, code_sha256=self.code_sha256)
        ray.get(self.actor.follow.remote(following))
        rows: list[int] = []
        while len(rows) < 2:
            _, batch = ray.get(self.actor.next.remote(1, Size(100, 1 << 20), ()))
            rows += batch.column("y").to_pylist() if batch is not None else []
        return rows


def test_processes_of_two_versions_each_run_their_own(cluster: Path, tmp_path: Path) -> None:
    readings = [Reading(tmp_path, factor=factor) for factor in (10, 100)]
    assert [reading.rows() for reading in readings] == [[10, 20], [100, 200]]
