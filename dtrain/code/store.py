"""The seam of uploaded code: where archives are kept, by their digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from dtrain.code.archive import LIMITS, members
from dtrain.errors import InputError, NotFoundError, StorageError

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Quota:
    """What is kept at most, of all jobs together.

    Args:
        max_archives: how many.
        max_bytes: of all of them.
    """

    max_archives: int = 1_000
    max_bytes: int = 4 << 30


class CodeStore(Protocol):
    """Archives of code by the sha256 of their bytes. One is there whole or not at all, and durable when `put` returns.

    Who names one to a job does so soon behind `put` or `touch`: what nobody refers to is swept when it was not touched for a while.

    Threads: safe to call from several.
    """

    def put(self, sha256: str, content: bytes) -> None:
        """`content` is kept; nothing changes where it was.

        Raises:
            InputError: it has another digest, or is no archive of code.
            StorageError: it cannot be written, or there would be more than the quota.
        """
        ...

    def touch(self, sha256: str) -> bool:
        """Whether it is kept; if so, it is not swept for a while."""
        ...

    def read(self, sha256: str) -> bytes:
        """Raises `NotFoundError` (it is not kept), `CorruptError` (it is not what was put), `StorageError`."""
        ...

    def sweep(self, *, used: Callable[[], Collection[str]], before_s: float) -> int:
        """Those are gone that were touched last before that wall time and are not among `used`, which is asked meanwhile; how many."""
        ...


def check_name(sha256: str) -> str:
    """`sha256`, if it is a digest in hex: what becomes of a name in a path.

    Raises:
        InputError: it is not.
    """
    if not _SHA256.fullmatch(sha256):
        raise InputError(f"{sha256[:80]!r} is no sha256 in hex", fix="name the digest of an archive of code")
    return sha256


def check_size(num_bytes: int) -> None:
    """Raise `InputError` where an archive of so many bytes is never taken."""
    if not 0 < num_bytes <= LIMITS.max_archive_bytes:
        raise InputError(
            f"an archive of code has 1 to {LIMITS.max_archive_bytes:,} bytes, not {num_bytes:,}",
            fix="list what is no code in .dtrainignore",
        )


def check_archive(sha256: str, content: bytes) -> None:
    """Raise `InputError` where `content` is not the archive of code that `sha256` names."""
    check_name(sha256)
    check_size(len(content))
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InputError(f"what came has the digest {found[:12]}, not {sha256[:12]}", fix="send it again")
    for _ in members(content):
        pass


def check_room(quota: Quota, kept_bytes: Sequence[int], num_bytes: int) -> None:
    """Raise `StorageError` where `quota` has no room for `num_bytes` beside those that are kept."""
    if len(kept_bytes) >= quota.max_archives or sum(kept_bytes) + num_bytes > quota.max_bytes:
        raise StorageError(
            f"the code of {len(kept_bytes):,} jobs is kept, {sum(kept_bytes):,} bytes: there is no room for {num_bytes:,} more",
            fix="cancel jobs that nobody wants to go on; what no job refers to goes after some minutes",
        )


def missing(sha256: str) -> NotFoundError:
    """What to say where an archive is not kept."""
    return NotFoundError(
        f"the code {sha256[:12]} is not kept here",
        fix="send it again: submit the job, or resume it with --accept-code-change or --code",
    )
