"""The exit codes of every command; `dtrain --help` lists them."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a command's exit code says."""

    OK = 0
    JOB = 1
    """The command did its work; the job that it watched or ran has failed, is blocked or was cancelled."""
    INPUT = 2
    """Wrong usage, a mistake in the job file, or a task that does not work."""
    NOT_FOUND = 3
    CONFLICT = 4
    """The job is in a state in which this is not possible, or a name or request id is taken."""
    AUTH = 5
    UNAVAILABLE = 6
    """Something does not answer; the same command may work later."""
    CORRUPT = 7
    """What is stored is not what was written, or weights are not what the log says."""
    STORAGE = 8
    """Disk full, read-only, or no permission."""
    INTERNAL = 70
    """A bug of dtrain's."""
    INTERRUPTED = 130


_CODES = {
    "INVALID_ARGUMENT": Exit.INPUT,
    "NOT_FOUND": Exit.NOT_FOUND,
    "ALREADY_EXISTS": Exit.CONFLICT,
    "FAILED_PRECONDITION": Exit.CONFLICT,
    "UNAUTHENTICATED": Exit.AUTH,
    "UNAVAILABLE": Exit.UNAVAILABLE,
    "DATA_LOSS": Exit.CORRUPT,
    "RESOURCE_EXHAUSTED": Exit.STORAGE,
}


def exit_of(code: str) -> Exit:
    """The exit code for the status code of an error, as `DtrainError.code`."""
    return _CODES.get(code, Exit.INTERNAL)
