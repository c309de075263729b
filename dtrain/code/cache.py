"""A host's unpacked code, by digest: made once by whoever is first, used by every process of a job there, read only."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO

from dtrain.code.archive import members, unpack
from dtrain.code.store import check_name
from dtrain.errors import CorruptError, StorageError

_KEPT = 16
"""So many are kept besides those in use."""
_PATIENCE_S, _POLL_S = 10.0, 0.05
_ARCHIVE, _CODE, _LOCK = "archive.tar", "code", ".lock"


class CodeCache:
    """Unpacked code in `root`, one folder a digest, with the archive beside it that it is compared with.

    Who uses one holds a lock on it for as long as its process lives: whatever kills that process, the kernel gives it back. What nobody
    holds may go when newer code comes.

    Args:
        root: on a disk of this host; made if it is not there, for this user alone.
        num_kept: how many are kept that nobody holds.

    Threads: `folder_of` may be called from several.
    """

    def __init__(self, root: Path, *, num_kept: int = _KEPT) -> None:
        self._root = root
        self._num_kept = num_kept
        self._held: dict[str, IO[bytes]] = {}

    def folder_of(self, sha256: str, fetch: Callable[[], bytes]) -> Path:
        """The folder with that code, whole and as it was packed, and it stays so while this process lives.

        Args:
            sha256: of the archive.
            fetch: gives the archive, if this host has not got it.

        Raises:
            CorruptError: what was fetched is something else, or what is here was changed while others use it.
            StorageError: there is no room, or the folder is somebody else's.
        """
        check_name(sha256)
        try:
            self._take()
            lock = (self._root / f"{sha256}{_LOCK}").open("ab")
            try:
                self._hold(sha256, lock, fetch)
            except BaseException:
                lock.close()
                raise
            self._prune()
        except OSError as error:
            raise StorageError(f"{self._root} cannot be used: {error.strerror}", fix="free space there") from error
        return self._root / sha256 / _CODE

    def _take(self) -> None:
        """The root is there, and nobody else could have put anything into it."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self._root.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise StorageError(f"{self._root} can be written to by others", fix="remove it: it is made anew")

    def _hold(self, sha256: str, lock: IO[bytes], fetch: Callable[[], bytes]) -> None:
        """`lock` is shared, and the folder is whole.

        Nobody waits to have a lock alone: who came first shares it for as long as it lives. A lock that is asked for otherwise is given
        back first, so of several that want it alone at once one gets it, and the others look again.
        """
        deadline_s = time.monotonic() + _PATIENCE_S
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if self._is_sound(sha256):
                break
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline_s:
                    fix = "let the jobs that use it end, and remove it"
                    raise CorruptError(f"{self._root / sha256} was changed since it was unpacked", fix=fix) from error
                time.sleep(_POLL_S)
                continue
            if not self._is_sound(sha256):
                self._make(sha256, fetch)
        os.utime(lock.fileno())
        self._held.setdefault(sha256, lock)

    def _is_sound(self, sha256: str) -> bool:
        """Whether the folder has every file of the archive, as it is there. Others, as compiled modules, do not matter."""
        folder = self._root / sha256
        try:
            archive = (folder / _ARCHIVE).read_bytes()
            if hashlib.sha256(archive).hexdigest() != sha256:
                return False
            return all((folder / _CODE / one.path).read_bytes() == one.content for one in members(archive))
        except OSError:
            return False

    def _make(self, sha256: str, fetch: Callable[[], bytes]) -> None:
        """The folder is there, from one moment to the next; nobody else touches it meanwhile."""
        self._remove(sha256)
        archive = fetch()
        if (found := hashlib.sha256(archive).hexdigest()) != sha256:
            raise CorruptError(f"the code that came has the digest {found[:12]}, not {sha256[:12]}", fix="resume the job")
        unfinished = self._root / f".{sha256}.{uuid.uuid4().hex}"
        unfinished.mkdir(mode=0o700)
        try:
            (unfinished / _ARCHIVE).write_bytes(archive)
            unpack(archive, unfinished / _CODE)
            unfinished.rename(self._root / sha256)
        except BaseException:
            _delete(unfinished)
            raise

    def _prune(self) -> None:
        """The longest unused are gone, as far as nobody holds them."""
        locks = sorted(self._root.glob(f"*{_LOCK}"), key=lambda path: -path.stat().st_mtime)
        free = [path for path in locks if path.name.removesuffix(_LOCK) not in self._held and _folder(path).exists()]
        for path in free[self._num_kept :]:
            with path.open("ab") as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._remove(path.name.removesuffix(_LOCK))

    def _remove(self, sha256: str) -> None:
        """Nothing of that code is here, nor what a process that died has left of it unfinished."""
        for path in (self._root / sha256, *self._root.glob(f".{sha256}.*")):
            if path.exists():
                _delete(path)


@lru_cache(maxsize=1)
def host_cache() -> CodeCache:
    """The one that all jobs of this user share on this host; one a process, which holds what it uses until it ends."""
    return CodeCache(Path(tempfile.gettempdir()) / f"dtrain-code-{os.getuid()}")


def _folder(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(_LOCK))


def _delete(folder: Path) -> None:
    """`folder` is gone, though it is read only."""
    for name, _, _ in os.walk(folder):
        os.chmod(name, 0o700)
    shutil.rmtree(folder)
