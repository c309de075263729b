"""The digest of the user's code, so that a job never goes on with other code unnoticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from dtrain.errors import DriftError, InputError
from dtrain.steplog.entries import canonical


def digest_code(folder: Path) -> str:
    """sha256 over the relative paths and contents of the `*.py` files in `folder`, in hex; hidden names are left out.

    Raises:
        InputError: `folder` cannot be read, or a link in it leads outside: what is behind one may change or be missing
            elsewhere.
    """
    digest = hashlib.sha256()
    try:
        root = folder.resolve(strict=True)
        for path in _modules(root):
            if not path.resolve(strict=True).is_relative_to(root):
                raise InputError(f"{path} leads outside of {folder}", fix="put the code itself into the folder")
            content = path.readlink() if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(canonical([path.relative_to(root).as_posix(), str(content)]))
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise InputError(f"cannot read the code in {folder}: {error}", fix="`code` must be a readable folder") from error
    return digest.hexdigest()


def digest_of(code: str) -> str:
    """The same of a job's `code`; empty where it has none of its own."""
    return digest_code(Path(code)) if code else ""


def check_code(found: str, *, wanted: str, who: str) -> None:
    """Nothing happens if a process has the job's code.

    Args:
        found: digest of its code, taken before any of it was imported.
        wanted: the attempt's.
        who: the process, as users know it.

    Raises:
        DriftError: it has other code.
    """
    if found != wanted:
        raise DriftError(
            f"the code was changed while the job runs: {who} has {found[:12]}, the job {wanted[:12]}",
            fix="restore the code, or let the job end and resume it with --accept-code-change",
        )


def _modules(folder: Path) -> Iterator[Path]:
    """Every `*.py` file below `folder`, and every link to a folder, in a fixed order. Links are not followed."""
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if name.startswith(".") or name == "__pycache__":
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _modules(path)
        elif path.is_dir() or name.endswith(".py"):
            yield path
