"""One fault, seen from outside: a signal to a rank, and when the others apply steps again that it had no part in."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.traces import Trace, live, read_traces, step_ms

GIVEN_UP_S = 60.0
"""A system that is not back by then is scored with this."""
SETTLED_S = 2.0
WHOLE_S = 240.0

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one fault."""

    rank: int
    recovery_s: float
    """From the signal to the next applied step of the later survivor."""
    is_back: bool
    num_again: int
    """Steps that were applied before and computed once more."""


def await_whole(folder: Path, *, num_ranks: int) -> bool:
    """So many processes apply steps, and have done so for a while; False if that does not come to be."""
    deadline_s, since_s = time.monotonic() + WHOLE_S, time.monotonic()
    while time.monotonic() < deadline_s:
        if len(live(read_traces(folder), within_s=0.5)) < num_ranks:
            since_s = time.monotonic()
        elif time.monotonic() - since_s >= SETTLED_S:
            return True
        time.sleep(4 * _POLL_S)
    return False


def quiet_step_ms(folder: Path) -> float:
    """Milliseconds a step over the while that the system has been whole."""
    now_s = time.monotonic()
    return step_ms(read_traces(folder), from_s=now_s - SETTLED_S, to_s=now_s)


def run_trial(folder: Path, ranks: Mapping[int, int], *, rank: int, kind: signal.Signals, chance: random.Random) -> Trial:
    """The process of `rank` gets the signal at some moment of a step."""
    time.sleep(chance.uniform(0, 0.05))
    victim, before = ranks[rank], set(live(read_traces(folder), within_s=1.0))
    struck_s = time.monotonic()
    os.kill(victim, kind)
    while time.monotonic() < struck_s + GIVEN_UP_S:
        time.sleep(_POLL_S)
        traces = read_traces(folder)
        back_s = _back_s(traces, victim=victim, before=before, struck_s=struck_s, num_survivors=len(ranks) - 1)
        if back_s is not None:
            return Trial(rank, back_s - struck_s, is_back=True, num_again=_num_again(traces, struck_s=struck_s, back_s=back_s))
    return Trial(rank, GIVEN_UP_S, is_back=False, num_again=0)


def _back_s(traces: Mapping[int, Trace], *, victim: int, before: set[int], struck_s: float, num_survivors: int) -> float | None:
    """When so many processes had applied a step without the victim: in one that lives on, the second after the victim's last."""
    last = int(traces[victim]["number"][-1])
    firsts = []
    for pid, trace in traces.items():
        if pid == victim:
            continue
        later = trace["at_s"][(trace["at_s"] > struck_s) & ((trace["number"] >= last + 2) | (pid not in before))]
        firsts += later[:1].tolist()
    return sorted(firsts)[num_survivors - 1] if len(firsts) >= num_survivors else None


def _num_again(traces: Mapping[int, Trace], *, struck_s: float, back_s: float) -> int:
    """Steps applied by somebody before the gap and by somebody behind it."""
    middle_s = (struck_s + back_s) / 2
    numbers_before = [int(trace["number"][trace["at_s"] < middle_s].max(initial=0)) for trace in traces.values()]
    numbers_after = [
        trace["number"][(trace["at_s"] > middle_s) & (trace["at_s"] <= back_s)].tolist() for trace in traces.values()
    ]
    first = min((number for numbers in numbers_after for number in numbers), default=0)
    return max(0, max(numbers_before) - first + 1) if first else 0
