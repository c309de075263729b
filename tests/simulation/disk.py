"""The disk of the simulator: files in memory, and calls that stop before each operation on them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any

from dtrain.errors import FencedError, NotFoundError, StorageError


class Disk:
    """`checkpoint.files.Files` in memory: linearizable, with create-if-absent. Only one thread moves at a time.

    `unreadable` names raise StorageError; `changes` counts what happened to fences and manifests; each write takes a second.
    """

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.times: dict[str, float] = {}
        self.unreadable: set[str] = set()
        self.changes = 0
        self._clock_s = 0.0
        self.errand: Errand | None = None
        """The one that moves now; None for what the simulator itself does in one piece."""

    def create(self, name: str, content: bytes) -> bool:
        self._stop()
        if name in self.contents:
            return False
        self._write(name, content)
        return True

    def put(self, name: str, *parts: bytes | memoryview) -> None:
        self._stop()
        self._write(name, b"".join(parts))

    def read(self, name: str) -> bytes:
        if name.startswith("manifests/"):  # fences, once there, never change: to stop before those shows nothing new
            self._stop()
        if name in self.unreadable:
            raise StorageError(f"{name} cannot be read now")
        if name not in self.contents:
            raise NotFoundError(f"there is no {name}")
        return self.contents[name]

    def digest(self, name: str) -> str:
        self._stop()
        return hashlib.sha256(self.read(name)).hexdigest()

    def modified(self, folder: str) -> dict[str, float]:
        self._stop()
        return {name.partition("/")[2]: at for name, at in self.times.items() if name.startswith(f"{folder}/")}

    def delete(self, name: str, *, seen_s: float | None = None) -> bool:
        self._stop()
        if seen_s is not None and self.times.get(name, seen_s) != seen_s:
            return False
        if self.contents.pop(name, None) is not None:
            del self.times[name]
            self._changed(name)
        return True

    def sweep(self, *, before_s: float) -> None:
        """Nothing is ever unfinished here."""

    def damage(self, name: str) -> None:
        """One bit of `name` is another from now on, for ever."""
        content = self.contents[name]
        self.contents[name] = content[:-1] + bytes([content[-1] ^ 1])
        self._changed(name)

    def _write(self, name: str, content: bytes) -> None:
        self._clock_s += 1.0
        self.contents[name], self.times[name] = content, self._clock_s
        self._changed(name)

    def _changed(self, name: str) -> None:
        self.changes += name.startswith(("fences/", "manifests/"))

    def _stop(self) -> None:
        if self.errand is not None:
            self.errand.stop()


class _Killed(BaseException):
    pass


class Errand:
    """A call that stops before every file operation; a kill or a pause may fall between any two.

    It runs in a thread of its own, which moves only inside `step`.
    """

    def __init__(self, disk: Disk, call: Callable[[], Any]) -> None:
        self.is_over = self._is_killed = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._disk = disk
        self._go, self._stopped = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._stopped.acquire()
        self._thread = threading.Thread(target=self._main, args=(call,), daemon=True)
        self._thread.start()

    def step(self, num_operations: int = 1) -> bool:
        """So many operations further; whether the call is over: then it has a `result`, or an `error`."""
        self._disk.errand, self._left = self, num_operations
        self._go.release()
        self._stopped.acquire()
        self._disk.errand = None
        return self.is_over

    def stop(self) -> None:
        """Called in the thread: the next operation waits for `step`, unless more than one is allowed."""
        self._left -= 1
        if self._left > 0:
            return
        self._stopped.release()
        self._go.acquire()
        if self._is_killed:
            raise _Killed

    def kill(self) -> None:
        """The next operation never happens."""
        self._is_killed = True
        while not self.is_over:
            self.step()
        self._thread.join()

    def _main(self, call: Callable[[], Any]) -> None:
        self._go.acquire()
        try:
            if not self._is_killed:
                self.result = call()
        except (_Killed, FencedError, Exception) as error:
            self.error = error
        self.is_over = True
        self._stopped.release()
