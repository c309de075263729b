"""Tasks of an event loop that do not die unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from dtrain.errors import DtrainError, InternalError


class TaskSet:
    """Tasks that belong together.

    Args:
        on_error: called with what a task raised; a foreign error comes as an `InternalError`.
    """

    def __init__(self, on_error: Callable[[DtrainError], None]) -> None:
        self._on_error = on_error
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """`coroutine` runs from now on."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def cancel(self) -> None:
        """None of them goes on."""
        for task in list(self._tasks):
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, DtrainError):
            self._on_error(error)
        elif error is not None:
            self._on_error(InternalError(f"{type(error).__name__}: {error}"))
