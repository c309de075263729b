"""Traces of applied steps, as trainers of every system leave them: `<pid>.trace` in one folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from dtrain.runtime.trace import RECORD

TRACE = np.dtype([("number", "<u8"), ("at_s", "<f8")])
assert TRACE.itemsize == RECORD.size

Trace = npt.NDArray[np.void]
"""One process's applied steps in the order in which it applied them: `number` and `at_s`, monotonic."""


def read_traces(folder: Path) -> dict[int, Trace]:
    """The traces in `folder` by process id; those of the dead too."""
    return {int(path.stem): _read(path) for path in folder.glob("*.trace")}


def _read(path: Path) -> Trace:
    content = path.read_bytes()
    return np.frombuffer(content[: len(content) // TRACE.itemsize * TRACE.itemsize], dtype=TRACE)


def live(traces: Mapping[int, Trace], *, within_s: float) -> set[int]:
    """The processes that have applied a step in the last `within_s`."""
    since_s = time.monotonic() - within_s
    return {pid for pid, trace in traces.items() if len(trace) and trace["at_s"][-1] > since_s}


def step_ms(traces: Mapping[int, Trace], *, from_s: float, to_s: float) -> float:
    """Median milliseconds between two steps of a process, over all processes, in a stretch of time."""
    gaps = [np.diff(trace["at_s"][(trace["at_s"] >= from_s) & (trace["at_s"] <= to_s)]) for trace in traces.values()]
    return median(np.concatenate(gaps).tolist()) * 1000


def is_alive(pid: int) -> bool:
    """Whether the process runs, or is stopped; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
