"""Files of one folder: every raw file operation of a checkpoint store, and the only place that maps its errors.

What is written appears whole or not at all, and is on the disk when the call returns. Names are relative, with slashes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dtrain.errors import NotFoundError, StorageError

_FIXES = {
    errno.ENOSPC: "free space there, or lower `checkpoint.keep`",
    errno.EDQUOT: "raise the quota, or lower `checkpoint.keep`",
    errno.EROFS: "mount it for writing, or give another folder in `checkpoint.url`",
    errno.EACCES: "let the user that runs the job read and write there",
    errno.EPERM: "let the user that runs the job read and write there, on a file system with hard links",
}


class LocalFiles:
    """The files under `root`, which is made when something is first written.

    Threads: safe to call from several, and from several processes: who creates a name first is decided by the file system.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, name: str, content: bytes) -> bool:
        """`name` holds somebody's whole content, durably; True if it is this one, False if the name was taken.

        Raises:
            StorageError: it could not be written; the name may be taken by this content all the same.
        """
        with self._written(name, content) as (temporary, path):
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            finally:
                _sync_folder(path.parent)
            return True

    def put(self, name: str, content: bytes) -> None:
        """`name` holds `content`, durably, whatever it held before.

        Raises:
            StorageError: it could not be written; the name holds what it held before, or `content`.
        """
        with self._written(name, content) as (temporary, path):
            os.replace(temporary, path)
            _sync_folder(path.parent)

    def read(self, name: str) -> bytes:
        """What `name` holds. Raises `NotFoundError` (nothing), `StorageError` (it cannot be read now)."""
        path = self._root / name
        with _mapped(path, "read", missing=NotFoundError):
            return path.read_bytes()

    def digest(self, name: str) -> str:
        """The sha256 of what `name` holds, without holding it in memory. Raises as `read`."""
        path = self._root / name
        with _mapped(path, "read", missing=NotFoundError), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def modified(self, folder: str) -> dict[str, float]:
        """File name → when it was last written, in seconds of the file system's clock; unfinished files begin with a dot."""
        path, found = self._root / folder, {}
        with _mapped(path, "list"):
            try:
                entries = list(os.scandir(path))
            except FileNotFoundError:
                return {}
            for entry in entries:
                with suppress(FileNotFoundError):
                    found[entry.name] = entry.stat().st_mtime
        return found

    def delete(self, name: str, *, seen_s: float) -> bool:
        """Delete `name` unless it was written again after it was seen with `modified` = `seen_s`; whether it is gone now."""
        path = self._root / name
        with _mapped(path, "delete"):
            try:
                if path.stat().st_mtime != seen_s:
                    return False
                path.unlink()
            except FileNotFoundError:
                return True
        return True

    @contextmanager
    def _written(self, name: str, content: bytes) -> Iterator[tuple[Path, Path]]:
        """A temporary file beside `name` that holds `content` durably, and `name`'s path; the temporary is gone afterwards."""
        path = self._root / name
        temporary = path.with_name(f".{uuid.uuid4().hex}")
        with _mapped(path, "write"):
            _make_folder(path.parent)
            try:
                with temporary.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                yield temporary, path
            finally:
                with suppress(OSError):
                    temporary.unlink()


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Names made in `path` survive a power cut: fsync of a file does not cover its name."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _mapped(path: Path, verb: str, *, missing: type[NotFoundError] | type[StorageError] = StorageError) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = missing if isinstance(error, FileNotFoundError) else StorageError
        reason = error.strerror or type(error).__name__
        raise kind(f"cannot {verb} {path}: {reason}", fix=_FIXES.get(error.errno or 0, "look at that folder's disk")) from error
