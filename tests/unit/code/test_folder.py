"""What the store of code in a folder does with its disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from dtrain.code.archive import pack
from dtrain.code.folder import FolderCodeStore
from dtrain.errors import CorruptError, StorageError
from tests.support.code import write_code


def test_code_is_there_for_the_next_process_and_for_its_owner_alone(tmp_path: Path) -> None:
    archive = pack(write_code(tmp_path / "code", {"task.py": "a = 1"}))
    FolderCodeStore(tmp_path / "kept").put(archive.sha256, archive.content)
    assert FolderCodeStore(tmp_path / "kept").read(archive.sha256) == archive.content
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o700


def test_code_that_was_damaged_is_never_given_to_anybody(tmp_path: Path) -> None:
    archive = pack(write_code(tmp_path / "code", {"task.py": "a = 1"}))
    store = FolderCodeStore(tmp_path / "kept")
    store.put(archive.sha256, archive.content)
    (tmp_path / "kept" / f"{archive.sha256}.tar").write_bytes(archive.content[:-1])
    with pytest.raises(CorruptError, match="is not the code that was sent"):
        store.read(archive.sha256)


def test_upload_that_was_left_unfinished_is_swept_and_never_seen(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    left = tmp_path / "kept" / "0123.unfinished"
    left.touch()
    assert FolderCodeStore(tmp_path / "kept").sweep(used=set, before_s=0.0) == 0
    assert not left.exists()


def test_folder_that_cannot_be_written_is_a_matter_of_storage(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file where the folder must be")
    archive = pack(write_code(tmp_path / "code", {"task.py": "a = 1"}))
    with pytest.raises(StorageError, match="kept cannot be used"):
        FolderCodeStore(tmp_path / "kept").put(archive.sha256, archive.content)
