"""A host's unpacked code, by the digest of its archive."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from dtrain.code.archive import members, unpack
from dtrain.code.host import KEPT, HostCache
from dtrain.errors import CorruptError

_ARCHIVE, _CODE = "archive.tar", "code"


class CodeCache:
    """Unpacked code in `root`, one folder a digest, with the archive beside it that it is compared with. See `HostCache`.

    Args:
        root: on a disk of this host; made if it is not there, for this user alone.
        num_kept: how many are kept that nobody holds.

    Threads: `folder_of` may be called from several.
    """

    def __init__(self, root: Path, *, num_kept: int = KEPT) -> None:
        self._host = HostCache(root, num_kept=num_kept)

    def folder_of(self, sha256: str, fetch: Callable[[], bytes]) -> Path:
        """The folder with that code, whole and as it was packed, and it stays so while this process lives.

        Args:
            sha256: of the archive.
            fetch: gives the archive, if this host has not got it.

        Raises:
            CorruptError: what was fetched is something else, or what is here was changed while others use it.
            StorageError: there is no room, or the folder is somebody else's.
        """

        def make(folder: Path) -> None:
            archive = fetch()
            if (found := hashlib.sha256(archive).hexdigest()) != sha256:
                raise CorruptError(f"the code that came has the digest {found[:12]}, not {sha256[:12]}", fix="resume the job")
            (folder / _ARCHIVE).write_bytes(archive)
            unpack(archive, folder / _CODE)

        return self._host.take(sha256, is_sound=lambda folder: _is_sound(folder, sha256), make=make) / _CODE


def _is_sound(folder: Path, sha256: str) -> bool:
    """Whether `folder` has every file of the archive, as it is there. Others, as compiled modules, do not matter."""
    try:
        archive = (folder / _ARCHIVE).read_bytes()
        if hashlib.sha256(archive).hexdigest() != sha256:
            return False
        return all((folder / _CODE / one.path).read_bytes() == one.content for one in members(archive))
    except OSError:
        return False


@lru_cache(maxsize=1)
def host_cache() -> CodeCache:
    """The one that all jobs of this user share on this host; one a process, which holds what it uses until it ends."""
    return CodeCache(Path(tempfile.gettempdir()) / f"dtrain-code-{os.getuid()}")
