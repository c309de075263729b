"""Structured logs: JSON lines in files, readable lines on a terminal."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any, TextIO

import structlog

Logger = structlog.typing.FilteringBoundLogger


def configure(*, file: Path | None = None, stream: TextIO | None = None) -> None:
    """Every logger of this process writes from now on to `file` as JSON lines, or to `stream` for people.

    Args:
        file: appended to; its folder is made. None for a terminal.
        stream: where readable lines go when there is no file; standard error by default.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        out: TextIO = file.open("a", encoding="utf-8", buffering=1)
        shared.append(structlog.processors.JSONRenderer())
    else:
        out = stream or sys.stderr
        shared.append(structlog.dev.ConsoleRenderer(colors=out.isatty()))
    structlog.configure(processors=shared, logger_factory=structlog.WriteLoggerFactory(out), cache_logger_on_first_use=False)


def logger(**context: Any) -> Logger:
    """A logger whose every line carries `context`."""
    bound: Logger = structlog.get_logger(**context)
    return bound


def printable(text: str) -> str:
    """`text` as it can be stored and sent: halves of characters, which user code or a message may bring, become a `?`."""
    return text.encode(errors="replace").decode()


class LineLog(io.TextIOBase):
    """A text stream whose lines become log lines: what a user's task prints is in the job's log.

    Args:
        target: the logger.
        event: the name of each line's event.
    """

    def __init__(self, target: Logger, event: str) -> None:
        self._target = target
        self._event = event
        self._rest = ""

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Log every line that is complete now."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._target.info(self._event, text=line)
        return len(text)
