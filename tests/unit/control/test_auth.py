from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.control.auth import token_in
from dtrain.errors import StorageError


def test_token_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    token = token_in(tmp_path / "token")
    assert len(token) >= 32
    assert token_in(tmp_path / "token") == token
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["token"]


def test_token_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="writable"):
        token_in(tmp_path / "none" / "token")


def test_empty_token_file_is_refused_because_an_empty_token_would_let_everybody_in(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(StorageError, match="holds no token"):
        token_in(tmp_path / "token")
