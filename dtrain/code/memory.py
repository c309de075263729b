"""The twin of the store of code: archives in this process."""

from __future__ import annotations

from collections.abc import Callable, Collection
from threading import Lock

from dtrain.clock import Clock, SystemClock
from dtrain.code.store import Quota, check_archive, check_name, check_room, missing


class MemoryCodeStore:
    """A `CodeStore` that lasts as long as this object.

    Args:
        quota: of what is kept.
        clock: for when what was touched.
    """

    def __init__(self, *, quota: Quota | None = None, clock: Clock | None = None) -> None:
        self._quota = quota or Quota()
        self._clock = clock or SystemClock()
        self._lock = Lock()
        self._kept: dict[str, bytes] = {}
        self._touched_s: dict[str, float] = {}

    def put(self, sha256: str, content: bytes) -> None:
        """See `CodeStore.put`."""
        check_archive(sha256, content)
        with self._lock:
            if sha256 not in self._kept:
                check_room(self._quota, [len(kept) for kept in self._kept.values()], len(content))
            self._kept[sha256], self._touched_s[sha256] = content, self._clock.wall_s()

    def touch(self, sha256: str) -> bool:
        """See `CodeStore.touch`."""
        with self._lock:
            if check_name(sha256) not in self._kept:
                return False
            self._touched_s[sha256] = self._clock.wall_s()
            return True

    def read(self, sha256: str) -> bytes:
        """See `CodeStore.read`."""
        found = self._kept.get(check_name(sha256))
        if found is None:
            raise missing(sha256)
        return found

    def sweep(self, *, used: Callable[[], Collection[str]], before_s: float) -> int:
        """See `CodeStore.sweep`."""
        with self._lock:
            old = {sha256 for sha256, touched_s in self._touched_s.items() if touched_s < before_s}
            gone = old - set(used()) if old else set()
            for sha256 in gone:
                del self._kept[sha256], self._touched_s[sha256]
            return len(gone)
