"""What of a folder is code."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.code.tree import IGNORE_FILE, Rules, pattern_of, walk
from dtrain.errors import InputError
from tests.support.code import write_code


def walked(folder: Path, *besides: str) -> list[str]:
    return list(walk(folder, Rules.of(folder, besides=besides)))


def test_walk_leaves_out_what_is_hidden_or_built(tmp_path: Path) -> None:
    left_out = [
        ".git/config",
        ".venv/lib/x.py",
        "venv/lib/x.py",
        "__pycache__/task.pyc",
        "pkg/__pycache__/x.py",
        "pkg/.cache/x",
        "old.pyc",
        "build/lib/task.py",
        "dist/task.whl",
        "pkg.egg-info/PKG-INFO",
        "pkg/node_modules/x.js",
        ".env",
    ]
    write_code(tmp_path, dict.fromkeys([*left_out, "task.py", "pkg/net.py", "pkg/build/x.py", "words.json"], ""))
    assert walked(tmp_path) == ["pkg/build/x.py", "pkg/net.py", "task.py", "words.json"]


def test_walk_honours_the_ignore_file_and_takes_it_along(tmp_path: Path) -> None:
    ignored = "# large\n*.bin\n!small.bin\n/data/\n!/build/\n"
    write_code(tmp_path, {IGNORE_FILE: ignored, "a.bin": "", "small.bin": "", "data/x": "", "pkg/data/x": "", "build/x.py": ""})
    assert walked(tmp_path) == [IGNORE_FILE, "build/x.py", "pkg/data/x", "small.bin"]


def test_walk_leaves_out_what_it_is_told_and_nothing_that_is_like_it(tmp_path: Path) -> None:
    names = ["a[1]/x", "a1/x", "runs/x", "pkg/runs/x", "runs2/x"]
    write_code(tmp_path, dict.fromkeys(names, ""))
    assert walked(tmp_path, pattern_of("a[1]"), pattern_of("runs")) == ["a1/x", "pkg/runs/x", "runs2/x"]


@pytest.mark.parametrize("content", [b"!\n", b"\xff\xfe", b"#" * 200_000])
def test_ignore_file_that_is_none_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / IGNORE_FILE).write_bytes(content)
    with pytest.raises(InputError, match=IGNORE_FILE):
        Rules.of(tmp_path)
