from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.errors import AuthError, CorruptError, UnavailableError
from dtrain.rpc.connection import Connection


def test_connection_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = Connection("127.0.0.1:7400", str(tmp_path / "token"), metrics_address="127.0.0.1:9", pid=3)
    saved.save(tmp_path)
    assert Connection.load(tmp_path) == saved
    assert [path.name for path in tmp_path.iterdir()] == ["connection.json"]


def test_home_without_a_connection_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="dtrain up"):
        Connection.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"address": "x"', "\x00"])
def test_connection_file_that_is_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "connection.json").write_text(text)
    with pytest.raises(CorruptError, match="dtrain up"):
        Connection.load(tmp_path)


def test_token_that_cannot_be_read_is_an_error_of_authentication(tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="cannot be read"):
        Connection("127.0.0.1:7400", str(tmp_path / "none")).token()
