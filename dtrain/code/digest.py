"""The digest of the user's code, so that a job never goes on with other code unnoticed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from dtrain.code.tree import Rules, walk
from dtrain.errors import DriftError, InputError
from dtrain.steplog.entries import canonical


def digest_modules(files: Iterable[tuple[str, str]]) -> str:
    """The digest of code, in hex.

    Args:
        files: relative path, and sha256 of what is in it in hex, of each file that `is_counted`, in the order of `tree.walk`.
    """
    digest = hashlib.sha256()
    for path, content in files:
        digest.update(canonical([path, content]))
    return digest.hexdigest()


def is_counted(path: str, *, requirements: str) -> bool:
    """Whether a file is code: modules are, and the file of the requirements. Data that change beside them are no other code."""
    return path.endswith(".py") or path == requirements


def digest_code(folder: Path, *, rules: Rules | None = None, requirements: str = "") -> str:
    """The digest of the code in `folder`: that of the folder that an archive of it is unpacked to, too.

    Args:
        folder: of the code.
        rules: what is left out; by default what its ignore file says.
        requirements: the file in it that lists the job's requirements, if one does.

    Raises:
        InputError: `folder` cannot be read, or a link in it leads outside: what is behind one may change or be missing
            elsewhere.
    """
    try:
        root = folder.resolve(strict=True)
        return digest_modules(_modules(root, folder, rules or Rules.of(root), requirements))
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise InputError(f"cannot read the code in {folder}: {error}", fix="`code` must be a readable folder") from error


def digest_of(code: str, *, requirements: str = "") -> str:
    """The same of a job's `code`; empty where it has none of its own."""
    return digest_code(Path(code), requirements=requirements) if code else ""


def is_digest_of(digest: str, code: str, *, requirements: str = "") -> bool:
    """Whether a checkpoint's digest is that of `code`, be it one that was taken before there were ignore files."""
    if digest == digest_of(code, requirements=requirements):
        return True
    return bool(code) and digest == digest_code(Path(code), rules=Rules.before_ignore_files())


def with_packages(code_sha256: str, lock_sha256: str) -> str:
    """The digest of code and of the lock of the packages beside it: what processes of a job compare. That of the code, where there are none."""
    return hashlib.sha256(canonical([code_sha256, lock_sha256])).hexdigest() if lock_sha256 else code_sha256


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


def _modules(root: Path, folder: Path, rules: Rules, requirements: str) -> Iterator[tuple[str, str]]:
    """Every file that counts and every link to a folder: its path, and the digest of what is in it, or where it leads. Links are not followed."""
    for name in walk(root, rules):
        path = root / name
        if not (path.is_dir() or is_counted(name, requirements=requirements)):
            continue
        if not path.resolve(strict=True).is_relative_to(root):
            raise InputError(f"{path} leads outside of {folder}", fix="put the code itself into the folder")
        yield name, str(path.readlink()) if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
