"""A host's packages of jobs, by lock: installed once, checked whenever a process begins to use them."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from dtrain.code.host import HostCache, make_read_only
from dtrain.errors import DriftError
from dtrain.packages.base import Base, unmet
from dtrain.packages.lock import Lock
from dtrain.packages.tool import run_tool
from dtrain.steplog.entries import canonical

_PACKAGES, _FILES, _LOCK = "packages", "files.json", "requirements.txt"


class PackageCache:
    """Installed packages in `root`, one folder a lock. See `HostCache`.

    Args:
        root: on a disk of this host; made if it is not there, for this user alone.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._host = HostCache(root)

    def folder_of(self, lock: Lock, *, on_install: Callable[[], None] = lambda: None) -> Path:
        """The folder with the packages of `lock`, as they were installed, and they stay so while this process lives.

        Args:
            lock: what is wanted.
            on_install: called before they are installed, if they are not here.

        Raises:
            RequirementsError: they cannot be installed.
            CorruptError: what is here was changed while others use it.
            StorageError: there is no room, or the folder is somebody else's.

        Blocking: while they are installed, by this process or another; half an hour at most.
        """

        def make(folder: Path) -> None:
            on_install()
            _install(lock, folder)

        return self._host.take(_name_of(lock), is_sound=_is_sound, make=make) / _PACKAGES


def use(text: str, *, on_install: Callable[[Lock], None] = lambda _: None) -> None:
    """What a lock names can be imported in this process from now on; nothing happens where `text` is empty.

    It stands behind everything else on the import path: it adds to what the workers have, and can hide nothing that dtrain runs on.

    Args:
        text: the lock, as JSON.
        on_install: called before the packages are installed, if this host has not got them.

    Raises:
        DriftError: this host has other packages than that where the lock was settled, and what it names does not fit in.
        RequirementsError, CorruptError, StorageError: as `PackageCache.folder_of`.
    """
    if not text:
        return
    lock, cache = Lock.from_json(text), host_packages()
    base = Base.here(without=cache.root)
    for pin in lock.pins:
        have = base.version_of(pin.name)
        if have not in (None, pin.version):
            raise _drifted(f"the job's lock has {pin}, and the workers have {have}")
    folder = cache.folder_of(lock, on_install=lambda: on_install(lock) if lock.pins else None)
    if lacking := unmet(lock.requirements, folder, base):
        raise _drifted(lacking[0])
    sys.path[:] = [*(place for place in sys.path if not Path(place).is_relative_to(cache.root)), str(folder)]
    importlib.invalidate_caches()


@lru_cache(maxsize=1)
def host_packages() -> PackageCache:
    """The one that all jobs of this user share on this host; one a process, which holds what it uses until it ends."""
    return PackageCache(Path(tempfile.gettempdir()) / f"dtrain-packages-{os.getuid()}")


def _name_of(lock: Lock) -> str:
    """The digest of a lock and of what its packages are installed for: another interpreter has files of its own."""
    return hashlib.sha256(canonical([lock.to_json(), sys.implementation.cache_tag, sysconfig.get_platform()])).hexdigest()


def _install(lock: Lock, folder: Path) -> None:
    """`folder` holds the packages, read only, and a list of their files."""
    packages = folder / _PACKAGES
    packages.mkdir(mode=0o700)
    lines = [" ".join((f"{pin.name}=={pin.version}", *(f"--hash={one}" for one in pin.hashes))) for pin in lock.pins]
    (folder / _LOCK).write_text("\n".join((*lines, "")), encoding="utf-8")
    if lock.pins:
        words = ("pip", "install", "--target", str(packages), "--no-deps", "--require-hashes", "--compile-bytecode")
        run_tool((*words, "-r", str(folder / _LOCK)), folder=folder, doing="cannot be installed")
    make_read_only(packages)
    (folder / _FILES).write_text(json.dumps(_files(packages)), encoding="utf-8")


def _is_sound(folder: Path) -> bool:
    """Whether every file is there that was installed, as large and as old. (To read all of them would take each process seconds.)"""
    try:
        written = json.loads((folder / _FILES).read_text(encoding="utf-8"))
        return bool(written == _files(folder / _PACKAGES))
    except (OSError, ValueError):
        return False


def _files(packages: Path) -> dict[str, list[int]]:
    """Size and time of each file but compiled modules, by its path."""
    found = {}
    for place, _, names in os.walk(packages):
        for name in names:
            if not name.endswith(".pyc"):
                path = Path(place, name)
                status = path.lstat()
                found[path.relative_to(packages).as_posix()] = [status.st_size, status.st_mtime_ns]
    return found


def _drifted(why: str) -> DriftError:
    fix = "give the workers what they had when the job began, or change `requirements` and resume with --accept-code-change"
    return DriftError(f"{why}: they are not as they were when the job's requirements were settled", fix=fix)
