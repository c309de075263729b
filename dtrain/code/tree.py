"""Which files of a folder are a job's code: all but those that are hidden, built, or named in `.dtrainignore`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

from dtrain.errors import InputError

IGNORE_FILE = ".dtrainignore"
"""In the folder itself, in gitignore's syntax. It travels too, so that the rules are the same where the code is unpacked."""
_HIDDEN = (".*", "__pycache__")
_DEFAULTS = (*_HIDDEN, f"!/{IGNORE_FILE}", "*.pyc", "*.egg-info/", "node_modules/", "/build/", "/dist/", "/venv/")
_MAX_BYTES = 100_000


class Rules:
    """What is left out. A line of the ignore file stands above the defaults: `!/build/` takes that folder in.

    Args:
        lines: in gitignore's syntax, the later above the earlier.

    Raises:
        InputError: a line is no pattern.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        try:
            self._spec = GitIgnoreSpec.from_lines(lines)
        except (ValueError, TypeError) as error:
            raise InputError(f"{IGNORE_FILE}: {error}", fix="write one pattern a line, as in .gitignore") from error

    @classmethod
    def of(cls, folder: Path, *, besides: Sequence[str] = ()) -> Rules:
        """Those of a folder of code; `besides` are further lines.

        Raises:
            InputError: its ignore file cannot be read.
        """
        return cls([*_DEFAULTS, *_lines(folder / IGNORE_FILE), *besides])

    @classmethod
    def before_ignore_files(cls) -> Rules:
        """What digests left out before there were ignore files."""
        return cls(_HIDDEN)

    def leave_out(self, path: str) -> bool:
        """Whether `path` is left out: relative, with slashes, a folder's with one at its end."""
        return self._spec.match_file(path)


def walk(root: Path, rules: Rules) -> Iterator[str]:
    """The relative path of every file that `rules` leave, in a fixed order; of links too, which are not followed.

    Raises:
        OSError: a folder cannot be read.
    """
    yield from _below(root, "", rules)


def pattern_of(path: str) -> str:
    """The rule that leaves out `path`, relative to the folder, and nothing else."""
    return "/" + re.sub(r"([\\*?\[\] ])", r"\\\1", path)


def _below(root: Path, prefix: str, rules: Rules) -> Iterator[str]:
    with os.scandir(root / prefix) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = prefix + entry.name
        if not entry.is_dir(follow_symlinks=False):
            if not rules.leave_out(path):
                yield path
        elif not rules.leave_out(f"{path}/"):
            yield from _below(root, f"{path}/", rules)


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        return []
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}", fix="save it as UTF-8, or remove it") from error
    if len(content) > _MAX_BYTES:
        raise InputError(f"{file} is larger than an ignore file can be", fix="leave out whole folders instead of each file")
    return text.splitlines()
