"""What a host keeps for the jobs that run there, by digest: made once by whoever is first, used by every process of a job, read only."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from dtrain.code.store import check_name
from dtrain.errors import CorruptError, StorageError

KEPT = 16
"""So many are kept besides those in use."""
_PATIENCE_S, _POLL_S = 10.0, 0.05
_LOCK = ".lock"


class HostCache:
    """Folders in `root`, one a digest.

    Who uses one holds a lock on it for as long as its process lives: whatever kills that process, the kernel gives it back. What nobody
    holds may go when a newer one comes.

    Args:
        root: on a disk of this host; made if it is not there, for this user alone.
        num_kept: how many are kept that nobody holds.

    Threads: `take` may be called from several.
    """

    def __init__(self, root: Path, *, num_kept: int = KEPT) -> None:
        self.root = root
        self._num_kept = num_kept
        self._held: dict[str, IO[bytes]] = {}

    def take(self, sha256: str, *, is_sound: Callable[[Path], bool], make: Callable[[Path], None]) -> Path:
        """The folder of that digest, sound, and it stays so while this process lives.

        Args:
            sha256: its name.
            is_sound: whether a folder is as it was made.
            make: fills an empty one. Others who want the same wait until it is done.

        Raises:
            CorruptError: what is here was changed while others use it.
            StorageError: there is no room, or the root is somebody else's.
        """
        check_name(sha256)
        try:
            self._own()
            lock = (self.root / f"{sha256}{_LOCK}").open("ab")
            try:
                self._hold(sha256, lock, is_sound, make)
            except BaseException:
                lock.close()
                raise
            self._prune()
        except OSError as error:
            raise StorageError(f"{self.root} cannot be used: {error.strerror}", fix="free space there") from error
        return self.root / sha256

    def _own(self) -> None:
        """The root is there, and nobody else could have put anything into it."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.root.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise StorageError(f"{self.root} can be written to by others", fix="remove it: it is made anew")

    def _hold(self, sha256: str, lock: IO[bytes], is_sound: Callable[[Path], bool], make: Callable[[Path], None]) -> None:
        """`lock` is shared, and the folder is sound.

        Nobody waits to have a lock alone: who came first shares it for as long as it lives. A lock that is asked for otherwise is given
        back first, so of several that want it alone at once one gets it, and the others look again.
        """
        folder, deadline_s = self.root / sha256, time.monotonic() + _PATIENCE_S
        while True:
            began_s = time.monotonic()
            fcntl.flock(lock, fcntl.LOCK_SH)
            deadline_s += time.monotonic() - began_s  # somebody made it meanwhile
            if is_sound(folder):
                break
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline_s:
                    fix = "let the jobs that use it end, and remove it"
                    raise CorruptError(f"{folder} was changed since it was unpacked", fix=fix) from error
                time.sleep(_POLL_S)
                continue
            if not is_sound(folder):
                self._make(sha256, make)
        os.utime(lock.fileno())
        self._held.setdefault(sha256, lock)

    def _make(self, sha256: str, make: Callable[[Path], None]) -> None:
        """The folder is there, from one moment to the next; nobody else touches it meanwhile."""
        self._remove(sha256)
        unfinished = self.root / f".{sha256}.{uuid.uuid4().hex}"
        unfinished.mkdir(mode=0o700)
        try:
            make(unfinished)
            unfinished.rename(self.root / sha256)
        except BaseException:
            _delete(unfinished)
            raise

    def _prune(self) -> None:
        """The longest unused are gone, as far as nobody holds them."""
        locks = sorted(self.root.glob(f"*{_LOCK}"), key=lambda path: -path.stat().st_mtime)
        free = [path for path in locks if path.name.removesuffix(_LOCK) not in self._held and _folder(path).exists()]
        for path in free[self._num_kept :]:
            with path.open("ab") as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._remove(path.name.removesuffix(_LOCK))

    def _remove(self, sha256: str) -> None:
        """Nothing of that digest is here, nor what a process that died has left of it unfinished."""
        for path in (self.root / sha256, *self.root.glob(f".{sha256}.*")):
            if path.exists():
                _delete(path)


def make_read_only(folder: Path) -> None:
    """Nothing in `folder` can be written to; what may be run stays so."""
    for name, _, files in os.walk(folder, topdown=False):
        for file in files:
            path = os.path.join(name, file)
            if not os.path.islink(path):
                os.chmod(path, 0o555 if os.stat(path).st_mode & stat.S_IXUSR else 0o444)
        os.chmod(name, 0o555)  # noqa: S103 only what is in it can be read


def _folder(lock: Path) -> Path:
    return lock.with_name(lock.name.removesuffix(_LOCK))


def _delete(folder: Path) -> None:
    """`folder` is gone, though it is read only."""
    for name, _, _ in os.walk(folder):
        os.chmod(name, 0o700)
    shutil.rmtree(folder)
