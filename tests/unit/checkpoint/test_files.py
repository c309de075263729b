"""What files on the local disk do besides what all kinds do (tests/contract/test_files.py)."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from dtrain.checkpoint.files import LocalFiles
from dtrain.errors import StorageError
from tests.support.faulty_files import os_error


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path / "job")


def test_no_operation_leaves_temporary_files(files: LocalFiles) -> None:
    files.create("a/x", b"1")
    files.create("a/x", b"2")
    files.put("a/y", b"3")
    assert set(files.modified("a")) == {"x", "y"}
    assert files.modified("unfinished") == {}


def test_delete_leaves_a_file_that_was_written_again(files: LocalFiles) -> None:
    files.put("a/x", b"1")
    seen = files.modified("a")["x"]
    os.utime(files._root / "a/x", (seen + 1, seen + 1))
    assert not files.delete("a/x", seen_s=seen)
    assert files.read("a/x") == b"1"


@pytest.mark.parametrize("call", ["fsync", "link", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_write_that_fails_says_where_and_what_to_do(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    files.put("a/x", b"old")

    def fail(*_: object) -> None:
        raise os_error(number)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(StorageError, match="job/a/") as raised:
        files.create("a/y", b"new") if call == "link" else files.put("a/x", b"new")
    assert raised.value.fix
    assert raised.value.retriable
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    monkeypatch.undo()
    assert files.read("a/x") == b"old"
    assert set(files.modified("a")) == {"x"}


def test_content_is_on_disk_before_its_name_and_its_name_before_the_return(
    files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "link", "replace")}

    def spy(name: str) -> None:
        def call(*args: int) -> None:
            is_folder = name == "fsync" and os.path.isdir(f"/proc/self/fd/{args[0]}")
            calls.append("fsync folder" if is_folder else name)
            real[name](*args)

        monkeypatch.setattr(os, name, call)

    files.put("a/warm", b"")
    for name in real:
        spy(name)
    files.create("a/x", b"1")
    files.put("a/x", b"2")
    assert calls == ["fsync", "link", "fsync folder", "fsync", "replace", "fsync folder"]
