"""What every `CodeStore` does, over the real one and its twin."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dtrain.code.archive import LIMITS, Archive, pack
from dtrain.code.folder import FolderCodeStore
from dtrain.code.memory import MemoryCodeStore
from dtrain.code.store import CodeStore, Quota
from dtrain.errors import InputError, NotFoundError, StorageError
from tests.support.code import write_code


class Clock:
    """Stands until it is told."""

    now_s = 1_000.0

    def wall_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> CodeStore:
    quota = Quota(max_archives=3, max_bytes=40_000)
    return (
        MemoryCodeStore(quota=quota, clock=clock)
        if request.param == "memory"
        else FolderCodeStore(tmp_path / "kept", quota=quota, clock=clock)
    )


def an_archive(tmp_path: Path, text: str) -> Archive:
    return pack(write_code(tmp_path / "code", {"task.py": text}))


def test_what_was_put_is_read_and_putting_it_again_changes_nothing(store: CodeStore, tmp_path: Path) -> None:
    archive = an_archive(tmp_path, "a = 1")
    assert not store.touch(archive.sha256)
    for _ in range(5):  # more often than the quota allows archives
        store.put(archive.sha256, archive.content)
    assert store.touch(archive.sha256)
    assert store.read(archive.sha256) == archive.content


def test_what_was_never_put_is_not_found(store: CodeStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is not kept"):
        store.read(an_archive(tmp_path, "a = 1").sha256)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"x" * 512])
def test_what_is_no_archive_is_refused_and_not_kept(store: CodeStore, content: bytes) -> None:
    sha256 = hashlib.sha256(content).hexdigest()
    with pytest.raises(InputError):
        store.put(sha256, content)
    assert not store.touch(sha256)


def test_what_has_another_digest_is_refused_and_not_kept(store: CodeStore, tmp_path: Path) -> None:
    one, other = an_archive(tmp_path, "a = 1"), an_archive(tmp_path, "a = 2")
    with pytest.raises(InputError, match="has the digest"):
        store.put(one.sha256, other.content)
    assert not store.touch(one.sha256)
    assert not store.touch(other.sha256)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a" * 63, "Z" * 64])
def test_name_that_is_no_digest_is_refused_everywhere(store: CodeStore, name: str) -> None:
    for call in (store.touch, store.read, lambda name: store.put(name, b"x")):
        with pytest.raises(InputError, match="no sha256"):
            call(name)


def test_larger_than_any_code_is_refused(store: CodeStore) -> None:
    content = bytes(LIMITS.max_archive_bytes + 1)
    with pytest.raises(InputError, match="has 1 to"):
        store.put(hashlib.sha256(content).hexdigest(), content)


def test_quota_of_number_and_of_bytes_is_kept(store: CodeStore, tmp_path: Path) -> None:
    for number in range(3):
        archive = an_archive(tmp_path, f"a = {number}")
        store.put(archive.sha256, archive.content)
    fourth = an_archive(tmp_path, "a = 3")
    with pytest.raises(StorageError, match="no room"):
        store.put(fourth.sha256, fourth.content)
    assert store.sweep(used=set, before_s=2_000.0) == 3
    large = an_archive(tmp_path, "#" * 40_000)
    with pytest.raises(StorageError, match="no room"):
        store.put(large.sha256, large.content)
    store.put(fourth.sha256, fourth.content)


def test_sweep_removes_what_is_not_used_and_was_not_touched_lately(store: CodeStore, clock: Clock, tmp_path: Path) -> None:
    used, touched, old = (an_archive(tmp_path, f"a = {number}") for number in range(3))
    for archive in (used, touched, old):
        store.put(archive.sha256, archive.content)
    clock.sleep(100.0)
    store.touch(touched.sha256)
    assert store.sweep(used=lambda: {used.sha256, ""}, before_s=1_050.0) == 1
    assert [store.touch(archive.sha256) for archive in (used, touched, old)] == [True, True, False]


def test_sweep_of_nothing_is_no_error(store: CodeStore) -> None:
    assert store.sweep(used=set, before_s=2_000.0) == 0
