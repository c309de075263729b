"""A host has the packages of a lock once, whole, and behind what the workers have. With the real tool, over a folder."""

from __future__ import annotations

import importlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dtrain.errors import CorruptError, DriftError, RequirementsError
from dtrain.packages.base import Base
from dtrain.packages.cache import PackageCache, host_packages, use
from dtrain.packages.lock import Lock, Pin
from dtrain.packages.resolve import resolve
from tests.support.packages import offer


@pytest.fixture(scope="module")
def lock() -> Lock:
    offer("dtrain-probe", ["1.0", "2.0"])
    return resolve(["dtrain-probe<2"], base=Base(sys.path))


@pytest.fixture(scope="module")
def installed(lock: Lock, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that has it already, to be copied: the tool takes half a second."""
    root = tmp_path_factory.mktemp("packages") / "root"
    PackageCache(root).folder_of(lock)
    return root


@pytest.fixture
def root(installed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(installed, tmp_path / "root"))


@pytest.fixture
def here(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process's own cache is that root."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    host_packages.cache_clear()
    root.rename(host_packages().root)
    yield host_packages().root
    host_packages.cache_clear()
    sys.modules.pop("dtrain_probe", None)


def damage(folder: Path, how: str) -> None:
    module = folder / "dtrain_probe.py"
    for path in (folder.parent, folder, module):
        path.chmod(0o700)
    if how == "gone":
        module.unlink()
    elif how == "list":
        (folder.parent / "files.json").write_text("[")
    else:
        module.write_text("VERSION = 'other'\n")


def test_packages_that_many_want_at_once_are_installed_once(lock: Lock, tmp_path: Path) -> None:
    calls: list[int] = []
    with ThreadPoolExecutor(6) as threads:
        found = list(
            threads.map(lambda _: PackageCache(tmp_path / "new").folder_of(lock, on_install=lambda: calls.append(1)), range(6))
        )
    assert (len(set(found)), calls) == (1, [1])
    module = found[0] / "dtrain_probe.py"
    assert module.read_text() == "VERSION = '1.0'\n"
    assert module.stat().st_mode & 0o222 == 0


def test_packages_that_are_there_need_no_tool(lock: Lock, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dtrain.packages.cache.run_tool", None)
    assert (PackageCache(root).folder_of(lock) / "dtrain_probe.py").is_file()


@pytest.mark.parametrize("how", ["gone", "list", "changed"])
def test_packages_that_were_damaged_are_installed_anew(lock: Lock, root: Path, how: str) -> None:
    (folder,) = root.glob("*/packages")
    damage(folder, how)
    assert (PackageCache(root).folder_of(lock) / "dtrain_probe.py").read_text() == "VERSION = '1.0'\n"


def test_packages_that_were_changed_while_others_use_them_are_named(
    lock: Lock, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtrain.code.host._PATIENCE_S", 0.2)
    user = PackageCache(root)
    folder = user.folder_of(lock)
    damage(folder, "changed")
    with pytest.raises(CorruptError, match=str(folder.parent)):
        PackageCache(root).folder_of(lock)


def test_file_that_is_not_the_locks_is_not_installed(lock: Lock, tmp_path: Path) -> None:
    other = Lock(lock.requirements, tuple(Pin(pin.name, pin.version, ("sha256:" + "0" * 64,)) for pin in lock.pins))
    with pytest.raises(RequirementsError, match=r"cannot be installed: .*[Hh]ash"):
        PackageCache(tmp_path / "new").folder_of(other)
    assert [path for path in (tmp_path / "new").iterdir() if path.is_dir()] == []


def test_used_packages_stand_behind_all_else_and_are_no_part_of_the_base(lock: Lock, here: Path) -> None:
    before = list(sys.path)
    use(lock.to_json())
    use(lock.to_json())
    assert sys.path[:-1] == before
    assert importlib.import_module("dtrain_probe").VERSION == "1.0"
    assert Base.here(without=here).version_of("dtrain-probe") is None
    assert Base(sys.path).version_of("dtrain-probe") == "1.0"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (Lock(("numpy<1",), ()), "the job requires numpy<1, and the workers have numpy"),
        (Lock(("dtrain-nowhere",), ()), "the job requires dtrain-nowhere, which is not there"),
        (Lock((), (Pin("numpy", "1.0", ("sha256:00",)),)), "the job's lock has numpy 1.0, and the workers have"),
    ],
)
def test_host_whose_base_is_another_than_the_lock_was_settled_for_says_what_does_not_fit(
    here: Path, changed: Lock, words: str
) -> None:
    with pytest.raises(DriftError, match=words):
        use(changed.to_json())


def test_nothing_is_used_without_a_lock(here: Path) -> None:
    before = list(sys.path)
    use("")
    assert sys.path == before
