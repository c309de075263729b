"""Files in memory: the twin of `LocalFiles`, for tests of what stands on them."""

import hashlib
import threading

from dtrain.errors import NotFoundError


class MemoryFiles:
    """See `dtrain.checkpoint.files.Files`. Time goes on by one second with each write."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.times: dict[str, float] = {}
        self.num_writes = self.num_bytes_written = 0
        self._lock = threading.Lock()

    def create(self, name: str, content: bytes) -> bool:
        with self._lock:
            return name not in self.contents and self._write(name, content)

    def put(self, name: str, *parts: bytes | memoryview) -> None:
        with self._lock:
            self._write(name, b"".join(parts))

    def read(self, name: str) -> bytes:
        if name not in self.contents:
            raise NotFoundError(f"there is no {name}")
        return self.contents[name]

    def digest(self, name: str) -> str:
        return hashlib.sha256(self.read(name)).hexdigest()

    def modified(self, folder: str) -> dict[str, float]:
        with self._lock:
            return {name.removeprefix(f"{folder}/"): at for name, at in self.times.items() if name.startswith(f"{folder}/")}

    def delete(self, name: str, *, seen_s: float | None = None) -> bool:
        with self._lock:
            if seen_s is not None and self.times.get(name, seen_s) != seen_s:
                return False
            self.contents.pop(name, None)
            self.times.pop(name, None)
            return True

    def sweep(self, *, before_s: float) -> None:
        pass

    def _write(self, name: str, content: bytes) -> bool:
        self.contents[name] = content
        self.num_writes += 1
        self.times[name] = float(self.num_writes)
        self.num_bytes_written += len(content)
        return True
