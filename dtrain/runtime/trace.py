"""A trace of applied steps, for whoever measures recovery from outside this process."""

from __future__ import annotations

import os
import struct
import time
from functools import cache
from pathlib import Path

VARIABLE = "DTRAIN_STEP_TRACE"
"""Names the folder in which each trainer leaves `<pid>.trace`; unset for none. Read by the process that trains: Ray gives it on."""

RECORD = struct.Struct("<Qd")
"""A plan number, and the monotonic clock just after its step was applied, in seconds: one clock for all processes of a machine."""


class StepTrace:
    """Writes one record for each data step that this process has applied.

    Args:
        file: open for appending; None to write nothing.
    """

    def __init__(self, file: int | None) -> None:
        self._file = file

    @classmethod
    def open(cls, folder: str | None) -> StepTrace:
        """The trace of this process in `folder`, or one that writes nothing."""
        if not folder:
            return cls(None)
        return cls(os.open(Path(folder, f"{os.getpid()}.trace"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))

    def applied(self, plan_number: int) -> None:
        """The step is in the file when this returns, whatever becomes of the process."""
        if self._file is not None:
            os.write(self._file, RECORD.pack(plan_number, time.monotonic()))


@cache
def step_trace() -> StepTrace:
    """The one trace of this process."""
    return StepTrace.open(os.environ.get(VARIABLE))
