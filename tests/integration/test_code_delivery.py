"""Two versions of one module, and of one package that it requires, side by side in Ray's processes; the folders of the code are gone."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from dtrain.code.archive import pack
from dtrain.code.digest import with_packages
from dtrain.packages.base import Base
from dtrain.packages.resolve import resolve
from dtrain.policy.blocking import Size
from dtrain.runtime.delivery import Delivery
from dtrain.runtime.messages import Following
from dtrain.runtime.reader import Reader
from dtrain.spec.job import JobSpec
from tests.support.code import write_code
from tests.support.packages import offer

MAPS = """
import pyarrow as pa
from delivered.factor import FACTOR
from dtrain_delivered import VERSION


def more(batch):
    return pa.record_batch({"y": pa.array([FACTOR * y + int(VERSION[0]) for y in batch.column("y").to_pylist()], pa.int64())})
"""
pytestmark = pytest.mark.slow


class Reading:
    """A reader's process whose map, and the package that it imports, are of this version."""

    def __init__(self, folder: Path, *, factor: int, requirement: str) -> None:
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
                "requirements": [requirement],
                "checkpoint": {"to": str(folder / "checkpoints")},
            }
        )
        shutil.rmtree(code)
        lock = resolve([requirement], base=Base(sys.path))
        self.code_sha256 = with_packages(archive.code_sha256, lock.sha256)
        delivery = replace(Delivery.of(archive.sha256, archive.content), lock=lock.to_json())
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
    offer("dtrain-delivered", ["1.0", "2.0"])
    versions = {10: "dtrain-delivered<2", 100: "dtrain-delivered"}
    readings = [Reading(tmp_path, factor=factor, requirement=requirement) for factor, requirement in versions.items()]
    assert [reading.rows() for reading in readings] == [[11, 21], [102, 202]]
