"""Other programs, run from here: their failures as errors that name the fix."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from dtrain.errors import UnavailableError

_FIXES = {
    "UnsupportedClassVersionError": "install Java 17 or later",
    "Address already in use": "its port is taken by another process; end that one, or start a new broker",
    "No space left on device": "free some disk space",
    "Cannot connect to the Docker daemon": "start Docker, or install Java 17 and Maven, or set KAFKA_BOOTSTRAP",
}
_SIGNS = (*_FIXES, "ERROR", "Error", "Exception")


def run(command: Sequence[str], *, what: str) -> None:
    """`command` has run to its end, with success.

    Raises:
        UnavailableError: it failed; says `what` did, and what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise failed(f"{what} failed", done.stderr + done.stdout, fix=f"run it by hand: {shlex.join(command)}")


def failed(reason: str, output: str, *, fix: str) -> UnavailableError:
    """The error for a program that said `output`: with its most telling line, and the fix for that where we know one."""
    known = next((text for text in _FIXES if text in output), None)
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith(("\t", " "))]
    telling = (line for sign in _SIGNS for line in lines if sign in line)
    said = next(telling, lines[-1] if lines else "it said nothing")
    return UnavailableError(f"{reason}: {said}", fix=_FIXES[known] if known else fix)


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """What the disk refuses in `folder` is an `UnavailableError`."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"{folder}: {error.strerror}", fix="free disk space, or name another folder") from error
