"""What the tool complains of is told in one line, and never with a password."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

from dtrain.errors import RequirementsError
from dtrain.packages.tool import reason_in, run_tool


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("error: No solution found when resolving dependencies\n  cause: Because a.\n         And b.", "Because a. And b"),
        ("  × No solution found when resolving dependencies:\n  ╰─▶ Because a.", "Because a"),
        ("error: Failed to fetch: `https://me:pw@host/simple/a/`", "Failed to fetch: `https://host/simple/a/`"),
        ("error: https://host/simple?token=pw is gone", "https://host/simple is gone"),
        ("", ""),
    ],
)
def test_reason_is_one_line_without_credentials(text: str, reason: str) -> None:
    assert reason_in(text) == reason


def test_long_reason_is_cut() -> None:
    assert len(reason_in("error: " + "word " * 1_000)) < 800


def test_tool_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RequirementsError, match="there is no uv here"):
        run_tool(["--version"], folder=tmp_path, doing="cannot be resolved")
