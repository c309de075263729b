"""A host has each code once, whole, and as it was packed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dtrain.code.archive import Archive, pack
from dtrain.code.cache import CodeCache
from dtrain.errors import CorruptError, InputError, StorageError, UnavailableError
from tests.support.code import read_code, write_code

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys
from pathlib import Path
from dtrain.code.cache import CodeCache
cache = CodeCache(Path(sys.argv[1]))
print(cache.folder_of(sys.argv[2], lambda: Path(sys.argv[3]).read_bytes()), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def an_archive(tmp_path: Path, text: str = "a = 1") -> Archive:
    return pack(write_code(tmp_path / f"code {text}", {"task.py": text, "pkg/net.py": text}))


def never() -> bytes:
    raise AssertionError("it is here already")


def counted(archive: Archive, calls: list[int]) -> Callable[[], bytes]:
    def fetch() -> bytes:
        calls.append(1)
        return archive.content

    return fetch


def test_code_is_fetched_once_and_found_by_the_next_process(root: Path, tmp_path: Path) -> None:
    archive, calls = an_archive(tmp_path), []  # type: ignore[var-annotated]
    folder = CodeCache(root).folder_of(archive.sha256, counted(archive, calls))
    assert CodeCache(root).folder_of(archive.sha256, never) == folder
    assert (read_code(folder), calls) == ({"task.py": "a = 1", "pkg/net.py": "a = 1"}, [1])
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_code_that_many_want_at_once_is_fetched_once(root: Path, tmp_path: Path) -> None:
    archive, calls = an_archive(tmp_path), []  # type: ignore[var-annotated]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: CodeCache(root).folder_of(archive.sha256, counted(archive, calls)), range(8)))
    assert (len(set(found)), calls) == (1, [1])


def test_fetch_that_fails_leaves_nothing_and_the_next_one_works(root: Path, tmp_path: Path) -> None:
    archive = an_archive(tmp_path)

    def fail() -> bytes:
        raise UnavailableError("its coordinator is gone")

    with pytest.raises(UnavailableError):
        CodeCache(root).folder_of(archive.sha256, fail)
    with pytest.raises(CorruptError, match="has the digest"):
        CodeCache(root).folder_of(archive.sha256, lambda: archive.content + b"\0")
    assert [path for path in root.iterdir() if path.is_dir()] == []
    assert CodeCache(root).folder_of(archive.sha256, lambda: archive.content).is_dir()


def test_code_left_unfinished_by_a_process_that_died_is_made_anew(root: Path, tmp_path: Path) -> None:
    archive = an_archive(tmp_path)
    (root / f".{archive.sha256}.dead" / "code").mkdir(parents=True)
    root.chmod(0o700)
    CodeCache(root).folder_of(archive.sha256, lambda: archive.content)
    assert [path.name for path in root.iterdir() if path.is_dir()] == [archive.sha256]


@pytest.mark.parametrize("damage", ["changed", "gone", "archive"])
def test_code_that_was_changed_is_made_anew(root: Path, tmp_path: Path, damage: str) -> None:
    archive = an_archive(tmp_path)
    with hold(root, archive, tmp_path) as process:
        folder = Path(process.stdout.readline().decode().strip())  # type: ignore[union-attr]
        process.communicate()
    path = folder.parent / "archive.tar" if damage == "archive" else folder / "task.py"
    path.parent.chmod(0o700)
    path.chmod(0o600)
    if damage == "gone":
        path.unlink()
    else:
        path.write_text("a = 2")
    assert read_code(CodeCache(root).folder_of(archive.sha256, lambda: archive.content))["task.py"] == "a = 1"


def test_code_that_was_changed_while_others_use_it_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtrain.code.host._PATIENCE_S", 0.2)
    archive = an_archive(tmp_path)
    with hold(root, archive, tmp_path) as process:
        folder = Path(process.stdout.readline().decode().strip())  # type: ignore[union-attr]
        (folder / "task.py").chmod(0o600)
        (folder / "task.py").write_text("a = 2")
        with pytest.raises(CorruptError, match=str(folder.parent)):
            CodeCache(root).folder_of(archive.sha256, never)
        process.communicate()


def test_old_code_goes_unless_a_process_uses_it(root: Path, tmp_path: Path) -> None:
    archives = [an_archive(tmp_path, f"a = {number}") for number in range(5)]
    with hold(root, archives[0], tmp_path) as process:
        process.stdout.readline()  # type: ignore[union-attr]
        os.utime(root / f"{archives[0].sha256}.lock", (0, 0))
        for number, archive in enumerate(archives[1:]):
            CodeCache(root, num_kept=1).folder_of(archive.sha256, lambda one=archive: one.content)  # and lets go of it
            os.utime(root / f"{archive.sha256}.lock", (number + 1, number + 1))
        CodeCache(root, num_kept=1).folder_of(archives[4].sha256, never)
        process.communicate()
    there = {path.name for path in root.iterdir() if path.is_dir()}
    assert archives[0].sha256 in there
    assert archives[4].sha256 in there
    assert archives[1].sha256 not in there


def test_root_that_others_can_write_to_is_refused(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(StorageError, match="by others"):
        CodeCache(root).folder_of(an_archive(tmp_path).sha256, never)


def test_root_that_is_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="by others"):
        CodeCache(root).folder_of(an_archive(tmp_path).sha256, never)


@pytest.mark.parametrize("name", ["", "..", "../x", "a" * 63, "A" * 64])
def test_name_that_is_no_digest_is_refused(root: Path, name: str) -> None:
    with pytest.raises(InputError, match="no sha256"):
        CodeCache(root).folder_of(name, never)


def hold(root: Path, archive: Archive, tmp_path: Path) -> subprocess.Popen[bytes]:
    """A process that uses the code until its input ends; it prints the folder."""
    (tmp_path / "sent.tar").write_bytes(archive.content)
    command = [sys.executable, "-c", HOLD, str(root), archive.sha256, str(tmp_path / "sent.tar")]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
