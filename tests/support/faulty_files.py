"""Files that fail when a test says so: the same disk, with a fault in front of it."""

import os
from collections.abc import Callable
from pathlib import Path

from dtrain.checkpoint.files import LocalFiles


class HookedFiles(LocalFiles):
    """Calls `hook(operation, name)` before each operation; what it raises is raised."""

    def __init__(self, root: Path, hook: Callable[[str, str], None]) -> None:
        super().__init__(root)
        self.hook = hook

    def create(self, name: str, content: bytes) -> bool:
        self.hook("create", name)
        return super().create(name, content)

    def put(self, name: str, *parts: bytes | memoryview) -> None:
        self.hook("put", name)
        super().put(name, *parts)

    def read(self, name: str) -> bytes:
        self.hook("read", name)
        return super().read(name)

    def digest(self, name: str) -> str:
        self.hook("digest", name)
        return super().digest(name)

    def modified(self, folder: str) -> dict[str, float]:
        self.hook("modified", folder)
        return super().modified(folder)

    def delete(self, name: str, *, seen_s: float | None = None) -> bool:
        self.hook("delete", name)
        return super().delete(name, seen_s=seen_s)


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
