"""Commands in this process, which spares the imports of a new one."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def as_a_process(folder: Path, **environment: str) -> Iterator[None]:
    """As in a process of its own, in `folder`: where it stands, its environment, import path and handlers are undone afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
