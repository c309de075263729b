"""Files: every raw operation of a checkpoint store, and on the local disk the only place that maps its errors."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from dtrain.errors import NotFoundError, StorageError

_UNFINISHED = "unfinished"
_FIXES = {
    errno.ENOSPC: "free space there, or lower `checkpoint.keep`",
    errno.EDQUOT: "raise the quota, or lower `checkpoint.keep`",
    errno.EROFS: "mount it for writing, or give another folder in `checkpoint.to`",
    errno.EACCES: "let the user that runs the job read and write there",
    errno.EPERM: "let the user that runs the job read and write there, on a file system with hard links",
}


class Files(Protocol):
    """Named contents, which appear whole or not at all and are durable when a call returns.

    Names are relative, with one slash: `folder/name`. A name that was written can be read at once, by anybody; `modified` may lag
    behind, so that nothing is decided by a name's absence there alone.

    Threads: safe to call from several, and from several processes: who creates a name first is decided where the files are.
    """

    def create(self, name: str, content: bytes) -> bool:
        """`name` holds somebody's whole content; True if it is this one, False if the name was taken.

        Raises:
            StorageError: it could not be written; the name may be taken by this content all the same.
        """
        ...

    def put(self, name: str, *parts: bytes | memoryview) -> None:
        """`name` holds `parts`, one behind the other, whatever it held before.

        Raises:
            StorageError: it could not be written; the name holds what it held before, or all of `parts`.
        """
        ...

    def read(self, name: str) -> bytes:
        """What `name` holds. Raises `NotFoundError` (nothing), `StorageError` (it cannot be read now)."""
        ...

    def digest(self, name: str) -> str:
        """The sha256 of what `name` holds, without holding it in memory. Raises as `read`."""
        ...

    def modified(self, folder: str) -> dict[str, float]:
        """Name in `folder` → when it was last written, in seconds of the files' own clock. Raises `StorageError`."""
        ...

    def delete(self, name: str, *, seen_s: float | None = None) -> bool:
        """Delete `name`, unless it was written again after `modified` said `seen_s`; whether it is gone. Raises `StorageError`."""
        ...

    def sweep(self, *, before_s: float) -> None:
        """What was left unfinished before that time of the files' own clock is gone. Raises `StorageError`."""
        ...


class LocalFiles:
    """The files under the folder `root`, which is made when something is first written; see `Files`.

    Written in `unfinished/`, synced, then linked or renamed to its name.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, name: str, content: bytes) -> bool:
        """See `Files.create`."""
        with self._written(name, content) as (temporary, path):
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            finally:
                _sync_folder(path.parent)
            return True

    def put(self, name: str, *parts: bytes | memoryview) -> None:
        """See `Files.put`."""
        with self._written(name, *parts) as (temporary, path):
            os.replace(temporary, path)
            _sync_folder(path.parent)

    def read(self, name: str) -> bytes:
        """See `Files.read`."""
        path = self._root / name
        with _mapped(path, "read", missing=NotFoundError):
            return path.read_bytes()

    def digest(self, name: str) -> str:
        """See `Files.digest`."""
        path = self._root / name
        with _mapped(path, "read", missing=NotFoundError), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def modified(self, folder: str) -> dict[str, float]:
        """See `Files.modified`."""
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

    def delete(self, name: str, *, seen_s: float | None = None) -> bool:
        """See `Files.delete`."""
        path = self._root / name
        with _mapped(path, "delete"):
            try:
                if seen_s is not None and path.stat().st_mtime != seen_s:
                    return False
                path.unlink()
            except FileNotFoundError:
                return True
        return True

    def sweep(self, *, before_s: float) -> None:
        """See `Files.sweep`."""
        for name, written_s in self.modified(_UNFINISHED).items():
            if written_s <= before_s:
                self.delete(f"{_UNFINISHED}/{name}", seen_s=written_s)

    @contextmanager
    def _written(self, name: str, *parts: bytes | memoryview) -> Iterator[tuple[Path, Path]]:
        """A temporary file that holds `parts` durably, and `name`'s path; the temporary is gone afterwards."""
        path = self._root / name
        temporary = self._root / _UNFINISHED / uuid.uuid4().hex
        with _mapped(path, "write"):
            _make_folder(path.parent)
            _make_folder(temporary.parent)
            try:
                with temporary.open("xb") as file:
                    file.writelines(parts)
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
