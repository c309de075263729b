"""The store of code in a folder: `<sha256>.tar` for each archive."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from dtrain.clock import Clock, SystemClock
from dtrain.code.store import Quota, check_archive, check_name, check_room, missing
from dtrain.errors import CorruptError, StorageError

_SUFFIX, _UNFINISHED = ".tar", ".unfinished"


class FolderCodeStore:
    """A `CodeStore` in `root`, which is made when something is first put. One process at a time writes to it.

    A file's time of change is when it was touched last.

    Args:
        root: of this store alone.
        quota: of what is kept.
        clock: for when what was touched.
    """

    def __init__(self, root: Path, *, quota: Quota | None = None, clock: Clock | None = None) -> None:
        self._root = root
        self._quota = quota or Quota()
        self._clock = clock or SystemClock()
        self._lock = Lock()

    def put(self, sha256: str, content: bytes) -> None:
        """See `CodeStore.put`."""
        check_archive(sha256, content)
        with self._lock, _mapped(self._root):
            if self._touch(sha256):
                return
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_room(self._quota, [entry.stat().st_size for entry in self._entries()], len(content))
            self._write(self._path(sha256), content)
            self._touch(sha256)

    def touch(self, sha256: str) -> bool:
        """See `CodeStore.touch`."""
        with self._lock, _mapped(self._root):
            return self._touch(check_name(sha256))

    def read(self, sha256: str) -> bytes:
        """See `CodeStore.read`."""
        path = self._path(check_name(sha256))
        with _mapped(self._root):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                raise missing(sha256) from None
        if hashlib.sha256(content).hexdigest() != sha256:
            fix = f"remove {path}, and send the code again: resume the job with --accept-code-change or --code"
            raise CorruptError(f"{path} is not the code that was sent", fix=fix)
        return content

    def sweep(self, *, used: Callable[[], Collection[str]], before_s: float) -> int:
        """See `CodeStore.sweep`. What an upload left unfinished when its process ended goes too."""
        with self._lock, _mapped(self._root):
            for path in self._root.glob(f"*{_UNFINISHED}"):
                path.unlink()
            old = {entry.name.removesuffix(_SUFFIX) for entry in self._entries() if entry.stat().st_mtime < before_s}
            gone = old - set(used()) if old else set()
            for sha256 in gone:
                self._path(sha256).unlink()
            return len(gone)

    def _path(self, sha256: str) -> Path:
        return self._root / f"{sha256}{_SUFFIX}"

    def _entries(self) -> list[os.DirEntry[str]]:
        with suppress(FileNotFoundError), os.scandir(self._root) as found:
            return [entry for entry in found if entry.name.endswith(_SUFFIX)]
        return []

    def _touch(self, sha256: str) -> bool:
        now_s = self._clock.wall_s()
        try:
            os.utime(self._path(sha256), (now_s, now_s))
        except FileNotFoundError:
            return False
        return True

    def _write(self, path: Path, content: bytes) -> None:
        """`path` holds `content`, durably, from one moment to the next."""
        unfinished = self._root / f"{uuid.uuid4().hex}{_UNFINISHED}"
        try:
            with unfinished.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _mapped(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{root} cannot be used: {error.strerror}", fix="free space there, or make it writable") from error
